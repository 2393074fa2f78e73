"""Frozen weights that are held in fewer bits than the products are computed in.

A weight is widened for one product, forward and again backward, so autograd keeps what is held and
never its wider copy. bfloat16 weights are tensors of that type. Those of bitsandbytes are packed:
integers beside the scales of rows (int8) or of blocks of 64 numbers (nf4).
"""

import math
from collections.abc import Iterator
from copy import copy
from typing import Any

import torch
from torch import Tensor


def is_packed(weight: Tensor) -> bool:
    """Whether a weight has to be unpacked before its elements are numbers."""
    return not weight.is_floating_point()


def widen(weight: Tensor, dtype: torch.dtype, rows: slice | None = None) -> Tensor:
    """The numbers that `weight` stands for, in `dtype`: (out, in) where it is packed.

    `rows`: only these, which begin and end where `cut_rows` cuts.
    """
    rows = slice(0, len_of(weight)) if rows is None else rows
    if not is_packed(weight):
        return weight[rows].to(dtype)
    if weight.dtype == torch.int8:
        scales: Tensor = weight.SCB  # type: ignore[attr-defined]
        by_row = (scales.to(weight.device)[rows, None] / 127).to(dtype)
        return weight.detach()[rows].to(dtype).mul_(by_row)
    return _unpack_4_bits(weight.detach().view(-1, 1), weight.quant_state, rows).to(dtype)  # type: ignore[attr-defined]


def _unpack_4_bits(packed: Tensor, stored: Any, rows: slice) -> Tensor:
    """Rows of a weight in nf4: two numbers in a byte, and a scale for each block of them."""
    from bitsandbytes.functional import dequantize_4bit

    n_out, n_in = stored.shape
    begin, end = rows.start * n_in, min(rows.stop, n_out) * n_in
    state = copy(stored)
    state.nested, state.state2, state.offset = False, None, None
    state.absmax = _scales(stored, begin // stored.blocksize, -(-end // stored.blocksize))
    # As one long row: with AVX-512, bitsandbytes 0.50 mixes up scales if a block spans two rows.
    state.shape = torch.Size((end - begin,))
    numbers: Tensor = dequantize_4bit(packed[begin // 2 : (end + 1) // 2], state)
    return numbers.view(-1, n_in)


def _scales(stored: Any, begin: int, end: int) -> Tensor:
    """Scales of the blocks from `begin` to `end`, which nf4-double packs by blocks as well."""
    if not stored.nested:
        scales: Tensor = stored.absmax[begin:end]
        return scales
    from bitsandbytes.functional import dequantize_blockwise

    state = copy(stored.state2)
    first = begin // state.blocksize
    state.absmax = state.absmax[first : -(-end // state.blocksize)]
    begin_of_first = first * state.blocksize
    wide: Tensor = dequantize_blockwise(stored.absmax[begin_of_first:end], state) + stored.offset
    return wide[begin - begin_of_first :]


def cut_rows(weight: Tensor, n_most: int) -> Iterator[slice]:
    """The rows of a weight in parts of about `n_most` numbers, with whole blocks where packed."""
    n_out = len_of(weight)
    n_in = count_elements(weight) // n_out
    state = getattr(weight, "quant_state", None)
    step = 1 if state is None else state.blocksize // math.gcd(n_in, state.blocksize)
    n_rows = max(step, n_most // n_in // step * step)
    return (slice(begin, begin + n_rows) for begin in range(0, n_out, n_rows))


def len_of(weight: Tensor) -> int:
    """The number of rows, (out), that `weight` stands for."""
    state = getattr(weight, "quant_state", None)
    return len(weight) if state is None else int(state.shape[0])


def count_elements(weight: Tensor) -> int:
    """The number of numbers that `weight` stands for."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else torch.Size(state.shape).numel()
