"""What may be said about the difference of two arms from a few seeds and many documents.

Both arms of a pair are scored on the same documents, and with the same seeds they saw the
same data, so a difference is taken within (seed, document). Seeds and documents are both
samples, and crossed: every seed is scored on every document (decision 0012).

    d[s, i] = nats of the first arm minus nats of the second, seed s, document i
            = targets of i x (difference + effect of s + effect of i + rest of s and i)

The estimate is a ratio of sums; its variance is the seeds' plus the documents' minus what
both contain. Interval and p value use t quantiles weighted by the two variances (W. G.
Cochran, Biometrics 20 (1964) 191-195), because 2 to 5 seeds are too few to resample.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, count

import numpy as np
import numpy.typing as npt
from scipy.special import nctdtr, ndtr, ndtri, stdtrit

from lorastudy.analysis.statistics import CONFIDENCE, Interval

FloatArray = npt.NDArray[np.float64]

SIGNIFICANCE = 0.05  # of a Holm-adjusted p value, and of each test of equivalence
POWER = 0.8  # of the number of seeds that is called enough
MOST_SEEDS = 1000  # more are not counted out
_SMALLEST_TAIL = 1e-300  # smaller p values are called this


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two means in nats a target, with the parts of its squared error."""

    mean: float  # first arm minus second
    n_seeds: int
    n_documents: int  # 0: the quantity has no documents, such as seconds
    seed_variance: float | None  # of the mean over seeds; None: one seed
    document_variance: float | None  # of the mean over documents; None: fewer than two
    shared_variance: float = 0.0  # of seed and document together; in both of the above

    @property
    def variance(self) -> float | None:
        """The squared standard error; never below either part. None if neither is known."""
        parts = [v for v in (self.seed_variance, self.document_variance) if v is not None]
        return (
            max(*parts, sum(parts) - self.shared_variance)
            if len(parts) == 2
            else (parts[0] if parts else None)
        )

    @property
    def seed_weight(self) -> float:
        """The share of the seeds in the two variances, which weighs their t quantile."""
        seeds, documents = self.seed_variance or 0.0, self.document_variance or 0.0
        return seeds / (seeds + documents) if seeds > 0 else 0.0


def measure_difference(weights: FloatArray, nats: FloatArray) -> Difference:
    """The difference of two arms from `nats` (S seeds, m documents), first minus second.

    `weights` (m) are what the nats of a document are divided by: its scored targets. The
    documents' variance is that of the linearised ratio of sums.
    """
    n_seeds, m = nats.shape
    total = float(weights.sum())
    of_seeds = nats.sum(axis=1) / total
    mean = float(of_seeds.mean())
    seed_variance = float(of_seeds.var(ddof=1)) / n_seeds if n_seeds > 1 else None
    if m < 2:
        return Difference(mean, n_seeds, m, seed_variance, None)
    correction = m / (m - 1)
    of_documents = nats.mean(axis=0)
    errors = (of_documents - mean * weights) / total
    document_variance = float(np.square(errors).sum()) * correction
    shared = 0.0
    if n_seeds > 1:
        rest = nats - of_documents - np.outer(of_seeds - mean, weights)
        shared = float(np.square(rest / total).sum()) * correction / (n_seeds * (n_seeds - 1))
    return Difference(mean, n_seeds, m, seed_variance, document_variance, shared)


def measure_seeds(differences: Sequence[float]) -> Difference:
    """The paired difference of a quantity with one value a seed, such as seconds."""
    values = np.asarray(differences, dtype=np.float64)
    variance = float(values.var(ddof=1)) / len(values) if len(values) > 1 else None
    return Difference(float(values.mean()), len(values), 0, variance, None)


def interval_of(difference: Difference, confidence: float = CONFIDENCE) -> Interval | None:
    """The two-sided interval; None if no variance is known."""
    if difference.variance is None:
        return None
    margin = _quantile(difference, (1 - confidence) / 2) * math.sqrt(difference.variance)
    return Interval(difference.mean - margin, difference.mean + margin)


def p_of_no_difference(difference: Difference) -> float | None:
    """The two-sided p value of no difference; below 0.05 where the 95 % interval excludes 0."""
    if difference.variance is None:
        return None
    return min(1.0, 2 * _tail(difference, abs(difference.mean)))


def p_of_equivalence(difference: Difference, margin: float) -> float | None:
    """The p value of two one-sided tests that the difference lies within +-`margin`.

    Below 0.05 where the 90 % interval lies within the margin (D. J. Schuirmann, J.
    Pharmacokinet. Biopharm. 15 (1987) 657-680).
    """
    if difference.variance is None:
        return None
    inside = margin - abs(difference.mean)  # how far the nearer end of the margin is
    return _tail(difference, inside) if inside > 0 else 1.0 - _tail(difference, -inside)


