"""Learning rates against transformers' schedules and against the published run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    TrainingArguments,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from lorastudy.config.models import Schedule
from lorastudy.data.steps import StepPlan
from lorastudy.train.schedule import RateSchedule, lay_out_schedule


def plan_of(n_steps: int) -> StepPlan:
    return StepPlan(n_steps * 4, 1, rows_per_step=4, micro_batch=2, first_group="full", seed=0)


@pytest.fixture
def idle_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.33, 0.99])
@pytest.mark.parametrize(
    ("shape", "make"),
    [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)],
)
def test_rate_is_that_of_transformers(
    shape: str, make: Callable[..., Any], warmup: float, idle_optimizer: torch.optim.Optimizer
) -> None:
    schedule = lay_out_schedule(Schedule(shape=shape, warmup=warmup), 3e-4, plan_of(37))
    factor = make(idle_optimizer, schedule.n_warmup, 37).lr_lambdas[0]
    for step in range(37):
        assert schedule.rate(step) == pytest.approx(3e-4 * factor(step), rel=1e-12, abs=1e-20)


def test_constant_rate_is_that_of_transformers(idle_optimizer: torch.optim.Optimizer) -> None:
    schedule = lay_out_schedule(Schedule(shape="constant", warmup=0.2), 3e-4, plan_of(20))
    factor = get_constant_schedule_with_warmup(idle_optimizer, 4).lr_lambdas[0]
    assert [schedule.rate(s) for s in range(20)] == [3e-4 * factor(s) for s in range(20)]


@pytest.mark.parametrize("n_steps", [7, 10, 37, 70, 2_717])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25, 0.33])
def test_the_warmup_has_as_many_steps_as_that_of_the_trainer(
    n_steps: int, warmup: float, tmp_path: Path
) -> None:
    expected = TrainingArguments(tmp_path, warmup_steps=warmup).get_warmup_steps(n_steps)
    schedule = lay_out_schedule(Schedule(warmup=warmup), 1.0, plan_of(n_steps))
    assert schedule.n_warmup == expected


def test_warmup_is_a_share_of_the_optimizer_steps() -> None:
    schedule = lay_out_schedule(Schedule(warmup=0.25, rounding="down"), 1.0, plan_of(10))
    assert (schedule.n_counted, schedule.n_warmup) == (10, 2)
    assert [schedule.rate(step) for step in (0, 1, 2)] == [0.0, 0.5, 1.0]


def test_peak_is_reached_once() -> None:
    schedule = lay_out_schedule(Schedule(warmup=0.3), 2.0, plan_of(10))
    assert [step for step in range(10) if schedule.rate(step) == 2.0] == [3]


@pytest.fixture
def published() -> RateSchedule:
    plan = StepPlan(23_767, 8, rows_per_step=70, micro_batch=14, first_group="one", seed=42)
    settings = Schedule(warmup=0.1, counted_in="micro-batches", rounding="down")
    return lay_out_schedule(settings, 1e-3, plan)


def test_published_warmup_lasts_half_of_the_training(published: RateSchedule) -> None:
    # a tenth of 13,584 micro-batches, of 2,717 optimizer steps
    assert published.n_warmup == 1_358
    assert published.n_warmup / 2_717 == pytest.approx(0.5, abs=1e-3)
    assert max(range(2_717), key=published.rate) == 1_358


def test_published_rate_ends_at_89_percent_of_its_peak(published: RateSchedule) -> None:
    # 1 - (2,716 - 1,358) / (13,584 - 1,358) = 1 - 1,358 / 12,226
    assert published.rate(2_716) / published.peak == pytest.approx(1 - 1_358 / 12_226, rel=1e-12)
    assert f"{published.rate(2_716) / published.peak:.1%}" == "88.9%"
