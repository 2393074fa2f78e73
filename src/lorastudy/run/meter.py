"""Seconds and memory of a run so far, including those before it was resumed."""

import time
from dataclasses import dataclass

import numpy as np

from lorastudy.machine.memory import measure_peak_memory
from lorastudy.run.context import RunContext
from lorastudy.store.training_state import TrainerState


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMeter:
    """Seconds and peak memory of a run."""

    context: RunContext
    began: float  # of this process, by `time.perf_counter`
    before: TrainerState | None = None  # of the checkpoint from which it continued

    @property
    def total_seconds(self) -> float:
        """Seconds of the run so far."""
        now = time.perf_counter() - self.began
        return now if self.before is None else now + self.before.total_seconds

    @property
    def peak_memory_bytes(self) -> dict[str, int]:
        """Highest memory so far of any member, by kind; all members have to call this."""
        now = measure_peak_memory(self.context.device)
        highest = self.context.team.highest(np.array(list(now.values()))).tolist()
        by_kind = dict(zip(now, highest, strict=True))
        for kind, earlier in (self.before.peak_memory_bytes if self.before else {}).items():
            by_kind[kind] = max(earlier, by_kind.get(kind, 0))
        return by_kind
