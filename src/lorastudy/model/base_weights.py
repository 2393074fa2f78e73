"""The number format in which a base model's frozen weights are held: `base_weights` of an arm.

float32 is the model as it was always trained. In bfloat16, the weights of linear modules,
embeddings and experts are tensors of that type; norms, biases and all that is computed stay
float32. int8, nf4 and nf4-double are packed by bitsandbytes, through transformers. It leaves
embeddings, experts and the output layer alone, and these are held in bfloat16.

bitsandbytes' own products are not used. On a CPU they quantise inputs in evaluation but not in
training, and they repack weights in evaluation in a form that passes no gradient to lower layers.
Here a weight is widened for each product, so training and evaluation compute the same function.
"""

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorastudy.config.models import Arm, BaseWeights, Training
from lorastudy.errors import ConfigError
from lorastudy.model.fast.frozen import runs_low
from lorastudy.model.fast.held import is_packed, widen
from lorastudy.model.fast.products import LargeConv1D, LargeLinear, apply_linear
from lorastudy.model.held_experts import hold_experts, list_experts, widen_experts
from lorastudy.model.linear_modules import computes_as_linear

IN_8_BITS = "adamw-8bit"
PACKED: dict[BaseWeights, dict[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4-double": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
}


def refuse_base_weights(base_weights: BaseWeights) -> None:
    """Check that this installation can hold weights in this format.

    Raises:
        ConfigError: bitsandbytes is needed, and it is not installed.
    """
    if base_weights in PACKED:
        _need_bitsandbytes(f"base_weights: {base_weights}", "bfloat16")


def refuse_optimizer(name: str) -> None:
    """Check that this installation has the optimizer of this name.

    Raises:
        ConfigError: bitsandbytes is needed, and it is not installed.
    """
    if name == IN_8_BITS:
        _need_bitsandbytes(f"training.optimizer.name: {name}", "adamw")


def uses_bitsandbytes(training: Training, arms: Iterable[Arm]) -> bool:
    """Whether numbers of one of `arms` depend on bitsandbytes."""
    return training.optimizer.name == IN_8_BITS or any(a.base_weights in PACKED for a in arms)


def _need_bitsandbytes(what: str, other: str) -> None:
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"{what} needs bitsandbytes, which is not installed. "
            f"Install it with  pip install 'lorastudy[quantized]'  or use {other}."
        )


def packing_of(base_weights: BaseWeights) -> BitsAndBytesConfig | None:
    """How transformers packs weights while it loads them; None: they are not packed."""
    settings = PACKED.get(base_weights)
    return None if settings is None else BitsAndBytesConfig(**settings)


class _Lookup(torch.autograd.Function):
    """Rows of a held embedding in float32, whose gradient is summed in float32."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.n_rows, ctx.padding = len(weight), -1 if padding is None else padding
        return nn.functional.embedding(ids, weight).float()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[None, Tensor, None]:
        (ids,) = ctx.saved_tensors
        add_up = torch.ops.aten.embedding_dense_backward
        return None, add_up(dy, ids, ctx.n_rows, ctx.padding, False), None


class HeldEmbedding(nn.Embedding):
    """`nn.Embedding` whose weight may be held in fewer bits than its output has."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Embedding`, and scaled where the family scales its embedding; in float32."""
        found: Tensor = _Lookup.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.padding_idx
        )
        scale = getattr(self, "embed_scale", None)
        return found if scale is None else found * scale


def ask_for_bfloat16(network: nn.Module) -> None:
    """Let weights of linear modules, embeddings and experts be bfloat16, before they are read.

    Modules of other classes keep float32, since it is not known how they use their weights.
    """
    for module in network.modules():
        held = _held_class(module)
        if held is LargeLinear:
            module.__class__ = nn.Linear  # bitsandbytes packs no subclass of it
        if held is not None:
            weight = module.weight
            assert isinstance(weight, Tensor)
            weight.data = weight.data.bfloat16()  # not a new parameter: a tied head shares it
    hold_experts(network)


def _held_class(module: nn.Module) -> type[nn.Module] | None:
    """The class that computes the function of `module` with a held weight; None: there is none."""
    kind: Any = type(module)
    if computes_as_linear(kind):
        return LargeLinear
    if kind is Conv1D:
        return LargeConv1D
    return HeldEmbedding if kind is nn.Embedding or _only_scales(module) else None


def _only_scales(module: nn.Module) -> bool:
    """Whether it is an embedding that multiplies what it finds by one number."""
    return isinstance(module, nn.Embedding) and hasattr(module, "embed_scale")


class _WidenedForward(nn.Linear):
    """The forward pass of a linear module whose weight bitsandbytes packed."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`, in the type of the other products."""
        if not runs_low(input):
            return apply_linear(input, self.weight, self.bias)
        bias = None if self.bias is None else self.bias.bfloat16()
        return apply_linear(input.bfloat16(), self.weight, bias)


@cache
def _widened_class(kind: Any) -> Any:
    return type(f"Widened{kind.__name__}", (_WidenedForward, kind), {})


def widen_products(network: PreTrainedModel) -> None:
    """Let modules compute from weights that are held in fewer bits than float32, in place."""
    packed = _packed_classes()
    for module in network.modules():
        if isinstance(module, packed):
            kind: Any = type(module)
            module.__class__ = _widened_class(kind)
        elif (held := _held_class(module)) and module.weight.dtype == torch.bfloat16:
            module.__class__ = held
    widen_experts(network)


@torch.no_grad()
def copy_numbers(held: nn.Module, into: nn.Module) -> None:
    """Give `into`, the same model in float32, the numbers that the weights of `held` stand for."""
    weights = dict(held.named_parameters())
    for path, module in into.named_modules():
        weight = weights.get(f"{path}.weight")  # none where it is tied to one that was copied
        if weight is not None and _held_class(module) is not None:
            wide = widen(weight, torch.float32)
            is_turned = is_packed(weight) and isinstance(module, Conv1D)
            module.weight.copy_(wide.t() if is_turned else wide)
        for name, experts in list_experts(module).items():
            experts.copy_(weights[f"{path}.{name}"])


def _packed_classes() -> tuple[type[nn.Module], ...]:
    if find_spec("bitsandbytes") is None:
        return ()
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    return Linear4bit, Linear8bitLt
