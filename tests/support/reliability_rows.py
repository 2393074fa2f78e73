"""Helpers of the reliability figures: a row to print, and trials that run side by side.

Every figure is a test here; `./run test tests/reliability -s` prints all their rows.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from support.tiny_runs import start_child, wait_for_child


@dataclass
class Row:
    """One figure: printed when it is complete, `R1 | 212 of 212 ... | 41.3 s`."""

    name: str
    _began: float = field(default_factory=time.perf_counter)

    def show(self, text: str) -> None:
        print(f"\n{self.name} | {text} | {time.perf_counter() - self._began:.1f} s")


def count_failures(trials: Sequence[Callable[[], object]]) -> int:
    """How many of `trials` fail, each in a fork of its own, as many at once as there are cores.

    What the failed ones wrote to standard error is printed.
    """
    waiting, running, failed = list(reversed(trials)), {}, 0
    n_cores = len(os.sched_getaffinity(0))
    while waiting or running:
        while waiting and len(running) < n_cores:
            with tempfile.TemporaryFile() as log:
                said = os.dup(log.fileno())
            running[start_child(_quietly(waiting.pop(), said))] = said
        process = next(iter(running))
        code, said = wait_for_child(process), running.pop(process)
        if code != 0:
            failed += 1
            os.lseek(said, 0, os.SEEK_SET)
            print(os.read(said, 1_000_000).decode())
        os.close(said)
    return failed


def _quietly(trial: Callable[[], object], said: int) -> Callable[[], object]:
    def carry_out() -> None:
        os.dup2(said, 2)
        trial()

    return carry_out
