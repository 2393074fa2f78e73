"""Attention within rows on a CPU: block after block of queries, with dropout.

Shapes: H = heads, T = tokens of all rows, L = tokens of one row, D = width of a head.

One autograd function keeps the queries, keys, values and one byte per weight, and computes the
weights again in the backward pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise, repeat
from typing import Any

import torch
from torch import Tensor

from lorastudy.model.fast.dropout import apply_mask, draw_keep_masks_of_rows, scale_of_kept
from lorastudy.model.fast.flat_rows import Attention
from lorastudy.model.fast.frozen import runs_low

_QUERIES = 64  # about as many of a row at once; later keys are not computed for them


def attend_by_blocks(query: Tensor, key: Tensor, value: Tensor, attention: Attention) -> Tensor:
    """(1, H, T, D) each -> (1, T, H, D); weights are float32, or float64 in tests.

    Under autocast, inputs and output are rounded to bfloat16.
    """
    attended: Tensor = _BlockAttention.apply(  # type: ignore[no-untyped-call]
        query[0], key[0], value[0], attention
    )
    return attended[None]


@lru_cache(maxsize=4)
def causal_bias(size: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """0 where a key may be seen, and -inf elsewhere, (size, size)."""
    bias = torch.full((size, size), float("-inf"), dtype=dtype).triu_(1)
    if window is not None:
        bias += torch.full((size, size), float("-inf"), dtype=dtype).tril_(-window)
    return bias


def _round_up(length: int) -> int:
    return -(-length // 256) * 256  # few sizes, so that the cached bias is rarely computed again


class _BlockAttention(torch.autograd.Function):
    """Softmax attention of one row after another, with dropout on its weights."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, attention: Attention
    ) -> Tensor:
        """From (H, T, D) each to (T, H, D)."""
        ctx.attention = attention
        ctx.dtypes = (query.dtype, key.dtype, value.dtype)
        if runs_low(query):
            query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
        masks = None
        if attention.dropout:
            n_weights = [sum(counts) for counts in _count_weights(attention, len(query))]
            masks = draw_keep_masks_of_rows(n_weights, attention.dropout)
        ctx.save_for_backward(query, key, value, masks)
        with torch.autocast("cpu", enabled=False):
            out = _attend(query, key, value, attention, masks)
        return out.mul_(scale_of_kept(attention.dropout)) if attention.dropout else out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, masks = ctx.saved_tensors
        attention: Attention = ctx.attention
        if attention.dropout:
            gradient = gradient * scale_of_kept(attention.dropout)
        # laid out as (T, H, D), as the model's projections are, so that no copy is needed there
        d_query, d_key, d_value = (
            x.new_empty(x.shape[1], x.shape[0], x.shape[2], dtype=dtype).transpose(0, 1)
            for x, dtype in zip((query, key, value), ctx.dtypes, strict=True)
        )
        mask_of_block = _split(masks, attention, len(query))
        for begin, end in attention.rows.spans:
            q, k, v, g = _row(begin, end, query, key, value, gradient.transpose(0, 1))
            d_q = d_query[:, begin:end]
            d_k, d_v = k.new_zeros(k.shape), v.new_zeros(v.shape)  # sums over blocks, in float32
            for block in _blocks(end - begin, attention.window):
                g_block = block.queries_of(g)
                weights = _weights(q, k, block, begin, attention)
                d_weights = torch.bmm(g_block, block.keys_of(v).transpose(1, 2))
                dropped, mask = weights, next(mask_of_block)
                if mask is not None:
                    kept = mask.view(weights.shape).to(weights.dtype)
                    d_weights.mul_(kept)
                    dropped = kept.mul_(weights)
                block.keys_of(d_v).add_(torch.bmm(dropped.transpose(1, 2), g_block))
                d_scores = torch.ops.aten._softmax_backward_data(
                    d_weights, weights, -1, weights.dtype
                )
                d_scores.mul_(attention.scale)
                block.queries_of(d_q).copy_(torch.bmm(d_scores, block.keys_of(k)))
                block.keys_of(d_k).add_(torch.bmm(d_scores.transpose(1, 2), block.queries_of(q)))
            d_key[:, begin:end], d_value[:, begin:end] = d_k, d_v
        return d_query, d_key, d_value, None


