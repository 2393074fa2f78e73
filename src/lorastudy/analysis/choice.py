"""Which run a person means by a run id, an arm, or an arm with a seed."""

from dataclasses import dataclass

from lorastudy.analysis.summary import choose_best_run, summarise_arms
from lorastudy.config.mistakes import nearest
from lorastudy.config.spec import RunSpec
from lorastudy.errors import ConfigError, show_names
from lorastudy.store.collect import collect_results, read_overview
from lorastudy.store.folders import StudyFolder
from lorastudy.store.rates import best_validation
from lorastudy.store.records import RunResult


@dataclass(frozen=True, slots=True)
class Choice:
    """A run, and why it was chosen if the name could mean several runs."""

    spec: RunSpec
    reason: str | None  # None: it was named by its id


def find_run(study: StudyFolder, name: str) -> RunSpec:
    """The run whose id is `name`.

    Raises:
        ConfigError: The study does not have this run; the message lists its runs.
    """
    specs = _runs_by_id(study)
    if name not in specs:
        raise ConfigError(
            f"{study.path} has no run {name!r}{nearest(name, specs)}. It has: {show_names(specs)}."
        )
    return specs[name]


def choose_run(study: StudyFolder, name: str) -> Choice:
    """The run that `name` means: a run id, an arm such as `lora-2`, or its seed, `lora-2-s0`.

    If there are several, it is the one with the lowest validation loss among those that the report
    uses: finished runs at the learning rate of the arm's row.

    Raises:
        ConfigError: No run or arm has this name, or none of the arm's runs has finished.
    """
    specs = _runs_by_id(study)
    arms = list(dict.fromkeys(spec.arm.name for spec in specs.values()))
    meant = {run_id for run_id, spec in specs.items() if name in (spec.arm.name, _arm_seed(spec))}
    if name in specs:
        return Choice(specs[name], None)
    if not meant:
        raise ConfigError(
            f"{study.path} has no run {name!r}{nearest(name, [*arms, *specs])}. Give an arm "
            f"({', '.join(arms)}), or a run as `lorastudy status {study.path}` lists it."
        )
    summaries = summarise_arms(collect_results(study))
    runs = [run for arm in summaries for run in arm.runs if run.run_id in meant]
    best = choose_best_run(runs)
    if best is None:
        raise ConfigError(
            f"no run of {name} has finished, so there is no best epoch to export. "
            f"Finish one:  lorastudy run {study.path}"
        )
    return Choice(specs[best.run_id], _reason(name, best, n_runs=len(runs)))


def _reason(name: str, best: RunResult, *, n_runs: int) -> str:
    rate = f" at learning rate {best.learning_rate:g}" if best.learning_rate else ""
    found = best_validation(best)
    by_answers = found is not None and found.accuracy is not None
    lead = "the most right answers on validation" if by_answers else "the lowest validation loss"
    among = f"{lead} of {n_runs} runs" if n_runs > 1 else "the only run"
    return f"{name} is {best.run_id}: {among}{rate} that finished."


def _arm_seed(spec: RunSpec) -> str:
    return f"{spec.arm.name}-s{spec.seed}"


def _runs_by_id(study: StudyFolder) -> dict[str, RunSpec]:
    return {run.spec.run_id: run.spec for run in read_overview(study)}
