"""Compares every pair of arms on every benchmark under every protocol.

The only place that decides which runs are paired, and what is said where something is
missing: arms are paired by seed, a baseline stands for every seed, an arm with fewer seeds
than others is shown and not judged, and a pair without a common seed has no number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from lorastudy.analysis.bootstrap import LEAST_SEEDS, bootstrap_interval, resample_documents
from lorastudy.analysis.families import group_unseparated
from lorastudy.analysis.flips import count_flips
from lorastudy.analysis.layout import (
    ARMS_FOR_RARE,
    CommonVariance,
    Layout,
    prior_freedom,
    shrink_variance,
)
from lorastudy.analysis.looks import Look
from lorastudy.analysis.paired import (
    Difference,
    FloatArray,
    interval_of,
    measure_difference,
)
from lorastudy.analysis.pairs import (
    ONE_SEED,
    PERCENTS,
    Comparison,
    DocumentSpread,
    IncompleteArm,
    Level,
    NoVerdict,
    Pair,
)
from lorastudy.analysis.question import Question
from lorastudy.analysis.score_sums import NO_SUMS, ScoreSums, read_sums
from lorastudy.analysis.sides import SeedsJudged, Side, common_seeds, find_seeds, make_side
from lorastudy.analysis.statistics import Interval, mean
from lorastudy.analysis.summary import ArmSummary, ScoreKey, score_key
from lorastudy.analysis.verdicts import JudgedLook, judge_looks


def compare_study(
    arms: tuple[ArmSummary, ...],
    keys: Sequence[ScoreKey],
    study_dir: Path | None,
    *,
    with_bootstrap: bool,
    margin: float,
    question: Question | None,
    looks: Sequence[Look],
) -> tuple[Comparison, ...]:
    """One comparison for each score; `study_dir` holds the run folders (None: there are none).

    Arms within `margin` nats per target are called equivalent. The pairs of the `question` that
    the study declared are judged by themselves. A study that was looked at while it grew is
    judged as its `looks` saw it, so that its pairs have the seeds of the look that decided them.
    """
    if not keys:
        return ()
    seen = [tuple(look.restrict(arm) for arm in arms if look.includes(arm)) for look in looks]
    found = [
        tuple(_compare(key, some, study_dir, with_bootstrap=with_bootstrap) for key in keys)
        for some in seen
    ]
    judged = judge_looks(
        [JudgedLook(c, look.significance) for c, look in zip(found, looks, strict=True)],
        margin=margin,
        question=question,
    )
    last = {arm.arm: arm for some in seen for arm in some}
    of_scores = zip(*found, strict=True)
    return tuple(_join(of_score, p, last) for of_score, p in zip(of_scores, judged, strict=True))


def _join(
    looks: tuple[Comparison, ...], pairs: tuple[Pair, ...], last: Mapping[str, ArmSummary]
) -> Comparison:
    """What all looks say about one score: of each arm, what the last look says that it was in.

    `pairs` are judged over all looks; `last` has the runs of each arm's last look.
    """
    first, key = looks[0], looks[0].key
    means = {
        arm: mean([loss for loss in last[arm].sample(key).losses if math.isfinite(loss)])
        for arm in first.ranked
    }
    ranked = tuple(sorted(first.ranked, key=means.__getitem__))
    separated = frozenset(frozenset((p.first, p.second)) for p in pairs if p.is_separated)
    levels = {level.arm: level for look in looks for level in look.levels}
    spreads = {arm: spread for look in looks for arm, spread in look.spreads}
    return replace(
        first,
        ranked=ranked,
        pairs=pairs,
        groups=group_unseparated(ranked, separated),
        notes=tuple(dict.fromkeys(note for look in looks for note in look.notes)),
        levels=tuple(levels.values()),
        spreads=tuple(spreads.items()),
    )


def _compare(
    key: ScoreKey,
    arms: tuple[ArmSummary, ...],
    study_dir: Path | None,
    *,
    with_bootstrap: bool,
) -> Comparison:
    """All pairs under one score, not yet judged."""
    sums = read_sums(key, arms, study_dir)
    sides = [side for arm in arms if (side := make_side(arm, key, sums)).runs]
    seeds = find_seeds(sides, sums)
    pairs = [_compare_pair(a, b, sums, seeds) for a, b in combinations(sides, 2)]
    if with_bootstrap and len(sums.weights) > 1:
        pairs = _add_bootstrap(pairs, sides, sums)
    # leads and groups are of complete arms
    complete = [side for side in sides if side.arm in seeds.complete]
    ranked = tuple(s.arm for s in sorted(complete, key=lambda s: mean(list(s.scores.values()))))
    levels = (_measure_level(side, sums, seeds) for side in sides)
    return Comparison(
        key=key,
        ranked=ranked,
        pairs=tuple(pairs),
        groups=(),
        n_documents=len(sums.weights),
        notes=(*_left_out(arms, sides, key), *sums.notes),
        levels=tuple(level for level in levels if level is not None),
        incomplete=tuple(
            IncompleteArm(s.arm, tuple(sorted(s.judged)), tuple(sorted(seeds.common - s.judged)))
            for s in sides
            if s.arm not in seeds.complete
        ),
        spreads=seeds.spreads,
    )


def _shrink(own: Difference, common: CommonVariance, n_trained: int) -> Difference:
    """The difference with its variance over seeds drawn towards that of all pairs."""
    variance = np.asarray((own.seed_variance or 0.0) * own.n_seeds)
    prior = prior_freedom(n_trained, own.n_seeds)
    value, freedom = shrink_variance(variance, own.n_seeds, common, prior)
    return replace(
        own,
        seed_variance=float(value) / own.n_seeds,
        seed_freedom=float(freedom),
        common_freedom=float(common.freedom),
        n_arms=n_trained,
    )


def _measure_level(side: Side, sums: ScoreSums, seeds: SeedsJudged) -> Level | None:
    """The arm's loss with the interval of its ratio of sums, centred on the score itself.

    None for an arm that is not judged over its seeds.
    """
    nats = [sums.nats_of_runs.get(run.run_id) for run in side.runs.values()]
    found = [array for array in nats if array is not None]
    if not found or side.arm not in seeds.complete:
        return None
    own = measure_difference(sums.weights, np.stack(found), sums.clusters)
    if seeds.layout is not None and not side.is_constant:
        own = _shrink(own, seeds.layout.of_constant, seeds.n_trained)
    if (interval := interval_of(own)) is None:
        return None
    centre, half = mean(list(side.scores.values())), (interval.high - interval.low) / 2
    return Level(side.arm, centre, len(found), Interval(centre - half, centre + half))


def _add_bootstrap(pairs: list[Pair], sides: list[Side], sums: ScoreSums) -> list[Pair]:
    """Only for pairs with seeds enough, and nothing is resampled without one."""
    if all(p.difference is None or p.difference.n_seeds < LEAST_SEEDS for p in pairs):
        return pairs
    resampled = resample_documents(sums.weights, sums.nats_of_runs)
    by_arm = {side.arm: side for side in sides}
    intervals = [
        bootstrap_interval(
            _stack(by_arm[pair.first], pair.seeds, resampled),
            _stack(by_arm[pair.second], pair.seeds, resampled),
        )
        if pair.difference is not None and pair.difference.n_seeds >= LEAST_SEEDS
        else None
        for pair in pairs
    ]
    return [replace(p, bootstrap=found) for p, found in zip(pairs, intervals, strict=True)]


def _compare_pair(first: Side, second: Side, sums: ScoreSums, seeds_of: SeedsJudged) -> Pair:
    with_scores = common_seeds(first, second, set(first.runs), set(second.runs))
    with_sums = common_seeds(first, second, set(first.judged), set(second.judged))
    seeds = with_sums or with_scores
    if not seeds:
        remark = "no seed in common: no number."
        return Pair(first.arm, second.arm, None, reason="no seed in common", remark=remark)
    remark = _remark(first, second, seeds)
    if not with_sums or not sums.nats_of_runs:
        differences = [first.score(seed) - second.score(seed) for seed in seeds]
        remark, value = remark or NO_SUMS, mean(differences)
        reason: NoVerdict = "no sums by document"
        return Pair(first.arm, second.arm, value, seeds, reason=reason, remark=remark)
    of_first, of_second = (_stack(s, seeds, sums.nats_of_runs) for s in (first, second))
    nats = of_first - of_second
    own = measure_difference(sums.weights, nats, sums.clusters)
    pair = Pair(
        first=first.arm,
        second=second.arm,
        mean=own.mean,
        seeds=seeds,
        n_seeds_lower=int((nats.sum(axis=-1) < 0).sum()),
        documents=_spread_documents(sums.weights, nats),
        flips=count_flips(of_first, of_second) if sums.is_task else None,
        remark=remark,
    )
    if not {first.arm, second.arm} <= seeds_of.complete:
        return replace(pair, reason="incomplete arm")
    if seeds_of.layout is None or (first.is_constant and second.is_constant):
        interval = interval_of(own)
        return replace(pair, difference=own, interval=interval, plain=interval)
    return _with_common_variance(pair, own, seeds_of.layout, first, second)


def _with_common_variance(
    pair: Pair, own: Difference, layout: Layout, first: Side, second: Side
) -> Pair:
    """The pair with its shrunken error; without a verdict where seeds are too few."""
    has_constant = first.is_constant or second.is_constant
    common = layout.of_constant if has_constant else layout.of_trained
    difference = _shrink(own, common, layout.n_arms)
    if own.n_seeds == 2 and layout.n_arms >= ARMS_FOR_RARE and not has_constant:
        difference = replace(difference, rare_variance=float(common.value) / own.n_seeds)
    if not layout.is_enough:
        remark = f"no verdict: {layout.n_arms} trained arms allow one from 3 seeds on."
        return replace(
            pair,
            difference=difference,
            reason="too few seeds",
            remark=f"{pair.remark} {remark}".strip(),
        )
    variance = (own.seed_variance or 0.0) * own.n_seeds
    ratio = math.sqrt(variance / float(common.value)) if common.value > 0 else None
    return replace(pair, difference=difference, spread_ratio=ratio)


def _spread_documents(weights: FloatArray, nats: FloatArray) -> DocumentSpread | None:
    """Means over seeds for each document; `nats` is (S seeds, m documents), first minus second."""
    has_targets = weights > 0
    if not has_targets.any():
        return None
    differences = nats.mean(axis=0)[has_targets] / weights[has_targets]
    found = np.quantile(differences, np.asarray(PERCENTS) / 100)
    lower, equal = (differences < 0).mean(), (differences == 0).mean()
    return DocumentSpread(float(lower), float(equal), tuple(map(float, found)))


def _remark(first: Side, second: Side, seeds: tuple[int, ...]) -> str:
    parts = [] if len(seeds) > 1 else [f"{ONE_SEED}."]
    for side, other in ((first, second), (second, first)):
        left_out = sorted(set(side.runs) - set(seeds))
        if left_out and not side.is_constant:
            names = ", ".join(map(str, left_out))
            parts.append(f"seed {names} of {side.arm} is left out: {other.arm} lacks it.")
    return " ".join(parts)


def _stack(side: Side, seeds: tuple[int, ...], of_runs: Mapping[str, FloatArray]) -> FloatArray:
    return np.stack([of_runs[side.run(seed).run_id] for seed in seeds])


def _left_out(arms: tuple[ArmSummary, ...], sides: list[Side], key: ScoreKey) -> list[str]:
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
