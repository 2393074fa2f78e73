"""One side of a comparison as a process that works on command and tells what it cost.

A line on standard input starts a step; a JSON line on standard output reports it. On a CPU the
peak is the resident memory of the whole process, on CUDA what was allocated on the device.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path


def side_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that both sides of a comparison take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--texts", default="wikitext-2-train", help="whose lengths rows have")
    parser.add_argument("--arm", default="lora-2")
    parser.add_argument("--mode", default="dynamic", help="of the peer")
    parser.add_argument("--first", choices=["none", "short", "peak"], default="short")
    parser.add_argument("--batch", type=int, default=14, help="rows computed at once")
    parser.add_argument("--micro-batches", type=int, default=1, help="of 14 rows, in a step")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def peak_bytes(device: str = "cpu") -> int:
    """Peak of this process so far."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(**values: object) -> None:
    """Write one JSON line where the driver reads."""
    os.write(_OUT, (json.dumps(values) + "\n").encode())


def wait_for_turn() -> tuple[float, float]:
    """Block until the driver says so; wall and process seconds at that moment."""
    if not sys.stdin.readline():
        os._exit(0)
    return time.perf_counter(), time.process_time()


def report_step(
    begin: tuple[float, float], n_tokens: int, device: str = "cpu", **values: object
) -> None:
    """Tell what the step since `begin` cost, everything that runs on the device included."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    report(
        seconds=time.perf_counter() - begin[0],
        cpu_seconds=time.process_time() - begin[1],
        tokens=n_tokens,
        peak_bytes=peak_bytes(device),
        **values,
    )


def silence_output() -> None:
    """Let libraries print to standard error; standard output is for reports."""
    os.dup2(2, 1)


_OUT = os.dup(1)
