"""How long it takes to build the report of a finished study, in seconds.

    python measure.py STUDY_DIR [--repeats 5]

Every repeat is a fresh process of the `lorastudy` that Python finds, so another version is
measured with PYTHONPATH. "start" is a process that only imports what a report needs; "report"
is `lorastudy report STUDY_DIR`; "build" is the difference of their medians. The two take turns.
CPU seconds stand beside wall seconds: where they are much lower, other programs held the cores.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

IMPORTS = (
    "import jinja2, lorastudy.cli, lorastudy.cli.show, lorastudy.report.build, matplotlib.figure, "
    "matplotlib.backends.backend_agg, matplotlib.backends.backend_pdf, "
    "matplotlib.backends.backend_svg, numpy, pydantic, scipy.special"
)


@dataclass(frozen=True)
class Seconds:
    """What one process took."""

    wall: float
    cpu: float


def measure(arguments: list[str]) -> Seconds:
    """What a Python process with these arguments takes, from start to end."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Seconds(wall, cpu)


def middle(found: list[Seconds]) -> Seconds:
    """The median of the wall seconds and that of the CPU seconds."""
    return Seconds(
        statistics.median(s.wall for s in found), statistics.median(s.cpu for s in found)
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Seconds of `lorastudy report STUDY_DIR`.")
    parser.add_argument("study_dir", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    starts, reports = [], []
    for _ in range(given.repeats):
        starts.append(measure(["-c", IMPORTS]))
        reports.append(measure(["-m", "lorastudy", "report", str(given.study_dir)]))
    start, report = middle(starts), middle(reports)
    build = Seconds(report.wall - start.wall, report.cpu - start.cpu)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {given.repeats} repeats")
    for name, seconds in (("start", start), ("report", report), ("build", build)):
        print(f"{name:8}{seconds.wall:6.2f} s wall{seconds.cpu:6.2f} s CPU")


if __name__ == "__main__":
    main()
