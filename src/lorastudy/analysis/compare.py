"""Compares every pair of arms on every benchmark under every protocol.

Only this module decides which runs are paired, and what is said if something is missing. Arms are
paired by seed, a baseline stands for every seed, and a pair without a common seed has no number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from lorastudy.analysis.bootstrap import bootstrap_interval, resample_documents
from lorastudy.analysis.document_sums import NO_SUMS, ScoreSums, read_sums
from lorastudy.analysis.paired import (
    FloatArray,
    adjust_by_holm,
    group_tied,
    interval_of,
    measure_difference,
    p_of_equivalence,
    p_of_no_difference,
    seeds_needed,
)
from lorastudy.analysis.pairs import (
    EQUIVALENCE_MARGIN,
    ONE_SEED,
    PERCENTS,
    SMALL_DIFFERENCE,
    Comparison,
    DocumentSpread,
    Level,
    Pair,
)
from lorastudy.analysis.statistics import Interval, mean
from lorastudy.analysis.summary import ArmSummary, ScoreKey, score_key
from lorastudy.store.records import RunResult


@dataclass(frozen=True, slots=True)
class _Side:
    """One arm of a pair: its runs by seed, or the one run that stands for all seeds."""

    arm: str
    runs: Mapping[int, RunResult]  # runs with a finite score
    scores: Mapping[int, float]
    is_constant: bool

    def run(self, seed: int) -> RunResult:
        return next(iter(self.runs.values())) if self.is_constant else self.runs[seed]

    def score(self, seed: int) -> float:
        return next(iter(self.scores.values())) if self.is_constant else self.scores[seed]


def compare_study(
    arms: tuple[ArmSummary, ...],
    keys: Sequence[ScoreKey],
    study_dir: Path | None,
    *,
    with_bootstrap: bool,
) -> tuple[Comparison, ...]:
    """One comparison for each score; `study_dir` has the run folders (None: there are none)."""
    return tuple(_compare(key, arms, study_dir, with_bootstrap=with_bootstrap) for key in keys)


def _compare(
    key: ScoreKey, arms: tuple[ArmSummary, ...], study_dir: Path | None, *, with_bootstrap: bool
) -> Comparison:
    sides = [side for arm in arms if (side := _side(arm, key)).runs]
    sums = read_sums(key, arms, study_dir)
    chosen = list(combinations(sides, 2))
    pairs = [_compare_pair(a, b, sums, n_pairs=len(chosen)) for a, b in chosen]
    if with_bootstrap and len(sums.weights) > 1:
        pairs = _add_bootstrap(pairs, sides, sums)
    pairs = _adjust(pairs)
    ranked = tuple(s.arm for s in sorted(sides, key=lambda s: mean(list(s.scores.values()))))
    separated = frozenset(frozenset((p.first, p.second)) for p in pairs if p.is_separated)
    notes = (*_left_out(arms, sides, key), *sums.notes)
    return Comparison(
        key=key,
        ranked=ranked,
        pairs=tuple(pairs),
        groups=group_tied(ranked, separated),
        n_documents=len(sums.weights),
        notes=notes,
        levels=tuple(level for side in sides if (level := _measure_level(side, sums)) is not None),
    )


def _measure_level(side: _Side, sums: ScoreSums) -> Level | None:
    """The arm's loss with the interval of its ratio of sums, centred on the score itself."""
    nats = [sums.nats_of_runs.get(run.run_id) for run in side.runs.values()]
    found = [array for array in nats if array is not None]
    if not found:
        return None
    own = measure_difference(sums.weights, np.stack(found))
    if (interval := interval_of(own)) is None:
        return None
    centre, half = mean(list(side.scores.values())), (interval.high - interval.low) / 2
    return Level(side.arm, centre, len(found), Interval(centre - half, centre + half))


def _add_bootstrap(pairs: list[Pair], sides: list[_Side], sums: ScoreSums) -> list[Pair]:
    resampled = resample_documents(sums.weights, sums.nats_of_runs)
    by_arm = {side.arm: side for side in sides}
    intervals = [
        bootstrap_interval(
            _stack(by_arm[pair.first], pair.seeds, resampled),
            _stack(by_arm[pair.second], pair.seeds, resampled),
        )
        if pair.difference is not None
        else None
        for pair in pairs
    ]
    return [replace(p, bootstrap=found) for p, found in zip(pairs, intervals, strict=True)]


