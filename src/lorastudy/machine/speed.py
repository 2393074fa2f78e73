"""How fast this machine computes, from half a second of products, passes and small operations.

Three numbers are enough for a rough prediction of a run: products of matrices are limited by
arithmetic, functions of each element by passes over arrays, and a small model by the time that
torch needs to start an operation.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

_ROWS = 512  # of the products and passes; about a micro-batch
_WIDEST = 1024  # wider products are not faster
_LARGE = 1 << 21  # numbers of a pass
_SECONDS = 0.15  # for each of the three numbers


@dataclass(frozen=True, slots=True)
class MachineSpeed:
    """What a device does in one second."""

    flops: float  # of matrix products in the precision that was asked for
    passed_bytes: float  # read and written by a function of each element, such as exp
    operations: float  # started, each on a small array


@lru_cache(maxsize=4)  # a program that checks several studies measures once
def measure_speed(device: torch.device, precision: str, width: int) -> MachineSpeed:
    """The speed of `device` for a model of hidden size `width`, with torch's present threads."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    width = min(width, _WIDEST)
    x = torch.randn(_ROWS, width, device=device, dtype=dtype)
    weight = torch.randn(width, 4 * width, device=device, dtype=dtype)
    product, large = x @ weight, torch.zeros(_LARGE, device=device)
    passed = torch.empty_like(large)
    small = torch.randn(8, 8, device=device)
    products = _count_per_second(lambda: torch.mm(x, weight, out=product), device)
    passes = _count_per_second(lambda: torch.exp(large, out=passed), device)
    operations = _count_per_second(lambda: torch.add(small, small), device)
    return MachineSpeed(
        flops=products * 2.0 * _ROWS * width * 4 * width,
        passed_bytes=passes * 2.0 * large.nbytes,
        operations=operations,
    )


def _count_per_second(act: Callable[[], object], device: torch.device) -> float:
    """How often `act` can be done in a second; the fastest of three measurements."""
    for _ in range(3):  # torch and the caches get ready
        act()
    best = 0.0
    for _ in range(3):
        n, began = 0, time.perf_counter()
        while (seconds := time.perf_counter() - began) < _SECONDS / 3:
            for _ in range(4):
                act()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            n += 4
        best = max(best, n / seconds)
    return best
