"""How many seeds a difference needs, and what difference the seeds of a study can show.

Both follow the errors that the verdict uses: the spread that was measured stays, and its
degrees of freedom grow with seeds as those of the layout do. A few seeds tell that spread
only roughly, so both are rough.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import nctdtr, ndtr, ndtri

from lorastudy.analysis.layout import least_seeds, prior_freedom
from lorastudy.analysis.paired import (
    SIGNIFICANCE,
    Difference,
    Errors,
    FloatArray,
    document_freedom,
    make_rare,
)

POWER = 0.8  # chance of separation that is called enough
MOST_SEEDS = 1000  # more seeds than this are not counted
_LARGEST_NONCENTRALITY = 35.0  # beyond it the power is 1


def seeds_needed(difference: Difference, wanted: float, *, n_pairs: float = 1) -> int | None:
    """Seeds that separate a true difference of `wanted` nats on these documents.

    At the strictest level of Holm's adjustment over `n_pairs`, which may be a fraction: 5 % over
    the level. MOST_SEEDS + 1 stands for more than that. None: no number of seeds is enough, only
    more documents are; or the spread is unknown.
    """
    if difference.seed_variance is None or wanted == 0:
        return None
    level, distance = SIGNIFICANCE / n_pairs, np.asarray(abs(wanted))
    if _power_without_seeds(difference, abs(wanted), level) < POWER:
        return None
    return _count_seeds(lambda n: power_of(difference, distance, n, level))


def documents_needed(spread: float, wanted: float, *, n_pairs: float) -> int:
    """Documents without which no number of seeds separates a true difference of `wanted` nats.

    `spread` is the standard deviation of one document, over endlessly many seeds. Power and level
    are those of `seeds_needed`.
    """
    distance = ndtri(POWER) - ndtri(SIGNIFICANCE / n_pairs / 2)
    return math.ceil((spread * float(distance) / wanted) ** 2)


def seeds_for_equivalence(difference: Difference, margin: float, *, n_pairs: float) -> int | None:
    """Seeds that show equivalence within `margin` nats if the true difference is the observed one.

    As `seeds_needed`; None as well where the observed difference is beyond the margin.
    """
    room = margin - abs(difference.mean)
    if difference.seed_variance is None or room <= 0:
        return None
    level, other = SIGNIFICANCE / n_pairs, margin + abs(difference.mean)
    known = [_power_without_seeds(difference, end, level) for end in (room, other)]
    if sum(known) - 1 < POWER:
        return None
    return _count_seeds(lambda n: _chance_of_equivalence(difference, margin, n, level))


def _chance_of_equivalence(
    difference: Difference, margin: float, n_seeds: FloatArray, level: float
) -> FloatArray:
    """Of an interval with both ends inside the margin: neither of them is outside."""
    room, other = margin - abs(difference.mean), margin + abs(difference.mean)
    ends = [power_of(difference, np.asarray(end), n_seeds, level) for end in (room, other)]
    return ends[0] + ends[1] - 1


def chance_to_settle(difference: Difference, margin: float, *, n_seeds: int, level: float) -> float:
    """The chance that `n_seeds` seeds separate the pair or show equivalence, whichever is larger.

    If the true difference is the observed one; zero if the spread over seeds is unknown.
    """
    if difference.seed_variance is None:
        return 0.0
    n = np.asarray(float(n_seeds))
    chance = float(power_of(difference, np.asarray(abs(difference.mean)), n, level))
    if abs(difference.mean) < margin:
        chance = max(chance, float(_chance_of_equivalence(difference, margin, n, level)))
    return chance


def _count_seeds(chance: Callable[[FloatArray], FloatArray]) -> int:
    """The fewest seeds whose `chance` reaches POWER; MOST_SEEDS + 1 if more are needed."""
    for first, last in ((2, 32), (33, MOST_SEEDS)):
        n_seeds = np.arange(first, last + 1, dtype=np.float64)
        is_enough = chance(n_seeds) >= POWER
        if is_enough.any():
            return int(n_seeds[np.argmax(is_enough)])
    return MOST_SEEDS + 1


def smallest_difference(difference: Difference, *, n_pairs: float) -> float | None:
    """The true difference in nats per target that these seeds and documents separate.

    With the chance POWER, at the strictest level of Holm's adjustment over `n_pairs`. None
    if the spread over seeds is unknown, or too few seeds allow no verdict.
    """
    if difference.seed_variance is None or (errors := difference.errors) is None:
        return None
    if difference.n_seeds < _least_seeds(difference):
        return None
    level, n_seeds = SIGNIFICANCE / n_pairs, np.asarray(float(difference.n_seeds))
    plan = _plan(difference, n_seeds, level)
    low, high = 0.0, 4 * float(errors.half_width(level))
    for _ in range(40):
        middle = (low + high) / 2
        is_enough = float(plan.power_of(np.asarray(middle))) >= POWER
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def power_of(
    difference: Difference, wanted: FloatArray, n_seeds: FloatArray, level: float
) -> FloatArray:
    """The chance to separate `wanted` (...) nats with `n_seeds` (...) seeds at `level`.

    Zero where so few seeds allow no verdict.
    """
    return _plan(difference, n_seeds, level).power_of(wanted)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The error of a difference with other numbers of seeds, arrays of one shape (...)."""

    error: FloatArray  # standard error in nats per target
    freedom: FloatArray  # Satterthwaite's degrees of freedom of the whole
    quantile: FloatArray  # standard errors from which a difference is separated
    is_allowed: npt.NDArray[np.bool_]  # there are enough seeds for a verdict

    def power_of(self, wanted: FloatArray) -> FloatArray:
        """The chance to separate `wanted` (...) nats."""
        error = self.error
        noncentrality = np.divide(wanted, error, out=np.full(error.shape, np.inf), where=error > 0)
        is_sure = noncentrality > _LARGEST_NONCENTRALITY
        limited = np.minimum(noncentrality, _LARGEST_NONCENTRALITY)
        reached = 1 - nctdtr(self.freedom, limited, self.quantile)
        return np.where(self.is_allowed, np.where(is_sure, 1.0, reached), 0.0)


