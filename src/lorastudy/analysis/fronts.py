"""Which arms are worth their cost: quality against parameters, memory, time and stored size.

An arm is on the front if no arm of equal or lower cost has a lower mean loss. Another arm is
excluded only if it is *separated* from an arm of equal or lower cost; a difference that chance
explains excludes nothing. Costs are those that were measured, as means over seeds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lorastudy.analysis.evidence import Evidence, stored_size
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
    readers: dict[CostName, Callable[[ArmSummary], float | None]] = {
        "trainable parameters": lambda arm: arm.trainable_parameters,
        "peak memory": lambda arm: _mean(arm.peak_memory_bytes(kind), MIB),
        "training time": lambda arm: _mean(arm.train_seconds, 1),
        "stored size": lambda arm: _stored_mib(arm, evidence),
    }
    return tuple(
        _find_front(comparison, cost, read, arms)
        for comparison in choose_main(comparisons)
        for cost, read in readers.items()
    )


def _find_front(
    comparison: Comparison,
    cost: CostName,
    read: Callable[[ArmSummary], float | None],
    arms: Sequence[ArmSummary],
) -> Front:
    known = [
        (value, position, arm.arm, loss)
        for position, arm in enumerate(arms)
        if not arm.is_baseline
        and (value := read(arm)) is not None
        and (loss := estimate_mean(arm.sample(comparison.key).cross_entropies)) is not None
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


def _mean(estimate: Estimate | None, unit: int) -> float | None:
    return None if estimate is None else estimate.mean / unit


def _stored_mib(arm: ArmSummary, evidence: Evidence) -> float | None:
    size = stored_size(arm, evidence)
    return None if size is None else size.n_bytes / MIB
