"""Which learning rate an arm runs with, and so which runs a study has now.

A rate is chosen on validation alone (decisions 0006 and 0020): by the loss, or by right answers if
the study has `data.best_by`. Where a study has tuning seeds, the choice is read from the records of
the tuning runs every time and stored nowhere, so that every process on every machine finds the same
one. A study that runs until its question is decided stores what it chose among its decisions
(decision 0031).
"""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec, expand_study, list_runs_to_come
from lorastudy.store.decisions import Ask, is_paused, list_asks, read_choices, read_decisions
from lorastudy.store.folders import StudyFolder
from lorastudy.store.records import RunResult
from lorastudy.store.validation import Validation

_DIGITS = 12  # of a mean of shares, so that equal means are equal


def list_runs(study: Study, folder: StudyFolder) -> tuple[RunSpec, ...]:
    """All runs that the study has now; those with a rate that is not chosen yet are not listed.

    A study that runs until its question is decided has the runs that its decisions ask for.
    Those that were stopped, or wait for a decision, are not listed (`list_paused`).
    """
    if decisions := read_decisions(folder):
        asks = list_asks(study, decisions)
        return tuple(a.spec for a in asks if not is_paused(a, folder.run(a.spec.run_id)))
    return expand_study(study, read_rates(study, folder))


def list_paused(study: Study, folder: StudyFolder) -> tuple[Ask, ...]:
    """The runs that decisions stopped before their end, or that wait for a decision."""
    decisions = read_decisions(folder)
    asks = list_asks(study, decisions) if decisions else ()
    return tuple(a for a in asks if is_paused(a, folder.run(a.spec.run_id)))


def find_pause(study: Study, folder: StudyFolder, run_id: str) -> int | None:
    """The epoch after which the run stops until a decision; None: it is trained to its end."""
    decisions = read_decisions(folder)
    asks = list_asks(study, decisions) if decisions else ()
    return next((ask.until_epoch for ask in asks if ask.spec.run_id == run_id), None)


def list_to_come(study: Study, folder: StudyFolder) -> tuple[RunSpec, ...]:
    """The runs that follow when learning rates are chosen; see `list_runs_to_come`.

    None of a study that runs until its question is decided: it does not know them yet.
    """
    if folder.decisions.exists():
        return ()
    return list_runs_to_come(study, read_rates(study, folder))


def read_rates(study: Study, folder: StudyFolder) -> dict[str, float]:
    """The learning rates chosen so far with tuning seeds, by arm.

    A rate is chosen when every tuning run of the arm has ended, and one of them has finished; or
    by a decision.
    """
    if not study.tuning_seeds:
        return {}
    if decisions := read_decisions(folder):
        chosen = read_choices(decisions)
        return {arm: rate for arm, rate in chosen.items() if rate is not None}
    by_arm: dict[str, list[RunResult | None]] = {}
    for spec in expand_study(study):
        if spec.seed in study.tuning_seeds:
            outcome = folder.run(spec.run_id).read_outcome(spec)
            by_arm.setdefault(spec.arm.name, []).append(outcome)
    found = {
        arm: choose_learning_rate(run for run in runs if run is not None)
        for arm, runs in by_arm.items()
        if None not in runs
    }
    return {arm: rate for arm, rate in found.items() if rate is not None}


def best_validation(run: RunResult) -> Validation | None:
    """The best validation of the run with a finite loss; None if there is none."""
    finite = [found for found in run.validations_by_step.values() if math.isfinite(found.loss)]
    return min(finite, key=lambda found: found.rank, default=None)


def average_rank(runs: Sequence[RunResult]) -> tuple[float, float]:
    """Means over runs of what ranks their best validations; infinite if one of them has none."""
    best = [best_validation(run) for run in runs]
    ranks = [(math.inf, math.inf) if found is None else found.rank for found in best]
    by_answers, by_loss = map(fmean, zip(*ranks, strict=True))
    return round(by_answers, _DIGITS) if math.isfinite(by_answers) else by_answers, by_loss


def choose_learning_rate(runs: Iterable[RunResult]) -> float | None:
    """The rate with the best mean of the best validation over the finished runs.

    A rate with fewer finished seeds loses to one with more: the mean of the survivors
    would hide what failed. Equal means go to the lower rate. None if no run finished.
    """
    of_rate: dict[float, list[RunResult]] = {}
    for run in runs:
        if run.status == "done" and run.learning_rate is not None:
            of_rate.setdefault(run.learning_rate, []).append(run)
    order = {rate: (-len(found), *average_rank(found), rate) for rate, found in of_rate.items()}
    return min(order, key=order.__getitem__, default=None)
