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
    perplexities: tuple[float, ...]
    cross_entropies: tuple[float, ...]


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


def estimate_perplexity(sample: Sample) -> Estimate | None:
    """The perplexity of the mean loss over seeds, so that tables and differences agree.

    Spread and range are those of the perplexities of single seeds. None without a value.
    """
    single = estimate_mean(sample.perplexities)
    nats = mean(sample.cross_entropies) if single else math.nan
    return single and replace(single, mean=_exp(nats))


def _exp(nats: float) -> float:
    """The exponential; not finite beyond what a float holds."""
    return math.exp(nats) if nats < _LARGEST_NATS else nats * math.inf


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
