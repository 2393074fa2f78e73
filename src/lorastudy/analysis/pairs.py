"""What a comparison of arms says: a pair of arms, and all pairs under one score.

Only values and what follows from them; `compare` makes them from the records of runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lorastudy.analysis.paired import SIGNIFICANCE, Difference
from lorastudy.analysis.statistics import Interval
from lorastudy.analysis.summary import ScoreKey

EQUIVALENCE_MARGIN = 0.02  # nats a target, about 2 % of a perplexity
SMALL_DIFFERENCE = 0.01  # nats a target, for which seeds are counted beside the observed one
ONE_SEED = "one seed: no claim about training"

PERCENTS = tuple(range(101))  # at which differences of documents are read off

PairVerdict = Literal["lower", "higher", "not separated", "one seed", "no interval"]


@dataclass(frozen=True, slots=True)
class Level:
    """The loss of one arm under one score, on its own."""

    arm: str
    mean: float  # nats a target, as Table I has it
    n_seeds: int
    interval: Interval  # 95 %, over seeds and documents; over documents only with one seed


@dataclass(frozen=True, slots=True)
class DocumentSpread:
    """How the difference of two arms spreads over documents, each in nats a target of its own."""

    share_lower: float  # of documents on which the first arm has the lower loss
    quantiles: tuple[float, ...]  # at PERCENTS, ascending


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
    documents: DocumentSpread | None = None  # None: sums by document are missing
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

    key: ScoreKey
    ranked: tuple[str, ...]  # arms with a finite score, lowest mean cross-entropy first
    pairs: tuple[Pair, ...]  # the arm that comes first in the study stands first
    groups: tuple[tuple[str, ...], ...]  # no two arms of a group are separated
    n_documents: int  # or windows; 0: sums by document are missing
    notes: tuple[str, ...]
    levels: tuple[Level, ...] = ()  # of the arms with sums by document

    @property
    def tied_for_lead(self) -> tuple[str, ...]:
        """The arm with the lowest mean, and all arms that are not separated from it."""
        return tuple(a for a in self.ranked if not self.has_lower(self.ranked[0], than=a))

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

    def find_level(self, arm: str) -> Level | None:
        """The arm's own loss with its interval; None without sums by document."""
        return next((level for level in self.levels if level.arm == arm), None)

    def has_lower(self, arm: str, *, than: str) -> bool:
        """The loss of `arm` is lower than that of `than`, and separated from it."""
        pair = self.find_pair(arm, than)
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
        documents=None if pair.documents is None else _mirror_documents(pair.documents),
    )


def choose_main(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """One comparison for each benchmark: its first protocol that scores text alone.

    The first protocol at all where every one of them scores padding.
    """
    chosen: dict[str, Comparison] = {}
    for comparison in sorted(comparisons, key=lambda c: c.key.scores_padding):
        chosen.setdefault(comparison.key.benchmark, comparison)
    return tuple(c for c in comparisons if c in chosen.values())


def _mirror(interval: Interval | None) -> Interval | None:
    return None if interval is None else Interval(-interval.high, -interval.low)


def _mirror_documents(spread: DocumentSpread) -> DocumentSpread:
    """Ties apart, what was lower is higher; of documents that tie there are next to none."""
    turned = tuple(-value for value in reversed(spread.quantiles))
    return DocumentSpread(1 - spread.share_lower, turned)
