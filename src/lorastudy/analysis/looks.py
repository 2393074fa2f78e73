"""When a growing study is looked at, and what each look may spend of the 5 %.

A study that adds seeds until its question is decided judges the same pairs several times. Each
look has a part of the 5 % to itself, and the parts of all looks together are never more than
5 %. So the chance of any false separation over all looks stays below 5 % by Bonferroni's
inequality, whatever made the study go on (decision 0031).

    by n seeds, n / (n + 14) of the 5 % are spent: 0.62 % by 2 seeds, 0.88 % by 3, 1.32 % by 5,
    1.82 % by 8, 2.08 % by 10

What is spent depends on seeds alone. So the end is open: more seeds may be allowed later. Early
looks spend little, because few seeds know the spread badly: where one arm spreads ten times as far
as the others, a look with two or three seeds separates falsely in more studies than its part says.
With these parts, all looks together do so in fewer than 5 % of simulated studies even then, if no
arms differ; if others differ, in up to 7.5 % (`benchmarks/until-decided_2cores_202611`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil

from lorastudy.analysis.paired import SIGNIFICANCE
from lorastudy.analysis.summary import ArmSummary

_HALF_SPENT = 14  # seeds; chosen on the simulated studies without differences, to keep below 5 %
_GROWTH = 1.5  # seeds of a look : seeds of the look before


@dataclass(frozen=True, slots=True)
class Look:
    """The runs that one look saw, and the part of the 5 % that it spends."""

    seeds: tuple[int, ...] | None  # None: all
    arms: frozenset[str] | None  # None: all
    significance: float

    def includes(self, arm: ArmSummary) -> bool:
        """Whether the look saw runs of the arm."""
        return self.arms is None or arm.arm in self.arms

    def restrict(self, arm: ArmSummary) -> ArmSummary:
        """The arm with the runs that the look saw; a baseline has one for all seeds."""
        if self.seeds is None or arm.is_baseline:
            return arm
        return replace(arm, runs=tuple(run for run in arm.runs if run.seed in self.seeds))


EVERY_RUN = Look(None, None, SIGNIFICANCE)  # of a study that is judged once, at its end


def spent_by(n_seeds: int) -> float:
    """The significance that looks with up to `n_seeds` seeds have spent together."""
    return SIGNIFICANCE * n_seeds / (n_seeds + _HALF_SPENT)


def plan_looks(n_seeds: int, most: int) -> Iterator[int]:
    """Numbers of seeds of the looks after one with `n_seeds`: half as many again, up to `most`.

    After 2, with 10 at most: 3, 5, 8, 10.
    """
    while n_seeds < most:
        n_seeds = min(ceil(_GROWTH * n_seeds), most)
        yield n_seeds


def list_looks(seen: Iterable[tuple[tuple[int, ...], Iterable[str]]]) -> tuple[Look, ...]:
    """The looks in order, each (seeds, arms); a look spends what its seeds add."""
    looks, before = list[Look](), 0.0
    for seeds, arms in seen:
        spent = spent_by(len(seeds))
        looks.append(Look(seeds, frozenset(arms), spent - before))
        before = spent
    return tuple(looks)
