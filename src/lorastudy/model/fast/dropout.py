"""Dropout that costs little on a CPU.

torch draws CPU dropout masks one element at a time on one thread (about 5 ns each), and keeps
them with the activation that went in. Here 16 random bits decide an element, four elements
for each 64-bit number drawn, and one byte an element is kept. A rate is honoured to
1 / 65,536. Bits come from torch's default generator, so `torch.manual_seed` fixes them.
Other devices use torch's own kernel.
"""

from typing import Any

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16  # values of 16 random bits


def draw_keep_mask(
    shape: torch.Size | tuple[int, ...], rate: float, device: torch.device
) -> Tensor:
    """1 where an element is kept, else 0: int8 of `shape`; each is dropped with `rate`."""
    if device.type != "cpu":
        keep = torch.empty(shape, dtype=torch.int8, device=device)
        return keep.bernoulli_(1.0 - rate)
    n = torch.Size(shape).numel()
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    threshold = round(rate * _LEVELS) - _LEVELS // 2
    keep = words.view(torch.int16)[:n] >= threshold
    return keep.view(torch.int8).view(shape)


def apply_mask(x: Tensor, mask: Tensor) -> Tensor:
    """`x * mask` in the dtype of `x`; turning bytes to floats first is the faster way on a CPU."""
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
    if x.device.type != "cpu":
        return nn.functional.dropout(x, rate, training=True)
    dropped: Tensor = _Dropout.apply(x, rate)  # type: ignore[no-untyped-call]
    return dropped


class FastDropout(nn.Dropout):
    """`nn.Dropout` through `drop`."""

    def forward(self, input: Tensor) -> Tensor:
        """The input itself in evaluation mode."""
        return drop(input, self.p) if self.training and self.p > 0 else input
