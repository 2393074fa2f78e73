"""What tuning did to each benchmark: every trained arm minus the baseline.

On a benchmark with the role `forgetting` (text unlike the training data), a loss above that of the
baseline is what was forgotten. On a test, a loss below it is what was gained.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from lorastudy.analysis.pairs import Comparison, Pair
from lorastudy.analysis.summary import ArmSummary, ScoreKey

Role = Literal["test", "forgetting"]


@dataclass(frozen=True, slots=True)
class Change:
    """One trained arm minus the baseline under one score."""

    key: ScoreKey
    role: Role
    pair: Pair  # the trained arm first


def measure_changes(
    arms: Sequence[ArmSummary], comparisons: Sequence[Comparison], forgetting: Collection[str]
) -> tuple[Change, ...]:
    """Every trained arm minus the baseline, forgetting first; none without a baseline.

    `forgetting` are the benchmarks that have this role.
    """
    baselines = [arm.arm for arm in arms if arm.is_baseline]
    trained = [arm.arm for arm in arms if not arm.is_baseline]
    changes = [
        Change(c.key, "forgetting" if c.key.benchmark in forgetting else "test", pair)
        for c in comparisons
        for baseline in baselines
        for arm in trained
        if (pair := c.find_pair(arm, baseline)) is not None
    ]
    return tuple(sorted(changes, key=lambda change: change.role))
