"""Attention within rows that are padded on the right to the longest: one rectangle.

Shapes: H = heads, T = tokens of all rows, D = width of a head, n = rows, L = tokens of the
longest.

It needs no mask, since padding is on the right of a causal row. It is used on devices other than
a CPU if the kernel of `attention_varlen.py` does not work.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lorastudy.model.fast.attention_blocks import causal_bias
from lorastudy.model.fast.flat_rows import Attention, FlatRows


@dataclass(frozen=True, slots=True, eq=False)
class _Padded:
    """FlatRows of a flat row as rows padded on the right to the longest: n documents, width L."""

    source: Tensor  # (n, L) the token at each place; any token where there is none
    place: Tensor  # (T,) the place of each token in the flattened (n, L)
    is_token: Tensor  # (n, L)


@lru_cache(maxsize=2)
def _pad(rows: FlatRows, device: torch.device) -> _Padded:
    """Made once for all layers, so that not every layer has to wait for the device."""
    starts = torch.tensor(rows.bounds[:-1])
    lengths = torch.tensor([end - begin for begin, end in rows.spans])
    offset = torch.arange(rows.longest)
    is_token = offset < lengths[:, None]
    source = (starts[:, None] + offset).clamp_(max=rows.bounds[-1] - 1)
    place = is_token.flatten().nonzero().squeeze(1)
    return _Padded(source.to(device), place.to(device), is_token.to(device))


def attend_padded(query: Tensor, key: Tensor, value: Tensor, attention: Attention) -> Tensor:
    """All rows at once, padded on the right to the longest: (1, H, T, D) each -> (1, T, H, D).

    If gradients are needed, the padded copies are not kept, but made again in the backward pass
    with the same dropout.
    """
    padded = _pad(attention.rows, query.device)
    mask = _padded_mask(attention, padded)

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (x[0].transpose(0, 1)[padded.source].transpose(1, 2) for x in (query, key, value))
        attended = nn.functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=attention.dropout,
            is_causal=mask is None,
            scale=attention.scale,
        )
        return attended.transpose(1, 2).flatten(0, 1)[padded.place][None]

    if not torch.is_grad_enabled():
        return run(query, key, value)
    again: Tensor = checkpoint(run, query, key, value, use_reentrant=False)
    return again


def _padded_mask(attention: Attention, padded: _Padded) -> Tensor | None:
    """Keys that may be seen, (n, 1, L, L); None if causality alone decides."""
    visible, window = attention.rows.visible, attention.window
    if visible is None and window is None:
        return None
    n, longest = padded.source.shape
    bias = causal_bias(longest, window, torch.float32).to(padded.source.device)
    seen = bias.eq(0).expand(n, 1, longest, longest)
    if visible is None:
        return seen
    return seen & (visible[padded.source] & padded.is_token)[:, None, None]
