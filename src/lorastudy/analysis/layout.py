"""The variance over seeds of all arms together: a two-way layout of trained arms and seeds.

Two or three seeds tell next to nothing about the spread of one pair of arms. All pairs of a
study together tell more, if the arms spread alike. So a pair's own variance is drawn towards
the common one, and counts for more as seeds are added (decision 0019). Functions take arrays
with any leading dimensions: a report has none, a simulation has one for its studies.

    y[a, s] = loss of arm a with seed s = arm a + seed s + rest of a and s
    MSE = mean square of the rest, (A - 1)(S - 1) degrees of freedom
    MSB = mean square of seeds, S - 1 degrees of freedom
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc

from lorastudy.analysis.paired import FloatArray

_MOST_PRIOR_FREEDOM, _SHARE = 2.0, 0.25  # of the common variance
_ARMS_FOR_TWO_SEEDS = 3
ARMS_FOR_RARE = 4  # with fewer, the variance common to all pairs is known too badly
WIDE = 0.05  # significance of an arm's wider spread, over all arms of a layout


@dataclass(frozen=True, slots=True)
class CommonVariance:
    """The variance over seeds of one difference, common to all pairs of a kind.

    For two trained arms, or for a trained arm and a constant, such as the baseline.
    """

    value: FloatArray  # (...)
    freedom: FloatArray  # (...) degrees of freedom; Satterthwaite's for a constant


@dataclass(frozen=True, slots=True)
class Layout:
    """What the trained arms of a study tell about seeds."""

    n_arms: int
    n_seeds: int
    of_trained: CommonVariance  # for pairs of two trained arms
    of_constant: CommonVariance  # for pairs of a trained arm and a constant

    @property
    def is_enough(self) -> bool:
        """There are enough seeds for a verdict."""
        return self.n_seeds >= least_seeds(self.n_arms)


def least_seeds(n_arms: int) -> int:
    """The seeds without which nothing may be said: with two, fewer arms tell too little."""
    return 3 if n_arms < _ARMS_FOR_TWO_SEEDS else 2


def prior_freedom(n_arms: int, n_seeds: int) -> float:
    """How many degrees of freedom the common variance counts for beside a pair's own S - 1.

    A quarter of those it has, and at most two. More has more power where all arms spread
    alike, and calls too much separated where one arm spreads ten times as far as the others:
    that arm makes most of the common variance, which then has next to no freedom of its own.
    """
    return min(_MOST_PRIOR_FREEDOM, _SHARE * (n_arms - 1) * (n_seeds - 1))


def measure_layout(losses: FloatArray) -> Layout:
    """The common variances of `losses` (..., A arms, S seeds); at least two seeds.

    A single trained arm has no rest: its own variance over seeds is then the common one.
    """
    n_arms, n_seeds = losses.shape[-2:]
    of_seeds = losses.mean(axis=-2, keepdims=True)
    rest = losses - of_seeds - losses.mean(axis=-1, keepdims=True)
    rest += of_seeds.mean(axis=-1, keepdims=True)
    freedom = float((n_arms - 1) * (n_seeds - 1))
    mse = np.square(rest).sum(axis=(-2, -1)) / max(freedom, 1.0)
    msb = n_arms * of_seeds[..., 0, :].var(axis=-1, ddof=1)
    # an arm by itself: the mean over arms of their variances over seeds
    parts = (msb / n_arms, (n_arms - 1) * mse / n_arms)
    total = parts[0] + parts[1]
    terms = np.square(parts[0]) / (n_seeds - 1) + np.square(parts[1]) / max(freedom, 1.0)
    satterthwaite = np.divide(
        np.square(total), terms, out=np.full(total.shape, n_seeds - 1.0), where=terms > 0
    )
    return Layout(
        n_arms,
        n_seeds,
        CommonVariance(2 * mse, np.full(mse.shape, freedom)),
        CommonVariance(total, satterthwaite),
    )


def shrink_variance(
    own: FloatArray, n_seeds: int, common: CommonVariance, prior: float
) -> tuple[FloatArray, FloatArray]:
    """A pair's variance over seeds drawn towards the common one, and its degrees of freedom.

    `prior` is the number of degrees of freedom that the common variance counts for.
    """
    weight = prior + n_seeds - 1
    value = (prior * common.value + (n_seeds - 1) * own) / weight
    return value, np.minimum(weight, common.freedom)


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """How far one arm's seeds spread beside those of the other trained arms."""

    ratio: float  # of standard deviations; infinite where the others do not spread
    p: float  # of so large a ratio if all arms spread alike, adjusted for their number

    @property
    def is_wide(self) -> bool:
        """The arm spreads farther than the others."""
        return self.p < WIDE


def compare_spreads(losses: FloatArray) -> tuple[SeedSpread, ...] | None:
    """One F test for each arm of `losses` (A, S); None below three arms or two seeds.

    An arm minus the mean of the others varies over seeds as sigma^2 (1 + 1 / (A - 1)), and is
    independent of the rest of the others' own layout: F with S - 1 and (A - 2)(S - 1) degrees
    of freedom. Adjusted by Bonferroni.
    """
    n_arms, n_seeds = losses.shape
    if n_arms < 3 or n_seeds < 2:
        return None
    spreads = []
    for arm in range(n_arms):
        others = np.delete(losses, arm, axis=0)
        own = float((losses[arm] - others.mean(axis=0)).var(ddof=1)) / (1 + 1 / (n_arms - 1))
        rest = float(measure_layout(others).of_trained.value) / 2
        ratio = own / rest if rest > 0 else (math.inf if own > 0 else 1.0)
        p = float(fdtrc(n_seeds - 1, (n_arms - 2) * (n_seeds - 1), ratio))
        spreads.append(SeedSpread(math.sqrt(ratio), min(1.0, n_arms * p)))
    return tuple(spreads)
