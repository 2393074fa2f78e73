"""A study expanded into runs, each with an identity that depends only on its content.

The identity covers everything that the trained weights depend on. Benchmarks and the arm's
name are left out, since training must not be repeated when a test set is added or an arm renamed.
The same spec has the same run id on every machine and in every process.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from lorastudy.config.benchmarks import Samples
from lorastudy.config.models import Arm, BaseModelRef, Benchmark, Data, Study, StudyModel, Training
from lorastudy.config.syntax import IfGiven

_NOT_IN_IDENTITY: dict[str, Any] = {
    **{"benchmarks": True, "samples": True},
    # weights that were trained elsewhere are known by their content, wherever they lie
    "arm": {"name": True, "weights": {"__all__": {"folder"}}},
}
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
    samples: IfGiven[Samples] = None
    """Prompts after which its model writes; not part of the identity."""

    @property
    def learning_rate(self) -> float | None:
        """Peak learning rate; None for a baseline, which takes no step."""
        return self.arm.learning_rates[0] if self.arm.learning_rates else None

    @property
    def identity(self) -> str:
        """SHA-256 (64 hex digits) over everything that the trained weights depend on."""
        content = self.model_dump(mode="json", exclude=_NOT_IN_IDENTITY)
        content["arm"]["placement"].sort()  # the order of patterns changes no weight
        text = json.dumps([_IDENTITY_FORMAT, content], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """Name of the run's folder: `<arm>-s<seed>-<first 8 digits of the identity>`."""
        return f"{self.arm.name}-s{self.seed}-{self.identity[:8]}"


def expand_study(study: Study, rates: Mapping[str, float] | None = None) -> tuple[RunSpec, ...]:
    """All runs of a study: by arm, then learning rate, then seed, each in the order given.

    A baseline has one run, with the first seed, since nothing in it is random. An arm that was
    trained elsewhere has one for each of its weights, with the seeds in their order. An arm whose
    rate is chosen with tuning seeds has its tuning runs first; `rates` are the rates chosen so
    far, by arm. An arm that is not in it has no other run yet.
    """
    return tuple(spec for arm in study.arms for spec in _expand_arm(study, arm, rates or {}))


def _expand_arm(study: Study, arm: Arm, chosen: Mapping[str, float]) -> Iterator[RunSpec]:
    if arm.method == "elsewhere":
        for seed, one in zip(study.seeds, arm.weights, strict=False):
            alone = arm.model_copy(update={"weights": (one,)})
            yield _make_spec(study, alone, None, seed)
        return
    if not study.is_tuned(arm):
        seeds = study.seeds[:1] if arm.method == "baseline" else study.seeds
        for rate in arm.learning_rates or (None,):
            yield from (_make_spec(study, arm, rate, seed) for seed in seeds)
        return
    for rate in arm.learning_rates:
        yield from (_make_spec(study, arm, rate, seed) for seed in study.tuning_seeds)
    if arm.name in chosen:
        yield from (_make_spec(study, arm, chosen[arm.name], seed) for seed in study.seeds)


def _make_spec(study: Study, arm: Arm, rate: float | None, seed: int) -> RunSpec:
    """One run; a tuning run has no benchmarks, so that no test can choose a learning rate."""
    return RunSpec(
        arm=arm.model_copy(update={"learning_rates": () if rate is None else (rate,)}),
        seed=seed,
        base_model=study.base_model,
        data=study.data,
        training=study.training.of_arm(arm.name),
        benchmarks=() if seed in study.tuning_seeds else study.benchmarks,
        samples=None if seed in study.tuning_seeds else study.samples,
    )


def list_runs_to_come(study: Study, rates: Mapping[str, float]) -> tuple[RunSpec, ...]:
    """The runs that follow when the learning rates that `rates` lacks are chosen.

    Their number, arms and seeds are right; the rate is the first of the list, not the chosen one.
    """
    waiting = {
        arm.name: arm.learning_rates[0]
        for arm in study.arms
        if study.is_tuned(arm) and arm.name not in rates
    }
    return tuple(
        spec
        for spec in expand_study(study, waiting)
        if spec.arm.name in waiting and spec.seed not in study.tuning_seeds
    )