def _attend(
    query: Tensor, key: Tensor, value: Tensor, attention: Attention, masks: Tensor | None
) -> Tensor:
    """From (H, T, D) each to (T, H, D); what dropout leaves is not yet scaled up."""
    n_heads, n_tokens, width = value.shape
    out = query.new_empty(n_tokens, n_heads, width)
    mask_of_block = _split(masks, attention, n_heads)
    for begin, end in attention.rows.spans:
        q, k, v = _row(begin, end, query, key, value)
        attended = out[begin:end].transpose(0, 1)
        for block in _blocks(end - begin, attention.window):
            weights = _weights(q, k, block, begin, attention)
            mask = next(mask_of_block)
            if mask is not None:
                weights = apply_mask(weights, mask.view(weights.shape))
            block.queries_of(attended).copy_(torch.bmm(weights, block.keys_of(v)))
    return out


@dataclass(frozen=True, slots=True)
class _Block:
    """Neighbouring queries of a row and the keys that one of them may see."""

    queries: range
    keys: range

    def queries_of(self, x: Tensor) -> Tensor:
        """From (H, L, D), a view."""
        return x[:, self.queries.start : self.queries.stop]

    def keys_of(self, x: Tensor) -> Tensor:
        """From (H, L, D), a view."""
        return x[:, self.keys.start : self.keys.stop]


@lru_cache(maxsize=4096)
def _blocks(length: int, window: int | None) -> tuple[_Block, ...]:
    """A row of `length` tokens in blocks, so that few weights are computed that causality hides."""
    n = max(1, round(length / _QUERIES))
    cuts = [length * i // n for i in range(n + 1)]
    return tuple(
        _Block(range(first, last), range(0 if window is None else max(0, first - window + 1), last))
        for first, last in pairwise(cuts)
    )


def _count_weights(attention: Attention, n_heads: int) -> list[list[int]]:
    """Attention weights of each block, row by row."""
    return [
        [
            n_heads * len(block.queries) * len(block.keys)
            for block in _blocks(end - begin, attention.window)
        ]
        for begin, end in attention.rows.spans
    ]


def _split(masks: Tensor | None, attention: Attention, n_heads: int) -> Iterator[Tensor | None]:
    """The part of `masks` for each block of each row; without masks None for ever."""
    if masks is None:
        return repeat(None)
    return iter(masks.split(list(chain(*_count_weights(attention, n_heads)))))


def _row(begin: int, end: int, *tensors: Tensor) -> Iterator[Tensor]:
    """The tokens of one row, (H, L, D); float32 if the tensors are bfloat16."""
    for tensor in tensors:
        part = tensor[:, begin:end]
        yield part.float() if part.dtype == torch.bfloat16 else part


def _weights(query: Tensor, key: Tensor, block: _Block, begin: int, attention: Attention) -> Tensor:
    """Attention weights of a block before dropout, (H, queries, keys); inputs (H, L, D).

    `begin`: of the row in the flat row.
    """
    rows = slice(block.queries.start - block.keys.start, block.queries.stop - block.keys.start)
    size = _round_up(len(block.keys))
    bias = causal_bias(size, attention.window, query.dtype)[rows, : len(block.keys)]
    visible = attention.rows.visible
    if visible is not None:
        visible = visible[begin + block.keys.start : begin + block.keys.stop]
        bias = bias.masked_fill(~visible, float("-inf"))
    q, k = block.queries_of(query), block.keys_of(key)
    weights = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=attention.scale).softmax(-1)
    if visible is not None:
        # a query that may see no key attends to nothing, as in scaled-dot-product attention
        is_blind = bias.isneginf().all(-1)
        weights.masked_fill_(is_blind[:, None], 0.0)
    return weights
