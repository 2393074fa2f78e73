"""The difference of two arms from a few seeds and many documents, and its squared error.

Both arms of a pair are scored on the same documents, and with the same seeds they saw the
same data, so a difference is taken within (seed, document). Seeds and documents are both
samples, and crossed: every seed is scored on every document (decision 0019).

    d[s, i] = nats of the first arm minus nats of the second, seed s, document i
            = targets of i x (difference + effect of s + effect of i + rest of s and i)

The estimate is a ratio of sums; its variance is the seeds' plus the documents' minus what
both contain. Interval and p value use t quantiles weighted by the two variances (W. G.
Cochran, Biometrics 20 (1964) 191-195), because 2 to 5 seeds are too few to resample.
Functions of arrays take any leading dimensions: a simulation has one for its studies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from lorastudy.analysis.statistics import CONFIDENCE, Interval

FloatArray = npt.NDArray[np.float64]
Clusters = npt.NDArray[np.int64]

SIGNIFICANCE = 0.05  # the chance of any false separation in a family of pairs
_SMALLEST_TAIL = 1e-300  # smaller p values are called this
_RARE_FREEDOM, _RARE_SHARE = 1.5, 1.35  # chosen by simulation, see `rare_scale`


@dataclass(frozen=True, slots=True)
class Errors:
    """The parts of the squared errors of differences, in arrays of one shape."""

    seeds: FloatArray  # what seeds add; 0 where there is one seed
    documents: FloatArray  # what documents add; 0 where there are none
    shared: FloatArray  # of seed and document together; in both of the above
    seed_freedom: FloatArray  # degrees of freedom
    document_freedom: FloatArray
    seed_scale: FloatArray | float = 1.0  # what the quantiles of seeds are multiplied by
    rare: "Errors | None" = None  # what tails below SIGNIFICANCE / 2 follow; None: the same

    @property
    def variance(self) -> FloatArray:
        """The squared standard errors; never below either part."""
        both = self.seeds + self.documents - self.shared
        return np.maximum(np.maximum(self.seeds, self.documents), both)

    def quantile(self, tail: FloatArray | float) -> FloatArray:
        """The quantiles with probability `tail` above them, in standard errors.

        With `rare`, they grow into small tails as those of `rare` do, and are never below the
        quantile of SIGNIFICANCE / 2.
        """
        if self.rare is None:
            return self._weigh_quantiles(tail)
        variance, other = self.variance, self.rare.variance
        ratio = np.divide(other, variance, out=np.zeros(variance.shape), where=variance > 0)
        ordinary = self._weigh_quantiles(np.maximum(tail, SIGNIFICANCE / 2))
        return np.maximum(ordinary, self.rare.quantile(tail) * np.sqrt(ratio))

    def _weigh_quantiles(self, tail: FloatArray | float) -> FloatArray:
        """Those of t for seeds and for documents, weighted by both variances."""
        total = self.seeds + self.documents
        weight = np.divide(self.seeds, total, out=np.zeros(total.shape), where=total > 0)
        # a part without weight stays out: its quantile may be infinite at the smallest tails
        quantiles = self.seed_scale * stdtrit(self.seed_freedom, tail)
        of_seeds = np.where(weight > 0, quantiles, 0.0)
        of_documents = np.where(weight < 1, stdtrit(self.document_freedom, tail), 0.0)
        quantile: FloatArray = -(weight * of_seeds + (1 - weight) * of_documents)
        return quantile

    def half_width(self, level: FloatArray | float) -> FloatArray:
        """Half of the two-sided intervals that miss the truth with probability `level`."""
        return self.quantile(np.asarray(level) / 2) * np.sqrt(self.variance)

    def tail(self, distance: FloatArray | float) -> FloatArray:
        """The probability of more than `distance` (not negative) if there is no difference."""
        distance, variance = np.broadcast_arrays(distance, self.variance)
        wanted = np.divide(
            distance, np.sqrt(variance), out=np.full(variance.shape, np.inf), where=variance > 0
        )
        # Bisection: `stdtrit` overflows at the smallest tails (9 degrees of freedom, 1e-300), which
        # misleads scipy.optimize.brentq, and importing that takes longer than a report's p values.
        low = np.full(variance.shape, math.log(_SMALLEST_TAIL))
        high = np.full(variance.shape, math.log(0.5))
        for _ in range(80):  # the quantile falls as the tail grows
            middle = (low + high) / 2
            is_beyond = self.quantile(np.exp(middle)) > wanted
            low, high = np.where(is_beyond, middle, low), np.where(is_beyond, high, middle)
        found = np.where(variance > 0, np.exp(high), 0.0)
        return np.where(distance == 0, 0.5, found)


def document_freedom(n_documents: int, n_clusters: int | None) -> float:
    """Degrees of freedom of the documents' variance; one fewer for blocks of windows.

    Neighbouring blocks share the article that lies across their border, so they are somewhat
    alike as well. With few blocks that alone makes errors too small
    (`benchmarks/coverage_2cores_202611`).
    """
    return n_documents - 1.0 if n_clusters is None else max(n_clusters - 2.0, 1.0)


def rare_scale(n_arms: int) -> float:
    """What quantiles of t(1.5) are multiplied by for pairs of `n_arms` trained arms, two seeds.

    A pair's own variance has one degree of freedom then, which is of little use in the tails that
    families need. The variance common to all pairs finds more, and is
    wrong where one arm spreads ten times as far as the others and its two seeds happen to agree.
    The scale is the smallest, as a multiple of 1 / (n_arms - 1), with which that happens in fewer
    than 5 % of studies (`benchmarks/coverage_2cores_202611`).
    """
    return _RARE_SHARE / (n_arms - 1)


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two means in nats per target, with the parts of its squared error."""

    mean: float  # first arm minus second
    n_seeds: int
    n_documents: int  # 0: the quantity has no documents, such as seconds
    seed_variance: float | None  # of the mean over seeds; None: one seed
    document_variance: float | None  # of the mean over documents; None: fewer than two
    shared_variance: float = 0.0  # of seed and document together; in both of the above
    common_freedom: float | None = None  # of the variance common to all pairs; None: own only
    seed_freedom: float | None = None  # of seed_variance; None: n_seeds - 1
    n_clusters: int | None = None  # of documents that may be alike; None: every one by itself
    n_arms: int | None = None  # trained ones that share their variance; None: own only
    rare_variance: float | None = None  # over two seeds, common to all trained pairs; None: none

    @property
    def errors(self) -> Errors | None:
        """The parts of the squared error as arrays without dimensions; None if unknown."""
        if self.seed_variance is None and self.document_variance is None:
            return None
        of_seeds = float(self.n_seeds - 1) if self.seed_freedom is None else self.seed_freedom
        of_documents = document_freedom(self.n_documents, self.n_clusters)
        found = Errors(
            np.asarray(self.seed_variance or 0.0),
            np.asarray(self.document_variance or 0.0),
            np.asarray(self.shared_variance),
            np.asarray(of_documents if self.seed_variance is None else of_seeds),
            np.asarray(of_seeds if self.document_variance is None else of_documents),
        )
        if self.rare_variance is None or self.n_arms is None:
            return found
        return replace(found, rare=make_rare(found, np.asarray(self.rare_variance), self.n_arms))

    @property
    def variance(self) -> float | None:
        """The squared standard error; None if no part of it is known."""
        return None if self.errors is None else float(self.errors.variance)


