"""Attention within rows by the kernel behind torch's memory-efficient attention on CUDA.

Shapes: H = heads, T = tokens of all rows, D = width of a head.

The kernel is called directly. It accepts the beginnings and ends of rows, so nothing is padded,
and it has dropout, which it draws again in the backward pass: it keeps only the output and one
number per query and head. Its name is private to torch, so the kernel is first compared once with
padded rows. If it fails or gives a different result, `attention_padded.py` is used.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from lorastudy.model.fast.attention_padded import attend_padded
from lorastudy.model.fast.flat_rows import Attention, FlatRows

_CAUSAL = 1  # custom_mask_type: a query sees its own key and those before
_CLOSE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}  # of the largest value


def attend_varlen(query: Tensor, key: Tensor, value: Tensor, attention: Attention) -> Tensor:
    """(1, H, T, D) each, of one dtype -> (1, T, H, D)."""
    bounds = _bounds_on(attention.rows, query.device)
    longest = attention.rows.longest
    attended: Tensor = torch.ops.aten._efficient_attention_forward(
        *(x.transpose(1, 2) for x in (query, key, value)),
        None,  # bias
        bounds,
        bounds,
        longest,
        longest,
        attention.dropout,
        _CAUSAL,
        torch.is_grad_enabled(),  # whether the backward pass needs the log-sum-exp
        scale=attention.scale,
    )[0]
    return attended


@lru_cache(maxsize=2)
def _bounds_on(rows: FlatRows, device: torch.device) -> Tensor:
    """Copied once for all layers, (n + 1,)."""
    return torch.tensor(rows.bounds, dtype=torch.int32, device=device)


@lru_cache(maxsize=8)
def can_attend_varlen(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether the kernel exists and agrees with padded rows, also in gradients."""
    if dtype not in _CLOSE:
        return False
    attention = Attention(FlatRows((0, 70, 71, 100)), scale=0.5)
    qkv = torch.arange(3 * 100 * 2 * width, device=device).mul(0.7).sin().to(dtype)
    direction = qkv[: 100 * 2 * width].view(1, 100, 2, width)

    def differentiate(attend: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
        given = qkv.view(1, 100, 6, width).detach().requires_grad_()
        q, k, v = given.transpose(1, 2).split(2, dim=1)
        out = attend(q, k, v, attention)
        return out.detach(), torch.autograd.grad(out, given, direction)[0]

    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        expected = differentiate(attend_padded)
        try:
            got = differentiate(attend_varlen)
        except (AttributeError, TypeError, RuntimeError):  # RuntimeError: also NotImplementedError
            return False
    return all(
        x.shape == y.shape and float((x - y).abs().max() / y.abs().max()) <= _CLOSE[dtype]
        for x, y in zip(got, expected, strict=True)
    )