def _plan(difference: Difference, n_seeds: FloatArray, level: float) -> _Plan:
    documents = difference.document_variance or 0.0
    lasting = max(documents - difference.shared_variance, 0.0)
    # what belongs to seeds falls with their number, what belongs to documents does not
    shrink = difference.n_seeds / n_seeds
    of_seeds = (difference.seed_variance or 0.0) * shrink
    of_documents = lasting + (documents - lasting) * shrink
    freedom = _seed_freedom(difference, n_seeds)
    units = document_freedom(difference.n_documents, difference.n_clusters)
    unit_freedom = np.broadcast_to(max(units, 1.0), of_seeds.shape)
    planned = Errors(of_seeds, of_documents, of_documents - lasting, freedom, unit_freedom)
    if difference.rare_variance is not None and difference.n_arms is not None:
        planned = replace(planned, rare=_plan_rare(planned, n_seeds, difference.n_arms))
    error = np.sqrt(planned.variance)
    terms = of_seeds**2 / freedom + of_documents**2 / unit_freedom
    return _Plan(
        error=error,
        freedom=np.divide(error**4, terms, out=np.ones(error.shape), where=terms > 0),
        quantile=planned.quantile(level / 2),
        is_allowed=n_seeds >= _least_seeds(difference),
    )


def _plan_rare(planned: Errors, n_seeds: FloatArray, n_arms: int) -> Errors:
    """Small tails of a plan: with two seeds those of the common variance, else its own."""
    rare = make_rare(planned, planned.seeds, n_arms)
    is_two = n_seeds == 2
    return replace(
        planned,
        seed_freedom=np.where(is_two, rare.seed_freedom, planned.seed_freedom),
        seed_scale=np.where(is_two, rare.seed_scale, 1.0),
    )


def _seed_freedom(difference: Difference, n_seeds: FloatArray) -> FloatArray:
    """Degrees of freedom of the spread over `n_seeds` seeds."""
    if difference.common_freedom is None or difference.n_arms is None:
        return n_seeds - 1
    common = difference.common_freedom * (n_seeds - 1) / (difference.n_seeds - 1)
    prior = np.array([prior_freedom(difference.n_arms, int(n)) for n in np.atleast_1d(n_seeds)])
    return np.minimum(prior.reshape(n_seeds.shape) + n_seeds - 1, common)


def _least_seeds(difference: Difference) -> int:
    return 2 if difference.n_arms is None else least_seeds(difference.n_arms)


def _power_without_seeds(difference: Difference, wanted: float, level: float) -> float:
    """The chance to separate `wanted` with endlessly many seeds."""
    lasting = max((difference.document_variance or 0.0) - difference.shared_variance, 0.0)
    if lasting == 0:
        return 1.0
    return float(ndtr(wanted / math.sqrt(lasting) + ndtri(level / 2)))
