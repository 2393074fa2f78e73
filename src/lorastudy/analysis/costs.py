"""What every arm costs, as its runs measured it; one place for fronts, ratios and limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lorastudy.analysis.evidence import Evidence, stored_size
from lorastudy.analysis.summary import ArmSummary

CostName = Literal["trained parameters", "peak memory", "stored size", "training time"]
ABOUT_SAME = 0.03  # ratios of costs that are so close to 1 are called about the same


@dataclass(frozen=True, slots=True)
class Cost:
    """One cost of an arm, in parameters, bytes or seconds."""

    mean: float  # over its runs
    highest: float  # of its runs


@dataclass(frozen=True, slots=True)
class CostRatio:
    """A cost of one arm as a multiple of what another arm costs; means over seeds."""

    name: CostName
    ratio: float

    @property
    def is_lower(self) -> bool:
        """The first arm is cheaper by more than what is called about the same."""
        return self.ratio < 1 - ABOUT_SAME


def measure_costs(arm: ArmSummary, evidence: Evidence, kind: str | None) -> dict[CostName, Cost]:
    """The costs of `arm` that are known; `kind` is that of peak memory."""
    found: dict[CostName, Cost] = {}
    if arm.trainable_parameters is not None:
        found["trained parameters"] = Cost(arm.trainable_parameters, arm.trainable_parameters)
    if (memory := arm.peak_memory_bytes(kind)) is not None:
        found["peak memory"] = Cost(memory.mean, memory.highest)
    if (size := stored_size(arm, evidence)) is not None:
        found["stored size"] = Cost(size.n_bytes, size.n_bytes)
    if (seconds := arm.train_seconds) is not None:
        found["training time"] = Cost(seconds.mean, seconds.highest)
    return found


def compare_costs(
    first: Mapping[CostName, Cost], second: Mapping[CostName, Cost], without: Sequence[CostName]
) -> tuple[CostRatio, ...]:
    """The costs that both arms have, as ratios; none of those named in `without`."""
    return tuple(
        CostRatio(name, cost.mean / second[name].mean)
        for name, cost in first.items()
        if name not in without and name in second and second[name].mean
    )
