"""When a run validates within epochs, and when it stops early."""

import pytest

from lorastudy.config.models import EarlyStopping, Training
from lorastudy.data.steps import StepPlan
from lorastudy.store.validation import Validation
from lorastudy.train.validations import count_validations, list_steps_between, should_stop


def training(every: int | None) -> Training:
    return Training(epochs=3, rows_per_step=4, micro_batch=2, validate_every=every)


@pytest.mark.parametrize(
    ("every", "steps"),
    [(None, []), (1, [1, 2, 4, 5, 7, 8]), (2, [2, 4, 8]), (3, []), (4, [4, 8]), (9, [])],
)
def test_ends_of_epochs_are_validated_once(every: int | None, steps: list[int]) -> None:
    plan = StepPlan(11, 3, rows_per_step=4, micro_batch=2, first_group="full", seed=0)
    settings = training(every)
    assert plan.n_steps == 9
    assert list_steps_between(settings, plan, plan.n_steps) == steps
    assert list_steps_between(settings, plan, 4) == [step for step in steps if step <= 4]
    assert count_validations(settings, plan) == 3 + len(steps)


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "stops_after"),
    [
        ([3.0, 2.0, 1.0, 0.5], 1, 0.0, None),
        ([3.0, 3.0], 1, 0.0, 2),  # equal is no improvement
        ([3.0, 2.0, 2.1, 1.9, 2.0, 2.0], 2, 0.0, 6),
        ([3.0, 2.9, 2.8, 2.7, 2.6], 2, 0.15, None),  # against the last that improved
        ([3.0, 2.9, 2.8, 2.7, 2.6], 2, 0.25, 3),
        ([3.0, 2.5, 2.5], 1, 0.5, 2),  # by more than min_delta
    ],
)
def test_a_run_stops_after_validations_in_a_row_without_an_improvement(
    losses: list[float], patience: int, min_delta: float, stops_after: int | None
) -> None:
    stopping = EarlyStopping(patience=patience, min_delta=min_delta)
    found = [Validation(loss) for loss in losses]
    stopped = [n for n in range(1, len(losses) + 1) if should_stop(found[:n], stopping)]
    assert (stopped[0] if stopped else None) == stops_after


def test_a_run_stops_when_right_answers_and_then_losses_no_longer_improve() -> None:
    stopping = EarlyStopping(patience=2)
    found = [
        Validation(3.0, 0.2),
        Validation(4.0, 0.3),  # more answers, whatever the loss
        Validation(1.0, 0.2),
        Validation(3.9, 0.3),  # as many answers, and a lower loss
        Validation(3.9, 0.3),
        Validation(1.0, 0.2),
    ]
    assert [should_stop(found[: n + 1], stopping) for n in range(6)] == [False] * 5 + [True]
