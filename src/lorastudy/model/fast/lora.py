"""A linear module with a LoRA adapter as one function: y = x W + b + s drop(x) A' B'.

Shapes: T = tokens, r = rank; weights as stored, (in, out) in a Conv1D, (out, in) in nn.Linear.

PEFT runs it as five modules, and autograd keeps the dropped copy of x beside x itself. Here x,
one byte per element and the narrow (T, r) product are kept; the dropped copy is computed again in
backward. The base weight is frozen, so it only passes the gradient on. Its bias may be trained.
"""

from functools import cache
from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lorastudy.model.fast.dropout import apply_mask, draw_keep_mask, scale_of_kept
from lorastudy.model.fast.frozen import low_tensors, runs_low
from lorastudy.model.fast.held import widen
from lorastudy.model.fast.products import multiply, multiply_back

_PACKED = "peft.tuners.lora.bnb"  # its LoRA modules for weights that bitsandbytes packed


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  autograd hands its tensors over by position
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        rate: float,
    ) -> Tensor:
        """From x (T, in), weight (out, in), a (r, in), b (out, r) -> (T, out), all of one dtype.

        Only the weight may be held in another one.
        """
        y = multiply(x, weight, bias)
        mask = draw_keep_mask(x.shape, rate, x.device) if rate else None
        narrow = torch.mm(x if mask is None else apply_mask(x, mask), a.t())
        if rate:
            narrow.mul_(scale_of_kept(rate))
        y.addmm_(narrow, b.t(), alpha=scale)
        ctx.save_for_backward(x, mask, narrow, weight, a, b)
        ctx.scale, ctx.rate = scale, rate
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, mask, narrow, weight, a, b = ctx.saved_tensors
        kept = scale_of_kept(ctx.rate)
        d_narrow = torch.mm(dy, b).mul_(ctx.scale)
        d_b = torch.mm(dy.t(), narrow).mul_(ctx.scale)
        floats = None if mask is None else mask.to(x.dtype)
        d_a = torch.mm(d_narrow.t(), x if floats is None else x * floats)
        if floats is not None:
            d_a.mul_(kept)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = multiply_back(dy, weight)
            if floats is None:
                dx.addmm_(d_narrow, a)
            else:
                dx.addcmul_(torch.mm(d_narrow, a), floats, value=kept)
        d_bias = dy.sum(0) if ctx.needs_input_grad[2] else None
        return dx, None, d_bias, d_a, d_b, None, None


class _FastForward(nn.Module):
    """A forward pass by one function, for the LoRA modules of PEFT that it stands in front of."""

    def forward(self: Any, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """As PEFT's own forward, which is used for all that is not plain LoRA."""
        if args or kwargs or not self._is_plain:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        (name,) = self.active_adapters
        base = self.get_base_layer()
        low = runs_low(x)
        weight, bias = low_tensors(base, low=low)
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        assert isinstance(a, Tensor)
        assert isinstance(b, Tensor)
        if low:
            x, a, b = x.bfloat16(), a.bfloat16(), b.bfloat16()
        dropout = self.lora_dropout[name]
        rate = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
        weight = weight.t() if isinstance(base, Conv1D) else weight
        flat, scale = x.reshape(-1, x.shape[-1]), self.scaling[name]
        if not (torch.is_grad_enabled() or rate or low) and _is_cheaper_merged(flat, weight):
            merged = torch.addmm(widen(weight, flat.dtype), b, a, alpha=scale)
            y: Tensor = multiply(flat, merged, bias)
        else:
            y = _LoraLinear.apply(  # type: ignore[no-untyped-call]
                flat, weight, bias, a, b, scale, rate
            )
        return y.view(*x.shape[:-1], -1)

    @property
    def _is_plain(self: Any) -> bool:
        return (
            not self.disable_adapters
            and not self.merged
            and len(self.active_adapters) == 1
            and not self.get_base_layer().weight.requires_grad
        )


class FastLoraLinear(_FastForward, PeftLinear):
    """PEFT's LoRA module for nn.Linear and Conv1D, computed by one function."""


@cache
def _fast_class(kind: Any) -> Any:
    """The class that computes the function of `kind`, a LoRA module of PEFT."""
    if kind is PeftLinear:
        return FastLoraLinear
    return type(f"Fast{kind.__name__}", (_FastForward, kind), {})


def make_fast(module: nn.Module) -> None:
    """Exchange the class of a module that `can_be_fast`, in place."""
    kind: Any = type(module)
    module.__class__ = _fast_class(kind)


def _is_cheaper_merged(x: Tensor, weight: Tensor) -> bool:
    """Whether the adapter costs less added to the weight than taken to every token."""
    n_out, n_in = weight.shape
    return len(x) * (n_in + n_out) > n_in * n_out


def is_plain_lora(module: nn.Module) -> bool:
    """Whether `module` is a plain LoRA adapter (no DoRA, no bias in B) of a linear module."""
    return (
        isinstance(module, LoraLayer)
        and not module.lora_variant
        and not any(module.lora_bias.values())
        and isinstance(module.get_base_layer(), (nn.Linear, Conv1D))
    )


def can_be_fast(module: nn.Module) -> bool:
    """Whether `module` is plain LoRA that PEFT computes."""
    kind: Any = type(module)
    return (kind is PeftLinear or kind.__module__ == _PACKED) and is_plain_lora(module)
