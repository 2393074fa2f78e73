"""The arms of a comparison and their seeds: which of them are judged together.

Trained arms are judged on the same seeds. An arm with fewer seeds than others, because runs
failed, are missing or have no sums by document, takes no part.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorastudy.analysis.layout import Layout, SeedSpread, compare_spreads, measure_layout
from lorastudy.analysis.score_sums import ScoreSums
from lorastudy.analysis.summary import ArmSummary, ScoreKey, score_key
from lorastudy.store.records import RunResult


@dataclass(frozen=True, slots=True)
class Side:
    """One arm of a pair: its runs by seed, or the one run that stands for all seeds."""

    arm: str
    runs: Mapping[int, RunResult]  # those with a finite score
    scores: Mapping[int, float]
    is_constant: bool
    judged: frozenset[int]  # seeds with sums by document; with scores if no run has sums

    def run(self, seed: int) -> RunResult:
        """The arm's run of `seed`; a constant has one run for all seeds."""
        return next(iter(self.runs.values())) if self.is_constant else self.runs[seed]

    def score(self, seed: int) -> float:
        """The mean loss of `run`, in the unit of its protocol."""
        return next(iter(self.scores.values())) if self.is_constant else self.scores[seed]


@dataclass(frozen=True, slots=True)
class SeedsJudged:
    """The seeds that the trained arms are judged on, and what they tell together."""

    common: frozenset[int]  # empty: there is no trained arm
    complete: frozenset[str]  # arms that have them, and constants
    layout: Layout | None  # of the complete trained arms; None: one seed, or no sums
    spreads: tuple[tuple[str, SeedSpread], ...] = ()

    @property
    def n_trained(self) -> int:
        """Complete trained arms."""
        return 0 if self.layout is None else self.layout.n_arms


def make_side(arm: ArmSummary, key: ScoreKey, sums: ScoreSums) -> Side:
    """The arm's runs that have a finite score, and the seeds that can be judged."""
    scored = {
        run.seed: (run, evaluation.loss)
        for run in arm.runs
        for evaluation in run.evaluations
        if score_key(evaluation) == key and math.isfinite(evaluation.loss)
    }
    has_sums = {s for s, (run, _) in scored.items() if run.run_id in sums.nats_of_runs}
    return Side(
        arm=arm.arm,
        runs={seed: run for seed, (run, _) in scored.items()},
        scores={seed: value for seed, (_, value) in scored.items()},
        is_constant=arm.is_baseline,
        judged=frozenset(has_sums if sums.nats_of_runs else scored),
    )


def find_seeds(sides: Sequence[Side], sums: ScoreSums) -> SeedsJudged:
    """The most seeds that a trained arm has; of several such sets the one that most arms have."""
    trained = [side for side in sides if not side.is_constant]
    constants = [side.arm for side in sides if side.is_constant and side.judged]
    most = max((len(side.judged) for side in trained), default=0)
    if most == 0:
        return SeedsJudged(frozenset(), frozenset(constants), None)
    held = Counter(side.judged for side in trained if len(side.judged) == most)
    common = held.most_common(1)[0][0]  # the first of equals
    complete = [side for side in trained if side.judged == common]
    names = frozenset((*constants, *(side.arm for side in complete)))
    if most < 2 or not sums.nats_of_runs:
        return SeedsJudged(common, names, None)
    order, total = sorted(common), float(sums.weights.sum())
    losses = np.array(
        [
            [float(sums.nats_of_runs[side.run(seed).run_id].sum()) / total for seed in order]
            for side in complete
        ]
    )
    spreads = compare_spreads(losses) or ()
    named = zip((side.arm for side in complete), spreads, strict=False)
    return SeedsJudged(common, names, measure_layout(losses), tuple(named))


def common_seeds(
    first: Side, second: Side, of_first: set[int], of_second: set[int]
) -> tuple[int, ...]:
    """The seeds that both arms have, ascending; a constant has those of the other."""
    if not of_first or not of_second:
        return ()
    if first.is_constant:
        return tuple(sorted(of_second))
    return tuple(sorted(of_first if second.is_constant else of_first & of_second))
