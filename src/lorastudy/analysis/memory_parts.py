"""The memory of each arm by part: predicted before its runs, and measured in them."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorastudy.analysis.evidence import Evidence
from lorastudy.analysis.summary import ArmSummary
from lorastudy.store.memory_parts import HeldMemory, PredictedMemory


@dataclass(frozen=True, slots=True)
class ArmMemory:
    """Predicted and measured bytes of one arm; measured is its run with the highest peak."""

    arm: str
    predicted: PredictedMemory
    held: HeldMemory
    peak: int  # net of libraries

    @property
    def passing(self) -> int:
        """What came and went within a step: the peak without what is held."""
        return self.peak - self.held.kept

    @property
    def predicted_peak(self) -> int:
        """Net of libraries."""
        parts = self.predicted
        return parts.weights + parts.gradients + parts.optimizer + parts.passing


def compare_memory(
    arms: Sequence[ArmSummary], evidence: Evidence, kind: str | None
) -> tuple[ArmMemory, ...]:
    """The arms whose prediction and measurement are both known; `kind` is that of peak memory."""
    lock = evidence.lock
    predicted = {parts.arm: parts for parts in lock.predicted} if lock is not None else {}
    found = []
    for arm in arms:
        before = predicted.get(arm.arm)
        measured = [
            ArmMemory(arm.arm, before, held, run.peak_memory_bytes[kind] - held.libraries)
            for run in arm.runs
            if (held := run.held) is not None
            and before is not None
            and kind in run.peak_memory_bytes
            # both on a CPU, or both on a device with its own memory
            and bool(held.libraries) == bool(before.libraries)
        ]
        found += [max(measured, key=lambda one: one.peak)] if measured else []
    return tuple(found)
