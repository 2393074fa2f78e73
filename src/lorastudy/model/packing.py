"""Let bitsandbytes pack a weight part by part, so that its wider copies exist for one part only.

bitsandbytes packs a weight as a whole. On a CPU, nf4 then takes four copies of it in 32 bits.
Scales belong to rows or to blocks of 64 numbers, so parts give the same bits. transformers calls
two functions of bitsandbytes for this, which are replaced while a model is loaded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lorastudy.machine.environment import release_free_memory

_PART = 1 << 18  # numbers of a weight that are packed at once; a multiple of every block's size


@contextmanager
def packing_by_parts() -> Iterator[None]:
    """While the block lasts, weights are packed part by part: in int8, and on a CPU in 4 bits."""
    from bitsandbytes import functional

    in_4_bits, in_8_bits = functional.quantize_4bit, functional.int8_vectorwise_quant

    def pack_4_bits(weight: Tensor, *, compress_statistics: bool, **how: Any) -> Any:
        release_free_memory()  # what the weight before this one left
        if weight.device.type != "cpu":
            return in_4_bits(weight, compress_statistics=compress_statistics, **how)
        parts = [in_4_bits(part, **how) for part in weight.view(-1).split(_PART)]
        scales = torch.cat([state.absmax for _, state in parts])
        nested: dict[str, Any] = {}
        if compress_statistics:  # the scales are packed themselves, as bitsandbytes does it
            offset = scales.mean()
            scales, inner = functional.quantize_blockwise(scales - offset, blocksize=256)
            nested = {"offset": offset, "state2": inner}
        first = parts[0][1]
        state = functional.QuantState(
            absmax=scales,
            shape=weight.shape,
            dtype=weight.dtype,
            blocksize=first.blocksize,
            code=first.code,
            quant_type=first.quant_type,
            **nested,
        )
        return torch.cat([packed for packed, _ in parts]), state

    def pack_8_bits(weight: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor, None]:
        release_free_memory()
        n_rows = max(1, _PART // weight.shape[1])
        parts = [in_8_bits(rows, threshold) for rows in weight.split(n_rows)]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), None

    functional.quantize_4bit, functional.int8_vectorwise_quant = pack_4_bits, pack_8_bits
    try:
        yield
    finally:
        functional.quantize_4bit, functional.int8_vectorwise_quant = in_4_bits, in_8_bits
