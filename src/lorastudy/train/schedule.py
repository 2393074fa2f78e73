"""The learning rate of every optimizer step, as a pure function of its number.

Steps are counted from 0 here, and with a warm-up the factor of step 0 is 0, as in the schedules of
transformers, so that runs of both can be compared.
"""

import math
from dataclasses import dataclass
from typing import Literal

from lorastudy.config.models import Schedule
from lorastudy.data.steps import StepPlan


@dataclass(frozen=True, slots=True)
class RateSchedule:
    """A peak learning rate, and how the rate rises and falls over the counted steps."""

    shape: Literal["linear", "cosine", "constant"]
    peak: float
    n_counted: int  # steps for which the schedule is planned
    n_warmup: int

    def rate(self, step: int) -> float:
        """Learning rate of optimizer step `step`, counted from 0."""
        return self.peak * self._factor(step)

    def _factor(self, step: int) -> float:
        if step < self.n_warmup:
            return step / self.n_warmup
        if self.shape == "constant":
            return 1.0
        progress = (step - self.n_warmup) / max(1, self.n_counted - self.n_warmup)
        if self.shape == "linear":
            return max(0.0, 1.0 - progress)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def lay_out_schedule(settings: Schedule, peak: float, plan: StepPlan) -> RateSchedule:
    """The schedule of a whole training.

    If it is counted in micro-batches, as in the published study, it is planned for `accumulation`
    times as many steps as are taken. The warm-up then lasts half of the training, and the rate
    never falls below 88.9 % of its peak (with a warm-up of a tenth).
    """
    in_steps = settings.counted_in == "optimizer-steps"
    n_counted = plan.n_steps if in_steps else plan.n_micro_batches
    round_steps = math.ceil if settings.rounding == "up" else math.floor
    return RateSchedule(settings.shape, peak, n_counted, round_steps(n_counted * settings.warmup))
