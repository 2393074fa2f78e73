"""A study expanded into runs, each with an identity that depends only on its content.

The identity covers everything that the trained weights depend on. Benchmarks and the arm's
name are left out, since training must not be repeated when a test set is added or an arm renamed.
The same spec has the same run id on every machine and in every process.
"""

import hashlib
import json

from lorastudy.config.models import Arm, BaseModelRef, Benchmark, Data, Study, StudyModel, Training

_IDENTITY_FORMAT = 2  # raise it when equal settings begin to mean other weights


class RunSpec(StudyModel):
    """One arm with one seed and one learning rate, with everything that is needed to execute it."""

    arm: Arm
    """The arm, with the one learning rate of this run (none for a baseline)."""
    seed: int
    """Data order, dropout and the adapter's initial values are derived from it."""
    base_model: BaseModelRef
    """The model that the run starts from."""
    data: Data
    """The texts that it is trained on."""
    training: Training
    """How it is trained."""
    benchmarks: tuple[Benchmark, ...] = ()
    """The test sets that it is scored on; not part of the identity."""

    @property
    def learning_rate(self) -> float | None:
        """Peak learning rate; None for a baseline, which takes no step."""
        return self.arm.learning_rates[0] if self.arm.learning_rates else None

    @property
    def identity(self) -> str:
        """SHA-256 (64 hex digits) over everything that the trained weights depend on."""
        content = self.model_dump(mode="json", exclude={"benchmarks": True, "arm": {"name"}})
        content["arm"]["placement"].sort()  # the order of patterns changes no weight
        text = json.dumps([_IDENTITY_FORMAT, content], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """Name of the run's folder: `<arm>-s<seed>-<first 8 digits of the identity>`."""
        return f"{self.arm.name}-s{self.seed}-{self.identity[:8]}"


def expand_study(study: Study) -> tuple[RunSpec, ...]:
    """All runs of a study: by arm, then learning rate, then seed, each in the order given.

    A baseline has one run, with the first seed, since nothing in it is random.
    """
    return tuple(
        RunSpec(
            arm=arm.model_copy(update={"learning_rates": rates}),
            seed=seed,
            base_model=study.base_model,
            data=study.data,
            training=study.training,
            benchmarks=study.benchmarks,
        )
        for arm in study.arms
        for rates in _rates_of_runs(arm)
        for seed in (study.seeds[:1] if arm.method == "baseline" else study.seeds)
    )


def _rates_of_runs(arm: Arm) -> list[tuple[float, ...]]:
    return [(rate,) for rate in arm.learning_rates] if arm.learning_rates else [()]
