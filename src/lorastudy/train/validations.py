"""When a run validates, and when its validations say that it should stop early.

Pure functions of the plan and of recorded numbers: a resumed run reads its records and decides as
the run that was left alone did, so a checkpoint keeps nothing of this.
"""

from collections.abc import Iterable

from lorastudy.config.models import EarlyStopping, Training
from lorastudy.data.steps import StepPlan
from lorastudy.store.validation import Validation


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
    return plan.epochs + len(list_steps_between(training, plan, plan.n_steps))


def should_stop(validations: Iterable[Validation], stopping: EarlyStopping) -> bool:
    """Whether the last `patience` of the validations, in their order, did not improve.

    One improves if it is better by more than `min_delta` than the last one that improved. The best
    weights are those of the best validation, by however little it is better.
    """
    reference, n_waited = None, 0
    for found in validations:
        if reference is None or found.improves_on(reference, stopping.min_delta):
            reference, n_waited = found, 0
        else:
            n_waited += 1
    return n_waited >= stopping.patience
