"""Which arms are worth their cost: parameters, memory, time, stored size, and what was forgotten.

An arm is on the front if no arm of equal or lower cost has a lower mean loss. Another arm is
excluded only if it is *separated* from an arm of equal or lower cost; a difference that chance
explains excludes nothing. Costs are those that were measured, as means over seeds. What was
forgotten is the loss minus that of the baseline, as a mean over benchmarks with the role
`forgetting`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lorastudy.analysis import costs
from lorastudy.analysis.costs import measure_costs
from lorastudy.analysis.evidence import Evidence
from lorastudy.analysis.forgetting import Change
from lorastudy.analysis.pairs import Comparison, choose_main
from lorastudy.analysis.statistics import Estimate, estimate_mean
from lorastudy.analysis.summary import ArmSummary, ScoreKey
from lorastudy.units import MIB

CostName = Literal[
    "trainable parameters", "peak memory", "training time", "stored size", "forgotten"
]
Standing = Literal["front", "not excluded", "excluded"]
UNITS: dict[CostName, str] = {
    "trainable parameters": "parameters",
    "peak memory": "MiB",
    "training time": "seconds",
    "stored size": "MiB",
    "forgotten": "nats",
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
    changes: Sequence[Change],
    evidence: Evidence,
    kind: str | None,
) -> tuple[Front, ...]:
    """One front for each benchmark, under its first protocol of text, and each cost.

    `kind` is that of peak memory. What was forgotten is a cost on tests only.
    """
    measured = {arm.arm: measure_costs(arm, evidence, kind) for arm in arms}
    values: dict[CostName, dict[str, float]] = {
        cost: {arm: of[name].mean / unit for arm, of in measured.items() if name in of}
        for cost, (name, unit) in _MEASURED.items()
    }
    main = choose_main(comparisons)
    unlike = {c.key for c in changes if c.role == "forgetting"}
    shown = unlike & {comparison.key for comparison in main}
    values["forgotten"] = _forgotten_nats(change for change in changes if change.key in shown)
    return tuple(
        _find_front(comparison, cost, values[cost], arms)
        for comparison in main
        for cost in UNITS
        if cost != "forgotten" or (values[cost] and comparison.key not in unlike)
    )


def _forgotten_nats(changes: Iterable[Change]) -> dict[str, float]:
    """For each arm, the mean of its changes, nats per target."""
    found: dict[str, list[float]] = {}
    for change in changes:
        if change.pair.mean is not None:
            found.setdefault(change.pair.first, []).append(change.pair.mean)
    return {arm: sum(values) / len(values) for arm, values in found.items()}


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
