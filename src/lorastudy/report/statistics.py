"""What may be said about numbers from a few seeds.

Everything here is arithmetic on plain floats, apart from records and from drawing, so that
it can be checked on paper. The spread is always the sample standard deviation over seeds;
a lead is called separated only if the whole interval for it lies on one side of zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtrit  # the t quantile; a seventh of the import time of scipy.stats

CONFIDENCE = 0.95

Verdict = Literal["separated", "not separated", "one seed"]


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
    """The scores of one arm on one benchmark under one protocol, one value a seed."""

    arm: str
    perplexities: tuple[float, ...]
    cross_entropies: tuple[float, ...]
    is_constant: bool = False  # nothing in the arm is random, so one value is the population


@dataclass(frozen=True, slots=True)
class Lead:
    """Which arms have the lowest mean perplexity, and what that supports."""

    leaders: tuple[str, ...]  # several only if their means are equal
    verdict: Verdict


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


def welch_interval(
    first: Sample, second: Sample, *, confidence: float = CONFIDENCE
) -> Interval | None:
    """The Welch t interval of mean cross-entropy of `first` minus that of `second`, in nats.

    A constant arm (the untrained base model) has no variance over seeds: against it this
    is the one-sample t interval. None if a random arm has fewer than two seeds.
    """
    for sample in (first, second):
        if len(sample.cross_entropies) < 2 and not sample.is_constant:
            return None
    difference = mean(first.cross_entropies) - mean(second.cross_entropies)
    terms = [_squared_error(first), _squared_error(second)]
    variance = sum(term for term, _ in terms)
    if variance == 0:
        return Interval(difference, difference)
    freedom = variance**2 / sum(term**2 / (n - 1) for term, n in terms if term > 0)
    margin = float(stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(variance)
    return Interval(difference - margin, difference + margin)


def find_lead(samples: Sequence[Sample]) -> Lead | None:
    """The lead among `samples`; None if fewer than two arms have a finite score.

    The lowest mean perplexity leads. It is compared with the runner-up only, without a
    correction for having been picked as the best of several.
    """
    finite = [sample for sample in samples if _is_finite(sample)]
    if len(finite) < 2:
        return None
    ranked = sorted(finite, key=lambda sample: mean(sample.perplexities))
    lowest = mean(ranked[0].perplexities)
    leaders = tuple(sample.arm for sample in ranked if mean(sample.perplexities) == lowest)
    return Lead(leaders, _judge(ranked[0], ranked[1]))


def _judge(leader: Sample, runner_up: Sample) -> Verdict:
    interval = welch_interval(leader, runner_up)
    if interval is None:
        return "one seed"
    return "separated" if interval.high < 0 else "not separated"


def _squared_error(sample: Sample) -> tuple[float, int]:
    """The squared standard error of the sample's mean cross-entropy, and n."""
    n = len(sample.cross_entropies)
    if sample.is_constant or n < 2:
        return 0.0, n
    return _sample_variance(sample.cross_entropies) / n, n


def _sample_variance(values: Sequence[float]) -> float:
    centre = mean(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)


def _is_finite(sample: Sample) -> bool:
    values = (*sample.perplexities, *sample.cross_entropies)
    return bool(values) and all(math.isfinite(value) for value in values)
