"""The two sides of a comparison as processes that stay loaded and take turns."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path

from comparisons import Comparison

M, K, N = 1400, 768, 3072  # of the matrix product that both sides do most
HERE = Path(__file__).resolve().parent
Cost = dict[str, float]  # seconds, cpu_seconds, tokens, peak_bytes, and of an evaluation nats


class Side:
    """A process that takes a step when told to."""

    def __init__(
        self, script: str, arguments: list[str], *, folder: Path = HERE, source: Path | None = None
    ) -> None:
        environment = dict(os.environ)
        if source is not None:  # of this package, in place of the installed one
            environment["PYTHONPATH"] = str(source)
        self._process = subprocess.Popen(
            [sys.executable, str(folder / script), *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.start_bytes = 0.0

    def wait_until_ready(self) -> None:
        """Block until everything is loaded."""
        self.start_bytes = self._read()["start_bytes"]

    def _read(self) -> Cost:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            command = " ".join(map(str, self._process.args))
            last = self._process.stderr.read()[-2_000:]
            raise SystemExit(f"a side ended early (exit {self._process.wait()}): {command}\n{last}")
        found: Cost = json.loads(line)
        return found

    def step(self) -> Cost:
        """Take one step; what it cost."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def alternate(
    sides: dict[str, Side], n_steps: int, *, has_first: bool = True
) -> tuple[list[dict[str, Cost]], dict[str, float]]:
    """Steps of the sides in turn, each time in the other order, and bytes at the start.

    Of a first step that is not timed, only the memory counts: peaks are of the whole process.
    """
    try:
        for side in sides.values():
            side.wait_until_ready()
        if has_first:
            for side in sides.values():
                side.step()
        turns = [list(sides.items()), list(reversed(sides.items()))]  # the second one is slower
        steps = [{name: side.step() for name, side in turns[n % 2]} for n in range(n_steps)]
    finally:
        for side in sides.values():
            side.close()
    return steps, {name: side.start_bytes for name, side in sides.items()}


def shared_arguments(row: Comparison, common: list[str], n_steps: int) -> list[str]:
    """What both sides of a row are told."""
    return [
        *common,
        *("--arm", row.arm, "--precision", row.precision, "--texts", row.texts),
        *("--micro-batches", str(row.micro_batches), "--steps", str(n_steps)),
        *("--first", row.first_step),
    ]


def our_arguments(row: Comparison, common: list[str], n_steps: int) -> tuple[str, list[str]]:
    """Our side's script and what it is told."""
    ours = [*shared_arguments(row, common, n_steps), "--batch", str(row.our_batch)]
    ours += ["--mode", row.mode]
    if row.task == "train":
        ours += ["--implementation", row.implementation]
    if row.token_budget is not None:
        ours += ["--token-budget", str(row.token_budget)]
    return ("ours.py" if row.task == "train" else "ours_scores.py"), ours


def compare(row: Comparison, common: list[str], n_steps: int) -> dict[str, object]:
    """Alternate `n_steps` steps of ours and the peer's."""
    peer = [*shared_arguments(row, common, n_steps), "--batch", str(row.peer_batch)]
    peer += ["--mode", row.mode]
    if row.checkpointing:
        peer.append("--checkpointing")
    sides = {  # both stay loaded: on a GPU they share its memory
        "ours": Side(*our_arguments(row, common, n_steps)),
        "peer": Side("peer.py" if row.task == "train" else "peer_scores.py", peer),
    }
    steps, start_bytes = alternate(sides, n_steps, has_first=row.has_first)
    return {"key": row.key, **asdict(row), "steps": steps, "start_bytes": start_bytes}


def measure_ceiling(threads: int, device: str = "cpu") -> dict[str, float]:
    """Billion operations a second of large matrix products, the bound of both sides.

    The faster of torch's own product and of the one that this package uses. Without bfloat16
    where the device has no instructions for it, since one product then takes minutes.
    """
    import torch

    from lorastudy.model.fast.products import multiply

    torch.set_num_threads(threads)
    found = {}
    dtypes = [torch.float32] + [torch.bfloat16] * has_bfloat16(device)
    for dtype in dtypes:
        x, weight = (torch.randn(shape, dtype=dtype, device=device) for shape in ((M, K), (K, N)))
        ways = (torch.nn.functional.linear, multiply)
        seconds = [_median_seconds(partial(way, x, weight.t()), device) for way in ways]
        found[str(dtype).removeprefix("torch.")] = 2 * M * K * N / min(seconds) / 1e9
    return found


def has_bfloat16(device: str) -> bool:
    """Whether bfloat16 is no slower than float32 on `device`."""
    import torch

    from lorastudy.machine.environment import note_precision

    return note_precision(torch.device(device), "bfloat16") is None


def _median_seconds(product: Callable[[], object], device: str) -> float:
    import torch

    seconds = []
    for _ in range(30):
        began = time.perf_counter()
        product()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def describe_machine(threads: int, device: str = "cpu") -> dict[str, object]:
    """Versions and hardware."""
    import torch

    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = [line.split(":")[1].strip() for line in info if "model name" in line]
    flags = {flag for line in info if line.startswith("flags") for flag in line.split()}
    return {
        "processor": torch.cuda.get_device_name()
        if device == "cuda"
        else next(iter(model), "unknown"),
        "instructions": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}),
        "threads": threads,
        "versions": {n: version(n) for n in ("torch", "transformers", "peft", "lorastudy")},
        "matmul_gflops": measure_ceiling(threads, device),
    }