def _side(arm: ArmSummary, key: ScoreKey) -> _Side:
    scored = {
        run.seed: (run, evaluation.cross_entropy)
        for run in arm.runs
        for evaluation in run.evaluations
        if score_key(evaluation) == key and math.isfinite(evaluation.cross_entropy)
    }
    return _Side(
        arm=arm.arm,
        runs={seed: run for seed, (run, _) in scored.items()},
        scores={seed: value for seed, (_, value) in scored.items()},
        is_constant=arm.is_baseline,
    )


def _compare_pair(first: _Side, second: _Side, sums: ScoreSums, *, n_pairs: int) -> Pair:
    with_scores = _common_seeds(first, second, set(first.runs), set(second.runs))
    with_sums = _common_seeds(
        first,
        second,
        {seed for seed, run in first.runs.items() if run.run_id in sums.nats_of_runs},
        {seed for seed, run in second.runs.items() if run.run_id in sums.nats_of_runs},
    )
    seeds = with_sums or with_scores
    if not seeds:
        return Pair(first.arm, second.arm, None, remark="no seed in common: no number.")
    remark = _remark(first, second, seeds)
    if not with_sums:
        differences = [first.score(seed) - second.score(seed) for seed in seeds]
        return Pair(first.arm, second.arm, mean(differences), seeds, remark=remark or NO_SUMS)
    nats = _stack(first, seeds, sums.nats_of_runs) - _stack(second, seeds, sums.nats_of_runs)
    difference = measure_difference(sums.weights, nats)
    is_random = len(seeds) > 1
    return Pair(
        first=first.arm,
        second=second.arm,
        mean=difference.mean,
        seeds=seeds,
        difference=difference,
        interval=interval_of(difference),
        p=p_of_no_difference(difference) if is_random else None,
        p_equivalence=p_of_equivalence(difference, EQUIVALENCE_MARGIN) if is_random else None,
        seeds_for_observed=seeds_needed(difference, difference.mean, n_pairs=n_pairs),
        seeds_for_small=seeds_needed(difference, SMALL_DIFFERENCE, n_pairs=n_pairs),
        remark=remark,
        documents=_spread_documents(sums.weights, nats),
    )


def _spread_documents(weights: FloatArray, nats: FloatArray) -> DocumentSpread | None:
    """Means over seeds for each document; `nats` is (S seeds, m documents), first minus second."""
    has_targets = weights > 0
    if not has_targets.any():
        return None
    differences = nats.mean(axis=0)[has_targets] / weights[has_targets]
    found = np.quantile(differences, np.asarray(PERCENTS) / 100)
    return DocumentSpread(float((differences < 0).mean()), tuple(map(float, found)))


def _common_seeds(
    first: _Side, second: _Side, of_first: set[int], of_second: set[int]
) -> tuple[int, ...]:
    if not of_first or not of_second:
        return ()
    if first.is_constant:
        return tuple(sorted(of_second))
    return tuple(sorted(of_first if second.is_constant else of_first & of_second))


def _remark(first: _Side, second: _Side, seeds: tuple[int, ...]) -> str:
    parts = [] if len(seeds) > 1 else [f"{ONE_SEED}."]
    for side, other in ((first, second), (second, first)):
        left_out = sorted(set(side.runs) - set(seeds))
        if left_out and not side.is_constant:
            names = ", ".join(map(str, left_out))
            parts.append(f"seed {names} of {side.arm} is left out: {other.arm} lacks it.")
    return " ".join(parts)


def _stack(side: _Side, seeds: tuple[int, ...], of_runs: Mapping[str, FloatArray]) -> FloatArray:
    return np.stack([of_runs[side.run(seed).run_id] for seed in seeds])


def _adjust(pairs: list[Pair]) -> list[Pair]:
    """Apply Holm's adjustment to all pairs that have a p value."""
    adjusted = iter(adjust_by_holm([pair.p for pair in pairs if pair.p is not None]))
    return [pair if pair.p is None else replace(pair, p_holm=next(adjusted)) for pair in pairs]


def _left_out(arms: tuple[ArmSummary, ...], sides: list[_Side], key: ScoreKey) -> list[str]:
    """Arms and seeds whose score exists but is not finite."""
    known = {side.arm: side for side in sides}
    lost = [
        f"{arm.arm}, seed {run.seed}"
        for arm in arms
        for run in arm.runs
        for e in run.evaluations
        if score_key(e) == key and (arm.arm not in known or run.seed not in known[arm.arm].runs)
    ]
    return [f"not finite, so not compared: {'; '.join(lost)}."] if lost else []
