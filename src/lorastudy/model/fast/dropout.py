"""Dropout that costs little on a CPU.

torch draws CPU dropout masks one element at a time on one thread (about 5 ns each), and keeps them
together with the input. Here 16 random bits decide about an element, so each 64-bit number serves
four elements, and one byte per element is kept. A rate is exact to 1 / 65,536. Bits come from
NumPy's SFC64, its fastest generator, seeded for each mask by torch's default generator, so
`torch.manual_seed` fixes them. Other devices use torch's own kernel.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_LEVELS = 1 << 16  # values of 16 random bits
_ELEMENTS = 1 << 18  # drawn at once, so that their bits stay in a cache


def draw_keep_mask(
    shape: torch.Size | tuple[int, ...], rate: float, device: torch.device
) -> Tensor:
    """1 for kept elements, else 0: int8 of `shape`; each element is dropped with `rate`."""
    if device.type != "cpu" or torch.compiler.is_compiling():
        keep = torch.empty(shape, dtype=torch.int8, device=device)
        return keep.bernoulli_(1.0 - rate)
    kept = np.empty(torch.Size(shape).numel(), dtype=np.bool_)
    seed = int(torch.randint(torch.iinfo(torch.int64).max, ()))
    generator = np.random.Generator(np.random.SFC64(seed))
    threshold = round(rate * _LEVELS) - _LEVELS // 2
    for begin in range(0, len(kept), _ELEMENTS):
        part = kept[begin : begin + _ELEMENTS]
        words = generator.integers(1 << 64, size=(len(part) + 3) // 4, dtype=np.uint64)
        np.greater_equal(words.view(np.int16)[: len(part)], threshold, out=part)
    return torch.from_numpy(kept).view(torch.int8).view(shape)


def apply_mask(x: Tensor, mask: Tensor) -> Tensor:
    """`x * mask` in the dtype of `x`; on a CPU it is faster to turn bytes into floats first."""
    return mask.to(x.dtype).mul_(x)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        mask = draw_keep_mask(x.shape, rate, x.device)
        ctx.save_for_backward(mask)
        ctx.scale = 1.0 / (1.0 - rate)
        return apply_mask(x, mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return apply_mask(gradient, mask).mul_(ctx.scale), None


def drop(x: Tensor, rate: float) -> Tensor:
    """`x` with elements set to zero at `rate` and the others divided by `1 - rate`."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return nn.functional.dropout(x, rate, training=True)
    dropped: Tensor = _Dropout.apply(x, rate)  # type: ignore[no-untyped-call]
    return dropped


class FastDropout(nn.Dropout):
    """`nn.Dropout` through `drop`."""

    def forward(self, input: Tensor) -> Tensor:
        """The input itself in evaluation mode."""
        return drop(input, self.p) if self.training and self.p > 0 else input
