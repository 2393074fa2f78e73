"""What a comparison of arms says: a pair of arms, and all pairs under one score.

Only values and what follows from them. `compare` makes them from the records of runs, and
`verdicts` adjusts them over a family of pairs. The word of a pair follows from its interval
alone, so that word and interval cannot contradict each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lorastudy.analysis.flips import Flips
from lorastudy.analysis.layout import SeedSpread
from lorastudy.analysis.paired import Difference
from lorastudy.analysis.statistics import Interval
from lorastudy.analysis.summary import ScoreKey
from lorastudy.config.models import EQUIVALENCE_MARGIN

SMALL_DIFFERENCE = 0.01  # nats per target, for which seeds are counted beside the observed one
ONE_SEED = "one seed: no claim about training"

PERCENTS = tuple(range(101))  # at which differences of documents are read off

PairVerdict = Literal["lower", "higher", "equivalent", "not separated", "one seed", "no verdict"]
NoVerdict = Literal[
    "no seed in common",
    "no sums by document",
    "incomplete arm",  # it has fewer seeds than others
    "too few seeds",  # the layout of arms and seeds has one degree of freedom
]


@dataclass(frozen=True, slots=True)
class Level:
    """The loss of one arm under one score, on its own."""

    arm: str
    mean: float  # nats per target, as Table I has it
    n_seeds: int
    interval: Interval  # 95 %, over seeds and documents; over documents only with one seed


@dataclass(frozen=True, slots=True)
class DocumentSpread:
    """How the difference of two arms spreads over documents, in nats per target of each."""

    share_lower: float  # of documents on which the first arm has the lower loss
    share_equal: float  # often equal are answers to items, and losses hardly ever
    quantiles: tuple[float, ...]  # at PERCENTS, ascending

    @property
    def share_higher(self) -> float:
        """Of documents on which the first arm has the higher loss."""
        return 1 - self.share_lower - self.share_equal


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms under one score: the first minus the second, in nats per target."""

    first: str
    second: str
    mean: float | None  # None: no seed in common
    seeds: tuple[int, ...] = ()  # in common; a baseline has all
    difference: Difference | None = None  # None: there is no interval
    interval: Interval | None = None  # adjusted as the verdict is; plain with one seed
    plain: Interval | None = None  # 95 % for this pair by itself
    level: float | None = None  # the chance that `interval` misses the truth
    n_family: int = 0  # pairs that are judged together; 0: this one is not judged
    is_asked: bool = False  # by the question that the study declared; else it is exploratory
    bootstrap: Interval | None = None  # 95 %, percentile of two levels; None below five seeds
    p: float | None = None  # of no difference; None with one seed
    p_holm: float | None = None  # adjusted over the family; < 0.05 where `interval` excludes 0
    p_equivalence: float | None = None  # adjusted; < 0.05 where `interval` is within the margin
    margin: float = EQUIVALENCE_MARGIN
    seeds_for_observed: int | None = None  # None: not by more seeds
    seeds_for_small: int | None = None  # for SMALL_DIFFERENCE
    seeds_for_equivalence: int | None = None  # if the true difference is the observed one
    smallest_shown: float | None = None  # the difference separated with a chance of 80 %
    spread_ratio: float | None = None  # own standard deviation over seeds : that of all pairs
    n_seeds_lower: int | None = None  # on which the first arm has the lower loss
    documents: DocumentSpread | None = None  # None: sums by document are missing
    flips: Flips | None = None  # of answers to items; None: losses are compared
    reason: NoVerdict | None = None  # why there is no verdict
    remark: str = ""  # seeds that one arm lacks, why there is no number

    @property
    def is_judged(self) -> bool:
        """There is a verdict about training."""
        return self.reason is None and self.n_family > 0 and self.interval is not None

    @property
    def is_separated(self) -> bool:
        """The two differ: the adjusted interval excludes zero."""
        return (
            self.is_judged
            and self.interval is not None
            and not self.interval.low <= 0 <= self.interval.high
        )

    @property
    def is_equivalent(self) -> bool:
        """The two differ by less than the margin: the adjusted interval lies within it."""
        return (
            self.is_judged
            and self.interval is not None
            and -self.margin < self.interval.low
            and self.interval.high < self.margin
        )

    @property
    def verdict(self) -> PairVerdict:
        """What may be said of the first arm's loss beside the second's.

        lower, higher    the adjusted interval excludes zero; `is_equivalent` may hold as well:
                         a difference that is real, and smaller than the margin
        equivalent       the adjusted interval includes zero and lies within the margin; only
                         such arms are tied
        not separated    the adjusted interval includes zero and goes beyond the margin
        one seed         there is an interval over documents, and no claim about training
        no verdict       for the `reason` that is given
        """
        if self.reason is not None or self.interval is None or self.mean is None:
            return "no verdict"
        if not self.is_judged:
            return "one seed"
        if self.is_separated:
            return "lower" if self.mean < 0 else "higher"
        return "equivalent" if self.is_equivalent else "not separated"


