"""One side of a comparison as a process that works on command and tells what it cost.

A line on standard input starts a step; a JSON line on standard output reports it.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path


def resident_bytes() -> int:
    """Peak of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(**values: object) -> None:
    """Write one JSON line where the driver reads."""
    os.write(_OUT, (json.dumps(values) + "\n").encode())


def wait_for_turn() -> tuple[float, float]:
    """Block until the driver says so; wall and process seconds at that moment."""
    if not sys.stdin.readline():
        os._exit(0)
    return time.perf_counter(), time.process_time()


def report_step(begin: tuple[float, float], n_tokens: int) -> None:
    """Tell what the step since `begin` cost."""
    report(
        seconds=time.perf_counter() - begin[0],
        cpu_seconds=time.process_time() - begin[1],
        tokens=n_tokens,
        peak_bytes=resident_bytes(),
    )


def silence_output() -> None:
    """Let libraries print to standard error; standard output is for reports."""
    os.dup2(2, 1)


_OUT = os.dup(1)
HERE = Path(__file__).resolve().parent
