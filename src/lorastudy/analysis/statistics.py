"""What may be said about numbers from a few seeds.

Everything here is arithmetic on plain floats, apart from records and from drawing, so that
it can be checked on paper. The spread is always the sample standard deviation over seeds;
what may be said about differences is in `paired`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

CONFIDENCE = 0.95
_LARGEST_NATS = 709.0  # a float holds exp of it


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with its sample standard deviation."""

    mean: float
    sd: float | None  # None: fewer than two values
    n: int
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The scores of one arm on one benchmark under one protocol, one value per seed."""

    arm: str
    shown: tuple[float, ...]  # perplexities, or shares of right answers
    losses: tuple[float, ...]  # cross-entropies, or shares of wrong answers
    is_share: bool = False  # of answers


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval for a difference of two means."""

    low: float
    high: float


def estimate_mean(values: Sequence[float]) -> Estimate | None:
    """The mean and spread of `values`; None if there are none."""
    if not values:
        return None
    return Estimate(mean(values), sample_sd(values), len(values), min(values), max(values))


def estimate_score(sample: Sample) -> Estimate | None:
    """What is shown of the mean loss over seeds, so that tables and differences agree.

    Spread and range are those of what is shown of single seeds. None without a value.
    """
    single = estimate_mean(sample.shown)
    loss = mean(sample.losses) if single else math.nan
    return single and replace(single, mean=show_loss(loss, is_share=sample.is_share))


def show_loss(loss: float, *, is_share: bool) -> float:
    """What people read of a loss: its exponential, a perplexity, or the share of right answers.

    Not finite beyond what a float holds.
    """
    if is_share:
        return 1 - loss
    return math.exp(loss) if loss < _LARGEST_NATS else loss * math.inf


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, summed exactly; not finite if a value is not."""
    if not all(math.isfinite(value) for value in values):
        return math.nan
    return math.fsum(values) / len(values)


def sample_sd(values: Sequence[float]) -> float | None:
    """The standard deviation with n - 1 in the denominator; None below two finite values."""
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        return None
    return math.sqrt(_sample_variance(values))


def _sample_variance(values: Sequence[float]) -> float:
    centre = mean(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)
