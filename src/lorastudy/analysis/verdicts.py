"""From differences to words: pairs are judged together, and surprising orders are explained.

A family of pairs is judged at once (`families`): all pairs under one score, which is called
exploratory, or the pairs of one question that a study declared before its runs, over all of
its tests. Interval, p value and word of a pair then say the same thing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lorastudy.analysis.families import adjust_by_holm, group_unseparated, separate
from lorastudy.analysis.paired import SIGNIFICANCE, Difference, Errors
from lorastudy.analysis.pairs import SMALL_DIFFERENCE, Comparison, Pair
from lorastudy.analysis.planning import (
    seeds_for_equivalence,
    seeds_needed,
    smallest_difference,
)
from lorastudy.analysis.question import Question
from lorastudy.analysis.statistics import Interval


def judge_comparisons(
    comparisons: Sequence[Comparison], *, margin: float, question: Question | None
) -> tuple[Comparison, ...]:
    """All pairs judged in their families, and the groups that follow from it.

    The pairs of the declared question are one family over all tests. The others of each
    comparison are a family each.
    """
    asked: list[Pair] = []
    if question is not None:
        pairs = [(c.key, pair) for c in comparisons for pair in c.pairs]
        asked = [pair for key, pair in pairs if question.asks(key, pair.first, pair.second)]
    answers = iter(judge_family([replace(p, is_asked=True) for p in asked], margin=margin))
    judged = []
    for comparison in comparisons:
        is_asked = [
            question is not None and question.asks(comparison.key, pair.first, pair.second)
            for pair in comparison.pairs
        ]
        others = [p for p, known in zip(comparison.pairs, is_asked, strict=True) if not known]
        rest = iter(judge_family(others, margin=margin))
        in_order = (next(answers) if known else next(rest) for known in is_asked)
        found = tuple(replace(pair, margin=margin) for pair in in_order)
        separated = frozenset(frozenset((p.first, p.second)) for p in found if p.is_separated)
        groups = group_unseparated(comparison.ranked, separated)
        judged.append(replace(comparison, pairs=found, groups=groups))
    return tuple(judged)


def judge_family(pairs: Sequence[Pair], *, margin: float) -> tuple[Pair, ...]:
    """The pairs with interval, p values and plan adjusted over all that can be judged.

    A pair is judged if it has two seeds or more and no reason against it; others stay as they
    are.
    """
    places = [i for i, pair in enumerate(pairs) if _can_be_judged(pair)]
    if not places:
        return tuple(pairs)
    found = [d for i in places if (d := pairs[i].difference) is not None]
    means, errors = np.array([d.mean for d in found]), _stack_errors(found)
    n_pairs = len(found)
    _, levels = separate(means, errors)
    half, plain = errors.half_width(levels), errors.half_width(SIGNIFICANCE)
    p_values = np.minimum(1.0, 2 * errors.tail(np.abs(means)))
    holm = adjust_by_holm([float(p) for p in p_values])
    # both ends of the adjusted interval within the margin: tails of half its level
    inside = margin - np.abs(means)
    outside = errors.tail(np.abs(inside))
    outside = np.where(inside > 0, outside, 1 - outside)
    p_equivalence = np.minimum(1.0, outside * 2 * SIGNIFICANCE / levels)
    judged = list(pairs)
    for k, place in enumerate(places):
        difference, mean = found[k], found[k].mean
        judged[place] = replace(
            pairs[place],
            interval=Interval(mean - float(half[k]), mean + float(half[k])),
            plain=Interval(mean - float(plain[k]), mean + float(plain[k])),
            level=float(levels[k]),
            n_family=n_pairs,
            p=float(p_values[k]),
            p_holm=holm[k],
            p_equivalence=float(p_equivalence[k]),
            margin=margin,
            seeds_for_observed=seeds_needed(difference, mean, n_pairs=n_pairs),
            seeds_for_small=seeds_needed(difference, SMALL_DIFFERENCE, n_pairs=n_pairs),
            seeds_for_equivalence=seeds_for_equivalence(difference, margin, n_pairs=n_pairs),
            smallest_shown=smallest_difference(difference, n_pairs=n_pairs),
        )
    return tuple(judged)


def _can_be_judged(pair: Pair) -> bool:
    difference = pair.difference
    return pair.reason is None and difference is not None and difference.seed_variance is not None


def _stack_errors(differences: Sequence[Difference]) -> Errors:
    """The parts of all differences as arrays (P)."""
    return _stack([e for d in differences if (e := d.errors) is not None])


def _stack(parts: Sequence[Errors]) -> Errors:
    """One `Errors` of all; where only some have rare tails, the others' are their own."""
    has_rare = any(e.rare is not None for e in parts)
    return Errors(
        np.stack([e.seeds for e in parts]),
        np.stack([e.documents for e in parts]),
        np.stack([e.shared for e in parts]),
        np.stack([e.seed_freedom for e in parts]),
        np.stack([e.document_freedom for e in parts]),
        np.array([e.seed_scale for e in parts]),
        _stack([e.rare or e for e in parts]) if has_rare else None,
    )


@dataclass(frozen=True, slots=True)
class Inversion:
    """An arm that is not separated from the lead, though a nearer arm is: why."""

    arm: str
    nearer: str  # whose loss is closer to the lead, and separated from it
    cause: Literal["seeds", "documents"]  # what makes the arm's error the larger one
    error_ratio: float  # standard error of the arm's difference : that of the nearer arm's


def explain_order(comparison: Comparison) -> tuple[Inversion, ...]:
    """One reason for every arm that is farther from the lead and yet called nearer.

    Pairs have errors of their own, so words need not follow the order of the means. Where
    they do not, the page says whose spread makes it so. Farthest arm first.
    """
    if len(comparison.ranked) < 3:
        return ()
    lead = comparison.ranked[0]
    found = [comparison.find_pair(lead, arm) for arm in comparison.ranked[1:]]
    judged = sorted((p for p in found if p and p.is_judged), key=lambda p: p.mean or 0.0)
    inversions = []
    for place, pair in enumerate(judged):
        nearer = [p for p in judged[place + 1 :] if p.is_separated]
        if not pair.is_separated and nearer:
            inversions.append(_explain(pair, nearer[0]))
    return tuple(inversions)


def _explain(pair: Pair, nearer: Pair) -> Inversion:
    far, near = pair.difference, nearer.difference
    assert far is not None
    assert near is not None
    of_seeds = (far.seed_variance or 0.0) - (near.seed_variance or 0.0)
    of_documents = (far.document_variance or 0.0) - (near.document_variance or 0.0)
    ratio = float(np.sqrt((far.variance or 0.0) / near.variance)) if near.variance else np.inf
    cause: Literal["seeds", "documents"] = "seeds" if of_seeds >= of_documents else "documents"
    return Inversion(pair.second, nearer.second, cause, ratio)
