"""Which pairs of a family are separated, and the intervals that say the same.

A family is the set of pairs that one question is asked of: all pairs under one score, or the
one question that a study declared beforehand on all its tests. Holm's step-down procedure (S.
Holm, Scand. J. Statist. 6 (1979) 65-70) keeps the chance of any false separation in a family
below 5 %. Families lie along the last axis of arrays; leading dimensions are free.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from lorastudy.analysis.paired import SIGNIFICANCE, Errors, FloatArray

BoolArray = npt.NDArray[np.bool_]


def separate(
    means: FloatArray,
    errors: Errors,
    *,
    significance: float = SIGNIFICANCE,
    n_left: FloatArray | int | None = None,
) -> tuple[BoolArray, FloatArray]:
    """What is separated in families of P pairs (..., P), and the levels of their intervals.

    Holm's steps have the levels 0.05 / P, 0.05 / (P - 1), ... 0.05. An interval has the first
    of them at which its pair is separated, and 0.05 / P if it is not. So an interval excludes
    zero exactly where Holm separates its pair: one that is not separated has p >= 0.05 / P,
    and its interval includes zero. All intervals together cover their differences in 95 % of
    studies by Bonferroni's inequality, apart from the narrower ones of pairs that only a
    later step separates.

    A study that looks several times gives each look a part of the 5 % (`significance`). The
    first step is then divided by `n_left` (...), the pairs of the family that no earlier look
    separated; these may be more than the P that are judged now. Where true differences are
    zero, the first false separation is at a level of at most `significance` / their number, so
    the chance of any is at most the sum of the looks' parts.
    """
    n_pairs = means.shape[-1]
    left = np.asarray(n_pairs if n_left is None else n_left)[..., None]
    separated = np.zeros(means.shape, dtype=np.bool_)
    levels = np.broadcast_to(significance / left, means.shape)
    is_going = np.ones(means.shape[:-1], dtype=np.bool_)
    for step in range(n_pairs):
        level = significance / np.maximum(left - step, 1)
        found = np.abs(means) > errors.half_width(level)
        # the step + 1 smallest p values lie below this step's level
        is_going &= found.sum(axis=-1) > step
        if not is_going.any():
            break
        is_new = found & is_going[..., None] & ~separated
        levels = np.where(is_new, level, levels)
        separated |= is_new
    return separated, levels


def adjust_by_holm(
    p_values: Sequence[float], *, significance: float = SIGNIFICANCE, n_left: int | None = None
) -> tuple[float, ...]:
    """Holm's step-down adjustment; below 0.05 where `separate` separates with the same arguments.

    A p value of a look with a part of the 5 % grows by 5 % / `significance`.
    """
    left = len(p_values) if n_left is None else n_left
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        times = (left - rank) * (SIGNIFICANCE / significance)
        largest = max(largest, min(1.0, times * p_values[place]))
        adjusted[place] = largest
    return tuple(adjusted)


def group_unseparated(
    ranked: Sequence[str], separated: frozenset[frozenset[str]]
) -> tuple[tuple[str, ...], ...]:
    """The largest groups of arms in which no two are separated, in the order of `ranked`.

    An arm can be in several groups: not to be separated is not transitive.
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


def _is_covered(group: set[str], place: int, groups: list[set[str]]) -> bool:
    return any(group < g or (group == g and i < place) for i, g in enumerate(groups))
