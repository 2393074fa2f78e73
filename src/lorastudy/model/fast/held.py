"""Frozen weights that are held in fewer bits than the products are computed in.

A weight is widened for one product, forward and again backward, so autograd keeps what is held and
never its wider copy. bfloat16 weights are tensors of that type. Those of bitsandbytes are packed:
integers beside the scales of rows (int8) or of blocks of 64 numbers (nf4).
"""

from copy import copy

import torch
from torch import Tensor


def is_packed(weight: Tensor) -> bool:
    """Whether a weight has to be unpacked before its elements are numbers."""
    return not weight.is_floating_point()


def widen(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers that `weight` stands for, in `dtype`: (out, in) where it is packed."""
    if not is_packed(weight):
        return weight.to(dtype)
    if weight.dtype == torch.int8:
        scales: Tensor = weight.SCB  # type: ignore[attr-defined]
        by_row = (scales.to(weight.device)[:, None] / 127).to(dtype)
        return weight.detach().to(dtype).mul_(by_row)
    from bitsandbytes.functional import dequantize_4bit

    # As one long row: with AVX-512, bitsandbytes 0.50 mixes up scales if a block spans two rows.
    state = copy(weight.quant_state)  # type: ignore[attr-defined]
    shape, state.shape = state.shape, torch.Size((count_elements(weight),))
    numbers: Tensor = dequantize_4bit(weight.detach(), state)
    return numbers.view(shape).to(dtype)


def count_elements(weight: Tensor) -> int:
    """The number of numbers that `weight` stands for."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else torch.Size(state.shape).numel()