@dataclass(frozen=True, slots=True)
class IncompleteArm:
    """An arm that takes no part in variances, leads and groups."""

    arm: str
    seeds: tuple[int, ...]  # that it has
    lacking: tuple[int, ...]  # that the others have


@dataclass(frozen=True, slots=True)
class Comparison:
    """All pairs of arms under one score."""

    key: ScoreKey
    ranked: tuple[str, ...]  # complete arms with a finite score, lowest mean loss first
    pairs: tuple[Pair, ...]  # the arm that comes first in the study stands first
    groups: tuple[tuple[str, ...], ...]  # no two arms of a group are separated
    n_documents: int  # or windows; 0: sums by document are missing
    notes: tuple[str, ...]
    levels: tuple[Level, ...] = ()  # of the arms with sums by document
    incomplete: tuple[IncompleteArm, ...] = ()
    spreads: tuple[tuple[str, SeedSpread], ...] = ()  # over seeds; none below three trained arms

    @property
    def not_separated_from_lead(self) -> tuple[str, ...]:
        """The arm with the lowest mean, and all arms that are not separated from it."""
        return tuple(a for a in self.ranked if not self.has_lower(self.ranked[0], than=a))

    @property
    def tied_for_lead(self) -> tuple[str, ...]:
        """The arm with the lowest mean, and all arms shown to be equivalent to it."""
        lead = self.ranked[:1]
        return lead + tuple(
            arm
            for arm in self.ranked[1:]
            if (pair := self.find_pair(lead[0], arm)) and pair.verdict == "equivalent"
        )

    @property
    def margin(self) -> float:
        """Losses that differ by less are equivalent; nats per target."""
        return next((pair.margin for pair in self.pairs), EQUIVALENCE_MARGIN)

    @property
    def leader(self) -> str | None:
        """The arm whose lead is separated from every other arm; None if there is none."""
        others = self.not_separated_from_lead
        return others[0] if len(others) == 1 and len(self.ranked) > 1 else None

    @property
    def wide_arms(self) -> tuple[str, ...]:
        """The arms whose seeds spread farther than those of the others."""
        return tuple(arm for arm, spread in self.spreads if spread.is_wide)

    @property
    def smallest_shown(self) -> tuple[float, float] | None:
        """The smallest differences that this study can show: of its best and its worst pair."""
        found = [pair.smallest_shown for pair in self.pairs if pair.smallest_shown is not None]
        return (min(found), max(found)) if found else None

    @property
    def is_one_seed(self) -> bool:
        """Every interval is over documents only."""
        shown = [pair for pair in self.pairs if pair.interval is not None]
        return bool(shown) and all(pair.verdict == "one seed" for pair in shown)

    def find_pair(self, first: str, second: str) -> Pair | None:
        """The pair as first minus second; it is turned round if it is stored the other way."""
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
    difference, n_lower = pair.difference, pair.n_seeds_lower
    return replace(
        pair,
        first=pair.second,
        second=pair.first,
        mean=None if pair.mean is None else -pair.mean,
        difference=None if difference is None else replace(difference, mean=-difference.mean),
        interval=_mirror(pair.interval),
        plain=_mirror(pair.plain),
        bootstrap=_mirror(pair.bootstrap),
        n_seeds_lower=None if n_lower is None else len(pair.seeds) - n_lower,
        documents=None if pair.documents is None else _mirror_documents(pair.documents),
        flips=None if pair.flips is None else pair.flips.turned_round(),
    )


def choose_main(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """One comparison for each benchmark, under its main protocol."""
    chosen = choose_main_keys([c.key for c in comparisons])
    return tuple(c for c in comparisons if c.key in chosen)


def choose_main_keys(keys: Sequence[ScoreKey]) -> tuple[ScoreKey, ...]:
    """One score for each benchmark: under its first protocol that scores text alone.

    The first protocol at all where every one of them scores padding.
    """
    chosen: dict[str, ScoreKey] = {}
    for key in sorted(keys, key=lambda key: key.scores_padding):
        chosen.setdefault(key.benchmark, key)
    return tuple(key for key in keys if key in chosen.values())


def _mirror(interval: Interval | None) -> Interval | None:
    return None if interval is None else Interval(-interval.high, -interval.low)


def _mirror_documents(spread: DocumentSpread) -> DocumentSpread:
    turned = tuple(-value for value in reversed(spread.quantiles))
    return DocumentSpread(spread.share_higher, spread.share_equal, turned)
