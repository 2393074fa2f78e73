"""When a run validates, and when its validation losses say that it should stop early.

Pure functions of the plan and of recorded losses: a resumed run reads its records and decides as
the run that was left alone did, so a checkpoint keeps nothing of this.
"""

import math
from collections.abc import Iterable

from lorastudy.config.models import EarlyStopping, Training
from lorastudy.data.steps import StepPlan


def validates_between(training: Training, plan: StepPlan, step: int) -> bool:
    """Whether a run validates after optimizer step `step`, which does not end an epoch."""
    every = training.validate_every
    return every is not None and step > 0 and step % every == 0 and not plan.ends_epoch(step)


def list_steps_between(training: Training, plan: StepPlan, last: int) -> list[int]:
    """The steps up to `last` after which a run validates within an epoch."""
    steps = range(0, last + 1, training.validate_every or last + 1)
    return [step for step in steps if validates_between(training, plan, step)]


def count_validations(training: Training, plan: StepPlan) -> int:
    """Validations of a whole run: one after each epoch, and those within epochs."""
    return training.epochs + len(list_steps_between(training, plan, plan.n_steps))


def should_stop(losses: Iterable[float], stopping: EarlyStopping) -> bool:
    """Whether the last `patience` of the validation losses, in their order, did not improve.

    A loss improves if it is lower by more than `min_delta` than the last one that improved. The
    best weights are those of the lowest loss, by however little it is lower.
    """
    reference, n_waited = math.inf, 0
    for loss in losses:
        if loss < reference - stopping.min_delta:
            reference, n_waited = loss, 0
        else:
            n_waited += 1
    return n_waited >= stopping.patience
