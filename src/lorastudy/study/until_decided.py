"""A study that runs until its question is decided: from the records of its folder to decisions.

`analysis.until_decided` says what follows from what is known. Here, that is read from the folder,
and what follows is written into it: lines of `decisions.jsonl`, and the seeds and learning rates
that they add to `study.yaml`, as `lorastudy extend` would.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from statistics import fmean

from lorastudy.analysis.halving import TriedRate
from lorastudy.analysis.look_at import look_at
from lorastudy.analysis.looks import Look
from lorastudy.analysis.until_decided import SoFar, next_entries
from lorastudy.config.models import Study
from lorastudy.config.study_file import extend_study
from lorastudy.store.collect import collect_results, read_study, write_extension
from lorastudy.store.decisions import (
    Ask,
    Entry,
    Plan,
    Search,
    SeenPair,
    append_decision,
    count_seeds,
    list_asks,
    read_decisions,
)
from lorastudy.store.folders import StudyFolder
from lorastudy.store.leases import own
from lorastudy.store.lines import read_records
from lorastudy.store.records import EpochRecord, RunResult, ValidationRecord

_LOST = ("diverged", "damaged")  # such a run is not tried again


def decide(folder: StudyFolder) -> tuple[Entry, ...]:
    """Take all decisions that the records allow now, and return them.

    Afterwards the study has the seeds and learning rates that its decisions ask for.

    Raises:
        OwnedError: Another process decides at this moment.
        StorageError: The decisions are not what was written, or cannot be written.
    """
    new: list[Entry] = []
    with own(folder.path):
        while True:
            study = _bring_up_to_date(folder)
            found = next_entries(read_so_far(study, folder), partial(_judge, folder, study))
            if not found:
                return tuple(new)
            append_decision(folder, *found)
            new += found


def _judge(
    folder: StudyFolder, study: Study, looks: tuple[Look, ...], plan: Plan
) -> tuple[SeenPair, ...]:
    return look_at(collect_results(folder), folder.path, study, looks, plan)


def _bring_up_to_date(folder: StudyFolder) -> Study:
    """Add to `study.yaml` what the decisions added; nothing if that was done before."""
    study = read_study(folder)
    wanted = cover_decisions(study, read_decisions(folder))
    if wanted != study:
        write_extension(folder, study, wanted)
    return wanted


def cover_decisions(study: Study, decisions: Sequence[Entry]) -> Study:
    """The study with the seeds and learning rates that its decisions ask for."""
    for entry in decisions:
        if isinstance(entry, Search) and entry.why == "edge":
            study = _add_rates(study, entry.arm, entry.rates)
    n_more = max(count_seeds(decisions).values(), default=0) - len(study.seeds)
    return extend_study(study, (), n_seeds=n_more) if n_more > 0 else study


def _add_rates(study: Study, name: str, rates: Iterable[float]) -> Study:
    arms = tuple(
        arm.model_copy(
            update={"learning_rates": tuple(dict.fromkeys((*arm.learning_rates, *rates)))}
        )
        if arm.name == name
        else arm
        for arm in study.arms
    )
    return study.model_copy(update={"arms": arms})


def read_so_far(study: Study, folder: StudyFolder) -> SoFar:
    """What the folder says about the runs that its decisions asked for."""
    decisions = read_decisions(folder)
    tried: dict[str, dict[float, list[TriedRate]]] = {}
    finished: dict[str, set[int]] = {}
    lost: set[str] = set()
    for ask in list_asks(study, decisions):
        spec, outcome = ask.spec, folder.run(ask.spec.run_id).read_outcome(ask.spec)
        name = spec.arm.name
        if spec.seed in study.tuning_seeds and spec.learning_rate is not None:
            found = tried.setdefault(name, {}).setdefault(spec.learning_rate, [])
            found.append(_read_tried(ask, outcome, folder))
        elif outcome is not None and outcome.status == "done":
            finished.setdefault(name, set()).add(spec.seed)
        elif outcome is not None and outcome.status in _LOST:
            lost.add(name)
    return SoFar(
        study=study,
        decisions=decisions,
        tried={
            arm: {rate: _average(seeds) for rate, seeds in rates.items()}
            for arm, rates in tried.items()
        },
        finished={arm: frozenset(seeds) for arm, seeds in finished.items()},
        lost=frozenset(lost),
    )


def _read_tried(ask: Ask, outcome: RunResult | None, folder: StudyFolder) -> TriedRate:
    """One tuning run, as far as it is."""
    if outcome is not None and outcome.status in _LOST:
        return TriedRate((), has_failed=True)
    run = folder.run(ask.spec.run_id)
    within = read_records(run.validations, ValidationRecord)
    losses = [
        min([e.validation_loss, *(v.validation_loss for v in within if v.epoch == e.epoch)])
        for e in read_records(run.epochs, EpochRecord)
    ]
    if outcome is not None and outcome.status == "done":  # perhaps it stopped early by its own rule
        losses += losses[-1:] * (ask.spec.training.whole_epochs - len(losses))
    return TriedRate(tuple(losses))


def _average(seeds: Sequence[TriedRate]) -> TriedRate:
    """The means over tuning seeds, of the epochs that all of them have."""
    if any(seed.has_failed for seed in seeds):
        return TriedRate((), has_failed=True)
    return TriedRate(tuple(map(fmean, zip(*(seed.losses for seed in seeds), strict=False))))
