"""Attention within rows that are placed one after the other in one flat row.

Shapes: H = heads, T = tokens of all rows, L = tokens of one row, D = width of a head.

Attention is computed for each row separately, so there is no (T, T) mask and no position sees
another row. `FlatRows` reaches this function as a keyword argument that transformers' models pass
on to their attention (`AttentionInterface`).

On a CPU, `attention_blocks.py` is used if gradients are needed or a key is hidden, and otherwise
scaled-dot-product attention of each row. On other devices `attention_varlen.py` is used, or
`attention_padded.py` if that does not work.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lorastudy.model.fast.attention_blocks import attend_by_blocks
from lorastudy.model.fast.attention_padded import attend_padded
from lorastudy.model.fast.attention_varlen import attend_varlen, can_attend_varlen
from lorastudy.model.fast.flat_rows import Attention, FlatRows
from lorastudy.model.fast.frozen import runs_low

IMPLEMENTATION = "lorastudy-flat-rows"  # no mask function has this name, so no mask is made
WITH_WINDOWS = "lorastudy-flat-rows-with-windows"  # each mask says which window it is for
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")  # arguments that change attention weights


@contextmanager
def attend_within_rows(
    body: PreTrainedModel, implementation: str = IMPLEMENTATION
) -> Iterator[None]:
    """Inside, `body` accepts `flat_rows=` and keeps rows apart; outside it is unchanged."""
    before = body.config._attn_implementation
    body.config._attn_implementation = implementation
    try:
        yield
    finally:
        body.config._attn_implementation = before


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    flat_rows: FlatRows,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Causal attention within `flat_rows`: (1, H, T, D) each -> (1, T, H, D).

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
    window = sliding_window if sliding_window and sliding_window < flat_rows.longest else None
    attention = Attention(flat_rows, scale, dropout, window)
    is_plain = flat_rows.visible is None and window is None
    if not _runs_on_cpu(query):
        attend_there = _attend_on_device if is_plain else attend_padded
        return attend_there(query, key, value, attention), None
    if is_plain and not torch.is_grad_enabled():
        return _attend_one_by_one(query, key, value, attention), None
    return attend_by_blocks(query, key, value, attention), None


def _attend_and_compare_windows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """As `attend`, which knows of a window only if the model passes `sliding_window` to it.

    Raises:
        NotImplementedError: A mask has a window that is not passed, so longer rows would be wrong.
    """
    if attention_mask is not None and int(attention_mask.flatten()[0]) != (sliding_window or 0):
        raise NotImplementedError("attention with a window that only its mask has")
    return attend(module, query, key, value, None, sliding_window=sliding_window, **others)


def _name_window(
    *, q_length: int, kv_length: int, local_size: int | None = None, **_others: Any
) -> Tensor:
    """In place of a mask: the size of its window or chunk everywhere; 0: there is none."""
    return torch.full((1, 1, int(q_length), int(kv_length)), local_size or 0)


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attend)
ALL_ATTENTION_FUNCTIONS.register(WITH_WINDOWS, _attend_and_compare_windows)
ALL_MASK_ATTENTION_FUNCTIONS.register(WITH_WINDOWS, _name_window)


def _runs_on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu"


def _attend_on_device(query: Tensor, key: Tensor, value: Tensor, attention: Attention) -> Tensor:
    """Attention by the kernel for rows of any lengths, in the type of the other products."""
    if runs_low(query):
        query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
    if can_attend_varlen(query.device, query.dtype, query.shape[-1]):
        return attend_varlen(query, key, value, attention)
    return attend_padded(query, key, value, attention)


def _attend_one_by_one(query: Tensor, key: Tensor, value: Tensor, attention: Attention) -> Tensor:
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for begin, end in attention.rows.spans:
        q, k, v = (x[:, :, begin:end] for x in (query, key, value))
        attended = nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=attention.scale
        )
        out[:, begin:end] = attended.transpose(1, 2)
    return out
