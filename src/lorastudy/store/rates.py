"""Which learning rate an arm runs with, and so which runs a study has now.

A rate is chosen by validation loss alone (decisions 0006 and 0020). Where a study has tuning
seeds, the choice is read from the records of the tuning runs every time and stored nowhere, so
that every process on every machine finds the same one.
"""

import math
from collections.abc import Iterable
from statistics import fmean

from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec, expand_study
from lorastudy.store.folders import StudyFolder
from lorastudy.store.records import RunResult


def list_runs(study: Study, folder: StudyFolder) -> tuple[RunSpec, ...]:
    """All runs that the study has now; those with a rate that is not chosen yet are not listed."""
    return expand_study(study, read_rates(study, folder))


def read_rates(study: Study, folder: StudyFolder) -> dict[str, float]:
    """The learning rates chosen so far with tuning seeds, by arm.

    A rate is chosen when every tuning run of the arm has ended, and one of them has finished.
    """
    if not study.tuning_seeds:
        return {}
    by_arm: dict[str, list[RunResult | None]] = {}
    for spec in expand_study(study):
        if spec.seed in study.tuning_seeds:
            outcome = folder.run(spec.run_id).read_outcome(spec)
            by_arm.setdefault(spec.arm.name, []).append(outcome)
    chosen = {
        arm: choose_learning_rate(run for run in runs if run is not None)
        for arm, runs in by_arm.items()
        if None not in runs
    }
    return {arm: rate for arm, rate in chosen.items() if rate is not None}


def best_validation_loss(run: RunResult) -> float | None:
    """The lowest finite validation loss of the run; None if there is none."""
    finite = [loss for loss in run.validation_losses.values() if math.isfinite(loss)]
    return min(finite, default=None)


def choose_learning_rate(runs: Iterable[RunResult]) -> float | None:
    """The rate with the lowest mean of the best validation loss over the finished runs.

    A rate with fewer finished seeds loses to one with more: the mean of the survivors
    would hide what failed. Equal means go to the lower rate. None if no run finished.
    """
    losses: dict[float, list[float]] = {}
    for run in runs:
        loss = best_validation_loss(run)
        if run.status == "done" and run.learning_rate is not None:
            losses.setdefault(run.learning_rate, []).append(math.inf if loss is None else loss)
    order = {rate: (-len(found), fmean(found), rate) for rate, found in losses.items()}
    return min(order, key=order.__getitem__, default=None)
