"""How many threads compute a run on a CPU."""

import os
from contextlib import suppress
from pathlib import Path

from lorastudy.errors import ConfigError

_CGROUPS = Path("/sys/fs/cgroup")
_MOST_PER_CORE = 4  # threads that are asked for; far more cannot even be started
_FEW = 8  # threads that may be asked for on any machine
# How threads wait, as GNU's and LLVM's OpenMP read it when they are loaded: spinning as long as by
# default, but not at all while a process has more threads than there are cores (libgomp's
# throttled spin count is 100 by default, and 0 where the policy is passive).
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}


def share_cores(n_processes: int) -> int:
    """Threads of one of `n_processes` that compute at once: its share of the cores, at least 1.

    OMP_NUM_THREADS is the most that a process takes.
    """
    most = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    n_cores = count_cores()
    share = max(1, n_cores // n_processes)
    is_number = most.isascii() and most.isdecimal()
    return min(share, int(most)) if is_number and int(most) else share


def let_crowded_threads_sleep() -> None:
    """Let threads of processes that load torch after this sleep at once where cores are scarce.

    What the environment says of how threads wait is left as it is, and results stay the same.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ.update(_WAITING)


def refuse_threads(n_threads: int | None) -> None:
    """Check that a number of threads which was asked for is not far above that of the cores.

    Raises:
        ConfigError: It is.
    """
    n_cores = count_cores()
    if n_threads is not None and n_threads > max(_FEW, _MOST_PER_CORE * n_cores):
        raise ConfigError(
            f"--threads {n_threads}: this process may use {n_cores} cores, and that many threads "
            f"would only wait for each other. Give at most {n_cores}."
        )


def count_cores(cgroups: Path = _CGROUPS) -> int:
    """Number of cores that this process may use, which in a container is often not all."""
    n_cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        n_cores = len(os.sched_getaffinity(0))
    quota = _read_quota(cgroups)
    return n_cores if quota is None else max(1, min(n_cores, round(quota)))


def _read_quota(cgroups: Path) -> float | None:
    """The processor time that a container may use per second, in seconds; None: all.

    Source: Documentation/admin-guide/cgroup-v2.rst of the kernel, cpu.max; version 1 has two files.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError):
            used, period = " ".join((cgroups / name).read_text() for name in names).split()
            return int(used) / int(period) if int(used) > 0 else None
    return None
