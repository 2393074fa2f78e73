"""Helpers of the reliability figures: a row to print, and trials that run side by side.

Every figure is a test here; `./run test tests/reliability -s` prints all their rows.
"""

import os
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

from support.tiny_runs import start_child, wait_for_child


@dataclass
class Row:
    """One figure: printed when it is complete, `R1 | 212 of 212 ... | 41.3 s`."""

    name: str
    _began: float = field(default_factory=time.perf_counter)

    def show(self, text: str) -> None:
        print(f"\n{self.name} | {text} | {time.perf_counter() - self._began:.1f} s")


def count_failures(trials: Sequence[Callable[[], object]]) -> int:
    """How many of `trials` fail; every core carries out its share of them in a fork.

    If some fail, what was written to standard error is printed. A fork that dies counts as well.
    """
    n_cores = len(os.sched_getaffinity(0))
    shares = [trials[core::n_cores] for core in range(n_cores)]
    with tempfile.TemporaryFile() as log:
        forks = [start_child(partial(_carry_out, share, log.fileno())) for share in shares]
        failed = sum(abs(wait_for_child(fork)) for fork in forks)
        log.seek(0)
        if failed:
            print(log.read().decode())
    return failed


def _carry_out(trials: Sequence[Callable[[], object]], log: int) -> NoReturn:
    """Carry out `trials` one after the other, and end with the number of those that fail."""
    os.dup2(log, 2)
    failed = 0
    for trial in trials:
        try:
            trial()
        except BaseException:
            failed += 1
            os.write(log, traceback.format_exc().encode())
    os._exit(min(failed, 255))
