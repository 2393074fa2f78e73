"""Attention within documents that stand one behind the other in one flat row.

Shapes: H = heads, T = tokens of all documents, L = tokens of one document, D = width of a head.

A batch without padding is one row of T tokens. Everything but attention works on single
tokens; attention is computed for each document alone, so no (T, T) mask exists and no
position sees another document. The layout reaches this function as a keyword argument that
transformers' models hand through to their attention (`AttentionInterface`).

On a CPU with dropout, one autograd function keeps the queries, keys, values and one byte a
weight, and computes the weights again in backward. Elsewhere scaled-dot-product attention
is used: for each document on a CPU, on other devices for all documents padded to the longest,
which needs no mask since padding stands on the right of a causal row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lorastudy.model.fast.dropout import apply_mask, draw_keep_mask
from lorastudy.model.fast.frozen import runs_low

IMPLEMENTATION = "lorastudy-documents"  # no mask function has this name, so no mask is made
_QUERIES = 64  # about so many of a document at once: later keys are not looked at for them
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")  # what changes attention weights otherwise


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """Where documents begin and end in a flat row of T tokens."""

    bounds: tuple[int, ...]  # (n + 1,) from 0 to T
    visible: Tensor | None = None  # (T,) bool, which keys may be seen; None: all

    @property
    def spans(self) -> Iterator[tuple[int, int]]:
        """Begin and end of each document."""
        return pairwise(self.bounds)

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return max(end - begin for begin, end in self.spans)


@contextmanager
def attend_within_documents(network: PreTrainedModel) -> Iterator[None]:
    """Within, `network` takes `documents=` and keeps them apart; outside it is as it was."""
    before = network.config._attn_implementation
    network.config._attn_implementation = IMPLEMENTATION
    try:
        yield
    finally:
        network.config._attn_implementation = before


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    documents: Documents,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Causal attention within `documents`: (1, H, T, D) each -> (1, T, H, D).

    Raises:
        NotImplementedError: The model asks for weights of another form.
    """
    unknown = [name for name in _UNSUPPORTED if others.get(name) is not None]
    if unknown or attention_mask is not None or others.get("is_causal") is False:
        raise NotImplementedError(f"attention with {unknown or 'a mask of its own'}")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:  # grouped-query attention: neighbouring heads share keys and values
        # in float32, so that the gradients of heads that share are summed in it
        key, value = (x.float().repeat_interleave(groups, dim=1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window if sliding_window and sliding_window < documents.longest else None
    is_plain = documents.visible is None and window is None
    if query.device.type == "cpu" and (torch.is_grad_enabled() or not is_plain):
        low = runs_low(query)
        with torch.autocast(query.device.type, enabled=False):  # weights are float32 within
            attended: Tensor = _DocumentAttention.apply(  # type: ignore[no-untyped-call]
                query[0], key[0], value[0], documents, dropout, scale, window, low
            )
        return attended[None], None
    if is_plain and query.device.type == "cpu":
        return _attend_one_by_one(query, key, value, documents, scale), None
    return _attend_padded(query, key, value, documents, dropout, scale, window), None


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attend)


_Layout = tuple[Documents, float, float, int | None]  # rate, scale, window


@lru_cache(maxsize=4)
def _causal_bias(size: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """0 where a key may be seen and -inf elsewhere, (size, size)."""
    bias = torch.full((size, size), float("-inf"), dtype=dtype).triu_(1)
    if window is not None:
        bias += torch.full((size, size), float("-inf"), dtype=dtype).tril_(-window)
    return bias


def _round_up(length: int) -> int:
    return -(-length // 256) * 256  # few sizes, so that the cached bias is made seldom


class _DocumentAttention(torch.autograd.Function):
    """Softmax attention of one document after another, with dropout on its weights."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        documents: Documents,
        rate: float,
        scale: float,
        window: int | None,
        low: bool,
    ) -> Tensor:
        """From (H, T, D) each to (T, H, D); low: inputs and output are rounded to bfloat16."""
        n_heads, n_tokens, width = value.shape
        ctx.layout = (documents, rate, scale, window)
        ctx.dtypes = (query.dtype, key.dtype, value.dtype)
        if low:
            query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
        out = query.new_empty(n_tokens, n_heads, width)
        masks = None
        if rate:
            n_weights = sum(_count_weights(documents, window, n_heads))
            masks = draw_keep_mask((n_weights,), rate, query.device)
        mask_of_block = _split(masks, documents, window, n_heads)
        for begin, end in documents.spans:
            q, k, v = _document(begin, end, query, key, value)
            attended = out[begin:end].transpose(0, 1)
            for block in _blocks(end - begin, window):
                weights = _weights(q, k, block, begin, ctx.layout)
                mask = next(mask_of_block)
                if mask is not None:
                    weights = apply_mask(weights, mask.view(weights.shape))
                block.queries_of(attended).copy_(torch.bmm(weights, block.keys_of(v)))
        ctx.save_for_backward(query, key, value, masks)
        return out.mul_(1.0 / (1.0 - rate)) if rate else out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, masks = ctx.saved_tensors
        documents, rate, scale, window = ctx.layout
        if rate:
            gradient = gradient * (1.0 / (1.0 - rate))
        # laid out as (T, H, D), as the model's projections are, so that no copy is needed there
        d_query, d_key, d_value = (
            x.new_empty(x.shape[1], x.shape[0], x.shape[2], dtype=dtype).transpose(0, 1)
            for x, dtype in zip((query, key, value), ctx.dtypes, strict=True)
        )
        mask_of_block = _split(masks, documents, window, len(query))
        for begin, end in documents.spans:
            q, k, v, g = _document(begin, end, query, key, value, gradient.transpose(0, 1))
            d_q = d_query[:, begin:end]
            d_k, d_v = k.new_zeros(k.shape), v.new_zeros(v.shape)  # sums over blocks, in float32
            for block in _blocks(end - begin, window):
                g_block = block.queries_of(g)
                weights = _weights(q, k, block, begin, ctx.layout)
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
                d_scores.mul_(scale)
                block.queries_of(d_q).copy_(torch.bmm(d_scores, block.keys_of(k)))
                block.keys_of(d_k).add_(torch.bmm(d_scores.transpose(1, 2), block.queries_of(q)))
            d_key[:, begin:end], d_value[:, begin:end] = d_k, d_v
        return d_query, d_key, d_value, None, None, None, None, None


@dataclass(frozen=True, slots=True)
class _Block:
    """Neighbouring queries of a document and the keys that one of them may see."""

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
    """A document of `length` tokens cut so that few weights are computed that causality hides."""
    n = max(1, round(length / _QUERIES))
    cuts = [length * i // n for i in range(n + 1)]
    return tuple(
        _Block(range(first, last), range(0 if window is None else max(0, first - window + 1), last))
        for first, last in pairwise(cuts)
    )


def _count_weights(documents: Documents, window: int | None, n_heads: int) -> list[int]:
    """Attention weights of each block of each document."""
    return [
        n_heads * len(block.queries) * len(block.keys)
        for begin, end in documents.spans
        for block in _blocks(end - begin, window)
    ]


def _split(
    masks: Tensor | None, documents: Documents, window: int | None, n_heads: int
) -> Iterator[Tensor | None]:
    """The part of `masks` for each block of each document; without masks None for ever."""
    if masks is None:
        return repeat(None)
    return iter(masks.split(_count_weights(documents, window, n_heads)))


def _document(begin: int, end: int, *tensors: Tensor) -> Iterator[Tensor]:
    """The tokens of one document, (H, L, D); float32 where the tensors are bfloat16."""
    for tensor in tensors:
        part = tensor[:, begin:end]
        yield part.float() if part.dtype == torch.bfloat16 else part


def _weights(query: Tensor, key: Tensor, block: _Block, begin: int, layout: _Layout) -> Tensor:
    """Attention weights of a block before dropout, (H, queries, keys); inputs (H, L, D).

    `begin`: of the document in the flat row.
    """
    documents, _, scale, window = layout
    rows = slice(block.queries.start - block.keys.start, block.queries.stop - block.keys.start)
    size = _round_up(len(block.keys))
    bias = _causal_bias(size, window, query.dtype)[rows, : len(block.keys)]
    visible = documents.visible
    if visible is not None:
        visible = visible[begin + block.keys.start : begin + block.keys.stop]
        bias = bias.masked_fill(~visible, float("-inf"))
    q, k = block.queries_of(query), block.keys_of(key)
    weights = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale).softmax(-1)
    if visible is not None:
        # a query that may see no key attends to nothing, as in scaled-dot-product attention
        is_blind = bias.isneginf().all(-1)
        weights.masked_fill_(is_blind[:, None], 0.0)
    return weights


def _attend_one_by_one(
    query: Tensor, key: Tensor, value: Tensor, documents: Documents, scale: float
) -> Tensor:
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for begin, end in documents.spans:
        q, k, v = (x[:, :, begin:end] for x in (query, key, value))
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        out[:, begin:end] = attended.transpose(1, 2)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Padded:
    """Documents of a flat row as rows padded on the right to the longest: n documents, width L."""

    source: Tensor  # (n, L) the token at each place; any token where there is none
    place: Tensor  # (T,) the place of each token in the flattened (n, L)
    is_token: Tensor  # (n, L)


@lru_cache(maxsize=2)
def _pad(documents: Documents, device: torch.device) -> _Padded:
    """Made once for all layers, so that a device is not waited for in each of them."""
    starts = torch.tensor(documents.bounds[:-1])
    lengths = torch.tensor([end - begin for begin, end in documents.spans])
    offset = torch.arange(documents.longest)
    is_token = offset < lengths[:, None]
    source = (starts[:, None] + offset).clamp_(max=documents.bounds[-1] - 1)
    place = is_token.flatten().nonzero().squeeze(1)
    return _Padded(source.to(device), place.to(device), is_token.to(device))


def _attend_padded(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    documents: Documents,
    rate: float,
    scale: float,
    window: int | None,
) -> Tensor:
    """All documents at once, padded on the right to the longest.

    Where gradients are wanted, the padded copies are made again in backward, with the same
    dropout, and not kept.
    """
    padded = _pad(documents, query.device)
    mask = _padded_mask(documents, padded, window)

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (x[0].transpose(0, 1)[padded.source].transpose(1, 2) for x in (query, key, value))
        attended = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=rate, is_causal=mask is None, scale=scale
        )
        return attended.transpose(1, 2).flatten(0, 1)[padded.place][None]

    if not torch.is_grad_enabled():
        return run(query, key, value)
    again: Tensor = checkpoint(run, query, key, value, use_reentrant=False)
    return again


def _padded_mask(documents: Documents, padded: _Padded, window: int | None) -> Tensor | None:
    """Keys that may be seen, (n, 1, L, L); None where causality says it all."""
    if documents.visible is None and window is None:
        return None
    n, longest = padded.source.shape
    bias = _causal_bias(longest, window, torch.float32).to(padded.source.device)
    seen = bias.eq(0).expand(n, 1, longest, longest)
    if documents.visible is None:
        return seen
    return seen & (documents.visible[padded.source] & padded.is_token)[:, None, None]
