"""Linear modules whose weight is never trained keep a bfloat16 copy of it.

A bias may be trained beside it, and is cast again in every forward pass then.

Autocast caches the copies only of weights that need a gradient. A frozen base model would be cast
again in every forward pass, and these copies would be kept until the backward pass. In float32
nothing changes.
"""

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lorastudy.model.fast.held import is_packed


def runs_low(x: Tensor) -> bool:
    """Whether matrix products on the device of `x` are currently in bfloat16."""
    return torch.is_autocast_enabled(x.device.type)


class FrozenLinear(nn.Linear):
    """`nn.Linear` with copies of its frozen weights; (out, in)."""

    low_weight: Tensor
    low_bias: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`."""
        if not runs_low(input):
            return super().forward(input)
        return nn.functional.linear(input.bfloat16(), self.low_weight, _low_bias(self))


class FrozenConv1D(Conv1D):
    """transformers' `Conv1D` with copies of its frozen weights; (in, out)."""

    low_weight: Tensor
    low_bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """As `Conv1D`."""
        if not runs_low(x):
            plain: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return plain
        bias = _low_bias(self)
        assert bias is not None
        y = torch.addmm(bias, x.reshape(-1, x.shape[-1]).bfloat16(), self.low_weight)
        return y.view(*x.shape[:-1], -1)


def _low_bias(module: FrozenLinear | FrozenConv1D) -> Tensor | None:
    if module.bias is not None and module.bias.requires_grad:
        return module.bias.bfloat16()
    return module.low_bias


def keep_low_copy(module: nn.Linear | Conv1D) -> None:
    """Give a `module` with a frozen weight bfloat16 copies, in place; old ones are replaced."""
    module.__class__ = FrozenConv1D if isinstance(module, Conv1D) else FrozenLinear
    assert isinstance(module, (FrozenConv1D, FrozenLinear))
    module.low_weight = module.weight.detach().bfloat16()
    module.low_bias = None if module.bias is None else module.bias.detach().bfloat16()


def low_tensors(module: nn.Module, *, low: bool) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear module in the type of the products; a held weight as it is."""
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor) and (bias is None or isinstance(bias, Tensor))
    if not low:
        return weight, bias
    if isinstance(module, (FrozenConv1D, FrozenLinear)):
        return module.low_weight, _low_bias(module)
    low_bias = None if bias is None else bias.bfloat16()
    return weight if is_packed(weight) else weight.bfloat16(), low_bias
