"""How the CPU threads of a run wait for each other: spinning, or asleep beside other programs.

Threads of OpenMP wait by spinning, so that they notice at once when the others are ready. If other
programs use the cores, a thread that spins holds the core which the thread it waits for needs, and
a run becomes several times slower. GNU's OpenMP, which torch uses on Linux, does not spin as long
as a process has more of its threads than there are cores (`do_spin` in libgomp's
config/linux/wait.h). So a run that has to wait for cores starts a few idle threads, and ends them
again when the cores are free. The threads that compute are the same, and so are all results.
`benchmarks/busy-machine_2cores_202611` measures what this gains.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lorastudy.machine.memory import CpuTimes, read_cpu_times

LOOK_SECONDS = 0.2  # between two looks at how long threads waited
ASLEEP_SECONDS = 10.0  # in which the cores have to be free before threads spin again
_MOST_WAITED = 0.1  # share of the threads' ready time; about 0.01 where nothing else runs


@contextmanager
def sleep_beside_others() -> Iterator[None]:
    """While the block lasts, threads spin only as long as other programs leave the cores alone."""
    if torch.get_num_threads() == 1 or read_cpu_times() is None:
        yield
        return
    end = threading.Event()
    watcher = threading.Thread(target=_watch, args=(end,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        end.set()
        watcher.join()


def _watch(end: threading.Event) -> None:
    before = read_cpu_times()
    while not end.wait(LOOK_SECONDS):
        now = read_cpu_times()
        if before is not None and now is not None and is_disturbed(now - before):
            idle = threading.Thread(target=_idle, args=(end,), daemon=True)
            idle.start()
            idle.join()
            now = read_cpu_times()
        before = now


def is_disturbed(spent: CpuTimes) -> bool:
    """Whether threads that were ready had to wait for cores which others used."""
    ready = spent.ran_seconds + spent.waited_seconds
    return spent.waited_seconds > _MOST_WAITED * max(ready, LOOK_SECONDS)


def _idle(end: threading.Event) -> None:
    """Be a thread with a team of its own, which ends with it, until the cores are free.

    Threads that sleep while they wait for each other have to wait for cores as others do, so
    there is no need to let them spin in order to find out.
    """
    torch.ones(1 << 20).add_(1)  # large enough to be computed by a team
    before = read_cpu_times()
    while not end.wait(ASLEEP_SECONDS):
        now = read_cpu_times()
        if before is None or now is None or not is_disturbed(now - before):
            return
        before = now