def seeds_needed(
    difference: Difference, wanted: float, *, n_pairs: int = 1, power: float = POWER
) -> int | None:
    """Seeds that separate a true difference of `wanted` nats on these documents.

    From the observed spread, which a few seeds tell only roughly; at the strictest level of
    Holm's adjustment over `n_pairs`. MOST_SEEDS + 1 stands for more than that. None: no number
    of seeds is enough, only more documents are; or the spread is unknown.
    """
    if difference.seed_variance is None or wanted == 0:
        return None
    level = SIGNIFICANCE / n_pairs

    def is_enough(n_seeds: int | None) -> bool:
        return _power(difference, abs(wanted), n_seeds, level) >= power

    if not is_enough(None):
        return None
    return next(n for n in count(2) if n > MOST_SEEDS or is_enough(n))


def adjust_by_holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down adjustment (S. Holm, Scand. J. Statist. 6 (1979) 65-70)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def group_tied(
    ranked: Sequence[str], separated: frozenset[frozenset[str]]
) -> tuple[tuple[str, ...], ...]:
    """The largest groups of arms in which no two are separated, in the order of `ranked`.

    An arm can be in several groups: to be tied is not transitive.
    """
    groups: list[set[str]] = [set(ranked)]
    for a, b in combinations(ranked, 2):
        if frozenset((a, b)) not in separated:
            continue
        halves = [g - {out} for g in groups if {a, b} <= g for out in (b, a)]
        groups = [g for g in groups if not {a, b} <= g] + halves
        groups = [g for i, g in enumerate(groups) if not _is_covered(g, i, groups)]
    in_order = [tuple(arm for arm in ranked if arm in group) for group in groups]
    return tuple(sorted(in_order, key=lambda g: [ranked.index(arm) for arm in g]))


def _is_covered(group: set[str], index: int, groups: list[set[str]]) -> bool:
    return any(group < g or (group == g and i < index) for i, g in enumerate(groups))


def _quantile(difference: Difference, tail: float) -> float:
    """The weighted t quantile with probability `tail` above it."""
    weight, quantile = difference.seed_weight, 0.0
    if weight > 0:
        quantile -= weight * float(stdtrit(difference.n_seeds - 1, tail))
    if weight < 1:
        freedom = (difference.n_documents or difference.n_seeds) - 1
        quantile -= (1 - weight) * float(stdtrit(freedom, tail))
    return quantile


def _tail(difference: Difference, distance: float) -> float:
    """The probability above `distance` (not negative) under no difference: 0.5 at zero."""
    if distance == 0:
        return 0.5
    if not difference.variance:
        return 0.0
    wanted = distance / math.sqrt(difference.variance)
    low, high = math.log(_SMALLEST_TAIL), math.log(0.5)
    # Bisection: `stdtrit` overflows at the smallest tails (9 degrees of freedom, 1e-300), which
    # misleads scipy.optimize.brentq, and importing that takes longer than a report's p values.
    for _ in range(80):  # the quantile falls as the tail grows
        middle = (low + high) / 2
        if _quantile(difference, math.exp(middle)) > wanted:
            low = middle
        else:
            high = middle
    return math.exp(high)


def _power(difference: Difference, wanted: float, n_seeds: int | None, level: float) -> float:
    """The chance to separate `wanted` with `n_seeds` seeds; None: with endlessly many."""
    documents = difference.document_variance or 0.0
    lasting = max(documents - difference.shared_variance, 0.0)
    if n_seeds is None:
        if lasting == 0:
            return 1.0
        return float(ndtr(wanted / math.sqrt(lasting) + ndtri(level / 2)))
    shrink = difference.n_seeds / n_seeds
    of_seeds = (difference.seed_variance or 0.0) * shrink
    of_documents = lasting + (documents - lasting) * shrink
    variance = max(of_seeds + lasting, of_documents)
    if variance == 0:
        return 1.0
    planned = Difference(wanted, n_seeds, difference.n_documents, of_seeds, of_documents)
    noncentrality = wanted / math.sqrt(variance)
    if noncentrality > 35:
        return 1.0
    terms = of_seeds**2 / (n_seeds - 1)
    terms += of_documents**2 / max(difference.n_documents - 1, 1)
    critical = _quantile(planned, level / 2)
    return 1 - float(nctdtr(variance**2 / terms, noncentrality, critical))
