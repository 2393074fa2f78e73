"""Measured memory and processor time of this process."""

import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from lorastudy.units import write_mib


def start_memory_meter(device: torch.device) -> None:
    """Forget earlier peaks, if the device allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def measure_peak_memory(device: torch.device) -> dict[str, int]:
    """Peak bytes so far: `allocated` and `reserved` on CUDA, `resident` of the process always.

    `resident` is the whole process, including libraries, since it was started.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bytes_by_kind = {"resident": peak if sys.platform == "darwin" else peak * 1024}
    if device.type == "cuda":
        bytes_by_kind["allocated"] = torch.cuda.max_memory_allocated(device)
        bytes_by_kind["reserved"] = torch.cuda.max_memory_reserved(device)
    return bytes_by_kind


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes of this process that are in memory now."""

    own: int
    of_files: int  # such as the code of libraries, which is read as it is used; 0: not told apart


def measure_resident() -> Resident:
    """What this process holds, by proc_pid_status(5) on Linux and by psutil elsewhere."""
    import psutil

    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        text = ""
    kilobytes = {kind: int(n) for kind, n in re.findall(r"Rss(Anon|File|Shmem):\s+(\d+)", text)}
    if not kilobytes:
        return Resident(int(psutil.Process().memory_info().rss), 0)
    of_files = kilobytes.pop("File", 0)
    return Resident(1024 * sum(kilobytes.values()), 1024 * of_files)


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """The time in which this process's threads ran, and in which they waited for the CPU."""

    ran_seconds: float
    waited_seconds: float  # ready to run while other programs used the core

    def __sub__(self, earlier: "CpuTimes") -> "CpuTimes":
        """The time that was added since."""
        return CpuTimes(
            self.ran_seconds - earlier.ran_seconds, self.waited_seconds - earlier.waited_seconds
        )


def read_cpu_times() -> CpuTimes | None:
    """The times of all threads so far, as Linux's scheduler counts them; elsewhere None.

    Source: Documentation/scheduler/sched-stats.rst of the kernel, /proc/PID/schedstat.
    """
    ran = waited = 0
    try:
        for path in Path("/proc/self/task").glob("*/schedstat"):
            on_core, in_queue, _ = path.read_text().split()
            ran, waited = ran + int(on_core), waited + int(in_queue)
    except (OSError, ValueError):  # another system, or a thread that ended just now
        return None
    return CpuTimes(ran / 1e9, waited / 1e9) if ran else None


def available_bytes(device: torch.device) -> int:
    """Bytes that a new run could use on `device` now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def total_bytes(device: torch.device) -> int:
    """Bytes of memory that `device` has."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return int(psutil.virtual_memory().total)


def describe_shortage(device: torch.device) -> str:
    """Peak of this process, what is free, and what other processes hold, in MiB."""
    import psutil

    memory = psutil.virtual_memory()
    ours, free, total = psutil.Process().memory_info().rss, int(memory.available), int(memory.total)
    peak = measure_peak_memory(device)["resident"]
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        ours, peak = torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)
    others = max(0, total - free - ours)
    return (
        f"peak {write_mib(peak)} MiB; {write_mib(free)} of {write_mib(total)} MiB are free, "
        f"other processes hold {write_mib(others)} MiB"
    )
