"""What a comparison of arms says: a pair of arms, and all pairs under one score.

Only values and what follows from them; `compare` makes them from the records of runs.
"""

from dataclasses import dataclass, replace
from typing import Literal

from lorastudy.report.paired import SIGNIFICANCE, Difference
from lorastudy.report.statistics import Interval
from lorastudy.report.summary import Score

EQUIVALENCE_MARGIN = 0.02  # nats a target, about 2 % of a perplexity
SMALL_DIFFERENCE = 0.01  # nats a target, for which seeds are counted beside the observed one
ONE_SEED = "one seed: no claim about training"

PairVerdict = Literal["lower", "higher", "not separated", "one seed", "no interval"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms under one score: the first minus the second, in nats a target."""

    first: str
    second: str
    mean: float | None  # None: no seed in common
    seeds: tuple[int, ...] = ()  # in common; a baseline has all
    difference: Difference | None = None  # None: sums by document are missing
    interval: Interval | None = None  # 95 %
    bootstrap: Interval | None = None  # 95 %, percentile of two levels
    p: float | None = None  # of no difference; None with one seed
    p_holm: float | None = None  # adjusted over all pairs of the score
    p_equivalence: float | None = None  # of a difference beyond EQUIVALENCE_MARGIN
    seeds_for_observed: int | None = None  # None: not by more seeds
    seeds_for_small: int | None = None  # for SMALL_DIFFERENCE
    remark: str = ""  # seeds that one arm lacks, why there is no number

    @property
    def is_separated(self) -> bool:
        """The two differ after Holm's adjustment."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANCE

    @property
    def is_equivalent(self) -> bool:
        """The two differ by less than the margin, by two one-sided tests."""
        return self.p_equivalence is not None and self.p_equivalence < SIGNIFICANCE

    @property
    def verdict(self) -> PairVerdict:
        """What may be said of the first arm's loss beside the second's."""
        if self.interval is None or self.mean is None:
            return "no interval"
        if self.p_holm is None:
            return "one seed"
        if not self.is_separated:
            return "not separated"
        return "lower" if self.mean < 0 else "higher"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All pairs of arms under one score."""

    score: Score
    ranked: tuple[str, ...]  # arms with a finite score, lowest mean cross-entropy first
    pairs: tuple[Pair, ...]  # the arm that comes first in the study stands first
    groups: tuple[tuple[str, ...], ...]  # no two arms of a group are separated
    n_documents: int  # or windows; 0: sums by document are missing
    notes: tuple[str, ...]

    @property
    def tied_for_lead(self) -> tuple[str, ...]:
        """The arm with the lowest mean, and all arms that are not separated from it."""
        return tuple(a for a in self.ranked if not self._is_lower(self.ranked[0], a))

    @property
    def leader(self) -> str | None:
        """The arm whose lead is separated from every other arm; None if there is none."""
        tied = self.tied_for_lead
        return tied[0] if len(tied) == 1 and len(self.ranked) > 1 else None

    @property
    def is_one_seed(self) -> bool:
        """Every interval is over documents only."""
        judged = [pair for pair in self.pairs if pair.interval is not None]
        return bool(judged) and all(pair.verdict == "one seed" for pair in judged)

    def find_pair(self, first: str, second: str) -> Pair | None:
        """The pair as first minus second, turned round if it is stored the other way."""
        for pair in self.pairs:
            if (pair.first, pair.second) == (first, second):
                return pair
            if (pair.second, pair.first) == (first, second):
                return turn_round(pair)
        return None

    def _is_lower(self, first: str, second: str) -> bool:
        pair = self.find_pair(first, second)
        return pair is not None and pair.verdict == "lower"


def turn_round(pair: Pair) -> Pair:
    """The same comparison with the arms exchanged."""
    difference = pair.difference
    return replace(
        pair,
        first=pair.second,
        second=pair.first,
        mean=None if pair.mean is None else -pair.mean,
        difference=None if difference is None else replace(difference, mean=-difference.mean),
        interval=_mirror(pair.interval),
        bootstrap=_mirror(pair.bootstrap),
    )


def _mirror(interval: Interval | None) -> Interval | None:
    return None if interval is None else Interval(-interval.high, -interval.low)
