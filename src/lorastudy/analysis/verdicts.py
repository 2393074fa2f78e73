"""From differences to words: pairs are judged together, and surprising orders are explained.

A family of pairs is judged at once (`families`): all pairs under one score, which is called
exploratory, or the pairs of one question that a study declared before its runs, over all of
its tests. Interval, p value and word of a pair then say the same thing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lorastudy.analysis.families import adjust_by_holm, separate
from lorastudy.analysis.paired import SIGNIFICANCE, Difference, Errors, FloatArray
from lorastudy.analysis.pairs import SMALL_DIFFERENCE, Comparison, Pair
from lorastudy.analysis.planning import (
    seeds_for_equivalence,
    seeds_needed,
    smallest_difference,
)
from lorastudy.analysis.question import Question
from lorastudy.analysis.statistics import Interval


@dataclass(frozen=True, slots=True)
class JudgedLook:
    """All pairs of a study as one look found them, and the part of the 5 % that it spends."""

    comparisons: tuple[Comparison, ...]  # one for each score, the same scores in every look
    significance: float


def judge_looks(
    looks: Sequence[JudgedLook], *, margin: float, question: Question | None
) -> tuple[tuple[Pair, ...], ...]:
    """For each score the pairs of the first look, judged in their families over all looks.

    The pairs of the declared question are one family over all tests. The others of each score are
    a family each. A pair that a look separates, or shows to be equivalent, stays as that look
    found it. Any other is as the last look found it that could judge it.
    """
    scores = [c.key for c in looks[0].comparisons]
    known = {
        (key, pair.first, pair.second): replace(
            pair,
            margin=margin,
            is_asked=question is not None and question.asks(key, pair.first, pair.second),
        )
        for key, c in zip(scores, looks[0].comparisons, strict=True)
        for pair in c.pairs
    }
    families = [[place for place, pair in known.items() if pair.is_asked]]
    families += [
        [place for place, pair in known.items() if place[0] == key and not pair.is_asked]
        for key in scores
    ]
    n_judged = [0] * len(families)  # pairs of each family that a look could judge
    for look in looks:
        found = {(c.key, p.first, p.second): p for c in look.comparisons for p in c.pairs}
        for i, family in enumerate(families):
            open_places = [place for place in family if place in found and _is_open(known[place])]
            pairs = [replace(found[p], is_asked=known[p].is_asked) for p in open_places]
            n_separated = sum(known[place].is_separated for place in family)
            n_judged[i] = max(n_judged[i], n_separated + sum(map(_can_be_judged, pairs)))
            judged = judge_family(
                pairs,
                margin=margin,
                significance=look.significance,
                n_family=n_judged[i],
                n_left=n_judged[i] - n_separated,
            )
            for place, pair in zip(open_places, judged, strict=True):
                if pair.is_judged or not known[place].is_judged:
                    known[place] = replace(pair, margin=margin)
    return tuple(
        tuple(known[c.key, pair.first, pair.second] for pair in c.pairs)
        for c in looks[0].comparisons
    )


def _is_open(pair: Pair) -> bool:
    return not (pair.is_separated or pair.is_equivalent)


def judge_family(
    pairs: Sequence[Pair],
    *,
    margin: float,
    significance: float = SIGNIFICANCE,
    n_family: int | None = None,
    n_left: int | None = None,
) -> tuple[Pair, ...]:
    """The pairs with interval, p values and plan adjusted over all that can be judged.

    A pair is judged if it has two seeds or more and no reason against it; others stay as they
    are. A look of several spends `significance` on the pairs of a family of `n_family` of which
    `n_left` are not separated yet (None: the pairs that can be judged).
    """
    places = [i for i, pair in enumerate(pairs) if _can_be_judged(pair)]
    if not places:
        return tuple(pairs)
    found = [d for i in places if (d := pairs[i].difference) is not None]
    means, errors = np.array([d.mean for d in found]), _stack_errors(found)
    n_left = len(found) if n_left is None else n_left
    n_pairs = n_left * (SIGNIFICANCE / significance)  # 5 % over the level of the first step
    _, levels = separate(means, errors, significance=significance, n_left=n_left)
    half, plain = errors.half_width(levels), errors.half_width(SIGNIFICANCE)
    p_values = np.minimum(1.0, 2 * errors.tail(np.abs(means)))
    holm = adjust_by_holm([float(p) for p in p_values], significance=significance, n_left=n_left)
    p_equivalence = _p_of_equivalence(means, errors, levels, margin)
    judged = list(pairs)
    for k, place in enumerate(places):
        difference, mean = found[k], found[k].mean
        judged[place] = replace(
            pairs[place],
            interval=Interval(mean - float(half[k]), mean + float(half[k])),
            plain=Interval(mean - float(plain[k]), mean + float(plain[k])),
            level=float(levels[k]),
            n_family=len(found) if n_family is None else n_family,
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


def _p_of_equivalence(
    means: FloatArray, errors: Errors, levels: FloatArray, margin: float
) -> FloatArray:
    """Below 0.05 where both ends of the interval are within the margin: tails of half its level."""
    inside = margin - np.abs(means)
    outside = errors.tail(np.abs(inside))
    outside = np.where(inside > 0, outside, 1 - outside)
    return np.minimum(1.0, outside * 2 * SIGNIFICANCE / levels)


def at_another_margin(comparisons: Sequence[Comparison], margin: float) -> tuple[Comparison, ...]:
    """The comparisons with another margin of equivalence; intervals do not depend on it."""
    return tuple(
        replace(c, pairs=tuple(_change_margin(pair, margin) for pair in c.pairs))
        for c in comparisons
    )


def _change_margin(pair: Pair, margin: float) -> Pair:
    difference = pair.difference
    if not pair.is_judged or difference is None or pair.level is None:
        return replace(pair, margin=margin)
    mean, errors = np.array([difference.mean]), _stack_errors([difference])
    n_pairs = max(pair.n_family, SIGNIFICANCE / pair.level)  # more where a look spent a part
    return replace(
        pair,
        margin=margin,
        p_equivalence=float(_p_of_equivalence(mean, errors, np.array([pair.level]), margin)[0]),
        seeds_for_equivalence=seeds_for_equivalence(difference, margin, n_pairs=n_pairs),
    )


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
