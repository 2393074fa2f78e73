"""Experts of a mixture, which are held in 16 bits where the other frozen weights are held in fewer.

transformers has the experts of a layer in tensors of three dimensions, (experts, out, in) or
(experts, in, out), inside modules of each family's own. Such a module sees each tensor as one of
float32. The expert that a product needs is widened for this product, forward and again backward, so
neither the layer nor autograd keeps a wider copy.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorastudy.model.fast.frozen import runs_low
from lorastudy.model.fast.products import apply_linear


def list_experts(module: nn.Module) -> dict[str, nn.Parameter]:
    """The tensors of experts that `module` holds itself, by their names in it."""
    if type(module).__module__.startswith("torch."):
        return {}  # a convolution
    own = module._parameters.items()
    return {n: p for n, p in own if p is not None and p.ndim == 3 and min(p.shape) > 1}


def hold_experts(network: nn.Module) -> None:
    """Let tensors of experts be bfloat16, before they are read."""
    for module in network.modules():
        for tensor in list_experts(module).values():
            tensor.data = tensor.data.bfloat16()


def widen_experts(network: PreTrainedModel) -> None:
    """Let modules compute in float32 from experts that are held in bfloat16, in place."""
    found = [module for module in network.modules() if list_experts(module)]
    for module in found:
        kind: Any = type(module)
        module.__class__ = _class_over(kind)
    if found and network._can_set_experts_implementation():
        network.set_experts_implementation("eager")  # one expert at a time


@cache
def _class_over(kind: Any) -> Any:
    return type(f"Held{kind.__name__}", (_HeldExperts, kind), {"__module__": kind.__module__})


class _HeldExperts(nn.Module):
    """A module of experts, whose forward pass sees its held tensors as float32 ones."""

    def forward(self, hidden_states: Tensor, *others: Any, **named: Any) -> Any:
        """As the family's own module."""
        if runs_low(hidden_states):
            return super().forward(hidden_states, *others, **named)
        seen = {
            name: _Widen.apply(tensor) if tensor.requires_grad else _Experts(tensor)  # type: ignore[no-untyped-call]
            for name, tensor in list_experts(self).items()
            if tensor.dtype == torch.bfloat16
        }
        self.__dict__.update(seen)  # found before the parameters of these names
        try:
            return super().forward(hidden_states, *others, **named)
        finally:
            for name in seen:
                del self.__dict__[name]


class _Widen(torch.autograd.Function):
    """A trained tensor in float32, whose gradient is float32 as well."""

    @staticmethod
    def forward(ctx: Any, held: Tensor) -> Tensor:
        return held.float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Experts:
    """Stands for a frozen tensor in float32, all experts or one, and is widened where it is used.

    torch hands operations that meet it to `__torch_function__`, as for subclasses of Tensor.
    """

    def __init__(self, held: Tensor) -> None:
        self._held = held

    def __getitem__(self, index: Any) -> "_Experts":
        return _Experts(self._held[index])

    def __getattr__(self, name: str) -> Any:
        if name in {"shape", "ndim", "device", "size", "dim"}:
            return getattr(self._held, name)
        return getattr(self._widened(), name)

    def _widened(self) -> Tensor:
        return self._held.float()

    def _multiply(self, x: Tensor, bias: Tensor | None, *, is_turned: bool) -> Tensor:
        """(..., in) by one expert; or (experts, T, in) by all of them, each its own part."""
        if self._held.ndim == 2:
            return apply_linear(x, self._held, bias, is_turned=is_turned)
        parts = zip(x, self._held, strict=True)
        return torch.stack([apply_linear(part, w, None, is_turned=True) for part, w in parts])

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        x, *others = args
        if others and isinstance(others[0], cls) and isinstance(x, Tensor):
            held = others[0]
            if func is nn.functional.linear and held.ndim == 2:
                bias = others[1] if len(others) > 1 else (kwargs or {}).get("bias")
                return held._multiply(x, bias, is_turned=False)
            if func in _PRODUCTS and (held.ndim == 2 or x.ndim == 3):
                return held._multiply(x, None, is_turned=True)
        wide = [value._widened() if isinstance(value, cls) else value for value in args]
        return func(*wide, **(kwargs or {}))


_PRODUCTS = {torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm}  # `@` arrives as Tensor.matmul
