"""Which arms are worth their cost: quality against parameters, memory, time and stored size.

An arm is on the front if no arm of equal or lower cost has a lower mean loss. Another arm is
excluded only if it is *separated* from an arm of equal or lower cost; a difference that chance
explains excludes nothing. Costs are those that were measured, as means over seeds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lorastudy.analysis import costs
from lorastudy.analysis.costs import measure_costs
from lorastudy.analysis.evidence import Evidence
from lorastudy.analysis.pairs import Comparison, choose_main
from lorastudy.analysis.statistics import Estimate, estimate_mean
from lorastudy.analysis.summary import ArmSummary, ScoreKey
from lorastudy.units import MIB

CostName = Literal["trainable parameters", "peak memory", "training time", "stored size"]
Standing = Literal["front", "not excluded", "excluded"]
UNITS: dict[CostName, str] = {
    "trainable parameters": "parameters",
    "peak memory": "MiB",
    "training time": "seconds",
    "stored size": "MiB",
}


_MEASURED: dict[CostName, tuple[costs.CostName, int]] = {  # what is measured, and its unit here
    "trainable parameters": ("trained parameters", 1),
    "peak memory": ("peak memory", MIB),
    "training time": ("training time", 1),
    "stored size": ("stored size", MIB),
}


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """One arm: what it costs, and its loss in nats per target."""

    arm: str
    position: int  # in the study
    cost: float
    loss: Estimate
    standing: Standing


@dataclass(frozen=True, slots=True)
class Front:
    """All trained arms under one score and one cost, cheapest first."""

    key: ScoreKey
    cost: CostName
    points: tuple[FrontPoint, ...]


def find_fronts(
    arms: Sequence[ArmSummary],
    comparisons: Sequence[Comparison],
    evidence: Evidence,
    kind: str | None,
) -> tuple[Front, ...]:
    """One front for each benchmark, under its first protocol of text, and each cost.

    `kind` is that of peak memory.
    """
    measured = {arm.arm: measure_costs(arm, evidence, kind) for arm in arms}

    def list_values(cost: CostName) -> dict[str, float]:
        name, unit = _MEASURED[cost]
        return {arm: of_arm[name].mean / unit for arm, of_arm in measured.items() if name in of_arm}

    return tuple(
        _find_front(comparison, cost, list_values(cost), arms)
        for comparison in choose_main(comparisons)
        for cost in _MEASURED
    )


def _find_front(
    comparison: Comparison,
    cost: CostName,
    values: Mapping[str, float],
    arms: Sequence[ArmSummary],
) -> Front:
    known = [
        (value, position, arm.arm, loss)
        for position, arm in enumerate(arms)
        if not arm.is_baseline
        and (value := values.get(arm.arm)) is not None
        and (loss := estimate_mean(arm.sample(comparison.key).losses)) is not None
        and math.isfinite(loss.mean)
    ]
    points = []
    for value, position, name, loss in sorted(known, key=lambda k: (k[0], k[1])):
        rivals = [(a, x) for v, _, a, x in known if v <= value and a != name]
        standing: Standing = "front"
        if any(comparison.has_lower(rival, than=name) for rival, _ in rivals):
            standing = "excluded"
        elif any(x.mean < loss.mean for _, x in rivals):
            standing = "not excluded"
        points.append(FrontPoint(name, position, value, loss, standing))
    return Front(comparison.key, cost, tuple(points))