def make_rare(errors: Errors, common: FloatArray, n_arms: int) -> Errors:
    """What small tails of `errors` over two seeds follow; `common` is the variance of the means."""
    freedom = np.full(common.shape, _RARE_FREEDOM)
    return replace(
        errors, seeds=common, seed_freedom=freedom, seed_scale=rare_scale(n_arms), rare=None
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """Differences of two arms, arrays (...) without the dimensions of seeds and documents."""

    means: FloatArray
    of_seeds: FloatArray  # (..., S) the differences of single seeds
    documents: FloatArray  # variance of the mean over documents
    shared: FloatArray  # variance of seed and document together


def measure_parts(weights: FloatArray, nats: FloatArray, clusters: Clusters | None = None) -> Parts:
    """The parts of differences from `nats` (..., S seeds, m documents), first minus second.

    `weights` (m, or ..., m) are what the nats of a document are divided by: its scored
    targets. `clusters` (m), ascending from 0, puts documents that may be alike together. The
    documents' variance is that of the linearised ratio of sums, over clusters.
    """
    n_seeds = nats.shape[-2]
    total = weights.sum(axis=-1)
    of_seeds = nats.sum(axis=-1) / total[..., None]
    means = of_seeds.mean(axis=-1)
    of_documents = nats.mean(axis=-2)
    errors = (of_documents - means[..., None] * weights) / total[..., None]
    documents = _sum_squares(errors, clusters)
    if n_seeds == 1:
        return Parts(means, of_seeds, documents, np.zeros(means.shape))
    rest = nats - of_documents[..., None, :]
    rest -= (of_seeds - means[..., None])[..., None] * weights[..., None, :]
    shared = _sum_squares(rest / total[..., None, None], clusters).sum(axis=-1)
    return Parts(means, of_seeds, documents, shared / (n_seeds * (n_seeds - 1)))


def _sum_squares(errors: FloatArray, clusters: Clusters | None) -> FloatArray:
    """The variance of the sum of errors (..., m), documents of one cluster taken together."""
    if clusters is not None:
        starts = np.flatnonzero(np.diff(clusters, prepend=-1))
        errors = np.add.reduceat(errors, starts, axis=-1)
    n = errors.shape[-1]
    summed: FloatArray = np.square(errors).sum(axis=-1) * (n / (n - 1) if n > 1 else 0.0)
    return summed


def cluster_windows(n_windows: int) -> Clusters:
    """Blocks of about 1.5 sqrt(n) neighbouring windows of one text, since neighbours are alike.

    Records do not say where an article of the joined text ends. So blocks are longer than
    articles usually are, and few. (n_windows,) ascending from 0, of equal lengths.
    """
    n_blocks = min(n_windows, max(2, round(math.sqrt(n_windows) / 1.5)))
    return np.arange(n_windows) * n_blocks // n_windows


def measure_difference(
    weights: FloatArray, nats: FloatArray, clusters: Clusters | None = None
) -> Difference:
    """The difference of two arms from `nats` (S seeds, m documents), by itself."""
    n_seeds, m = nats.shape
    parts = measure_parts(weights, nats, clusters)
    seed_variance = float(parts.of_seeds.var(ddof=1)) / n_seeds if n_seeds > 1 else None
    n_clusters = None if clusters is None else len(np.unique(clusters))
    is_known = (m if n_clusters is None else n_clusters) > 1
    return Difference(
        mean=float(parts.means),
        n_seeds=n_seeds,
        n_documents=m,
        seed_variance=seed_variance,
        document_variance=float(parts.documents) if is_known else None,
        shared_variance=float(parts.shared) if is_known else 0.0,
        n_clusters=n_clusters,
    )


def measure_seeds(differences: Sequence[float]) -> Difference:
    """The paired difference of a quantity with one value per seed, such as seconds."""
    values = np.asarray(differences, dtype=np.float64)
    variance = float(values.var(ddof=1)) / len(values) if len(values) > 1 else None
    return Difference(float(values.mean()), len(values), 0, variance, None)


def interval_of(difference: Difference) -> Interval | None:
    """The two-sided 95 % interval; None if no variance is known."""
    if (errors := difference.errors) is None:
        return None
    half = float(errors.half_width(1 - CONFIDENCE))
    return Interval(difference.mean - half, difference.mean + half)


def p_of_no_difference(difference: Difference) -> float | None:
    """The two-sided p value of no difference; below 0.05 where the 95 % interval excludes 0."""
    if (errors := difference.errors) is None:
        return None
    return min(1.0, 2 * float(errors.tail(abs(difference.mean))))
