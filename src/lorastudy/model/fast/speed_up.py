"""Make a model fast in place: modules keep their tensors and their paths, and compute leaner.

A module's class is exchanged for one that computes the same function. So saving, PEFT's
switches and paths of modules work as before. Whether the model can run rows one behind
the other is tried on random tokens, so a family that mixes positions in another way than by
attention, or by attention of its own, is simply padded.
"""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from lorastudy.model.fast.attention import IMPLEMENTATION, WITH_WINDOWS, attend_within_rows
from lorastudy.model.fast.dropout import FastDropout
from lorastudy.model.fast.flat_rows import FlatRows
from lorastudy.model.fast.frozen import FrozenLinear, keep_low_copy
from lorastudy.model.fast.lora import can_be_fast, make_fast
from lorastudy.model.fast.products import LargeConv1D, LargeLinear
from lorastudy.model.fast.remade import FusedGelu, RemadeLayerNorm
from lorastudy.model.linear_modules import computes_as_linear
from lorastudy.model.text_part import find_body

_CLOSE = 1e-3  # of the largest hidden value; rounding is about 1e-6, a wrong position about 1


def speed_up(network: PreTrainedModel, precision: str, *, keep_copies: bool = True) -> None:
    """Exchange the classes of modules for fast ones, in place; twice is once.

    Copies are for weights that stay where they are: not for those that a team holds in parts.
    """
    for module in network.modules():
        if _is_linear(module):
            assert isinstance(module, (nn.Linear, Conv1D))
            _speed_up_linear(module, precision, keep_copies=keep_copies)
            continue
        if type(module) is NewGELUActivation:
            module.__class__ = FusedGelu
        elif type(module) is nn.LayerNorm:
            module.__class__ = RemadeLayerNorm
        elif type(module) is nn.Dropout:
            module.__class__ = FastDropout
        elif isinstance(module, LoraLayer) and can_be_fast(module):
            make_fast(module)


def _is_linear(module: nn.Module) -> bool:
    """Whether it is a linear map, as subclasses that are adapters or routers of experts are not."""
    kind: Any = type(module)
    return isinstance(module, (Conv1D, FrozenLinear)) or computes_as_linear(kind)


def _speed_up_linear(module: nn.Linear | Conv1D, precision: str, *, keep_copies: bool) -> None:
    if module.weight.dtype != torch.float32:
        return  # held in fewer bits: its class widens it, and there is nothing to copy
    if not module.weight.numel():
        return  # of no width: there is nothing to compute
    if precision == "bfloat16":
        if keep_copies and not module.weight.requires_grad:
            keep_low_copy(module)
    elif type(module) is nn.Linear:
        module.__class__ = LargeLinear
    elif type(module) is Conv1D:
        module.__class__ = LargeConv1D


def run_flat_rows(
    network: PreTrainedModel,
    input_ids: Tensor,
    positions: Tensor,
    flat_rows: FlatRows,
    *,
    attention: str = IMPLEMENTATION,
) -> Tensor:
    """Hidden states in front of the output layer of a flat row: (T,), (T,) -> (T, E)."""
    body: Any = find_body(network)
    with attend_within_rows(body, attention):
        hidden: Tensor = body(
            input_ids=input_ids[None],
            position_ids=positions[None],
            use_cache=False,
            flat_rows=flat_rows,
        ).last_hidden_state
    return hidden[0]


@torch.no_grad()
def packs_rows(network: PreTrainedModel) -> bool:
    """Whether rows of a flat row come out as they do alone, untouched by each other.

    The rows tried are short, so it is also seen whether every window of attention is known.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    first, other, second = (
        torch.arange(begin, end, device=device) for begin, end in ((1, 6), (11, 16), (1, 9))
    )
    try:
        together = _run_pair(network, first, second, attention=WITH_WINDOWS)
        beside_other = _run_pair(network, other, second)
        body: Any = find_body(network)
        alone = body(input_ids=second[None], use_cache=False).last_hidden_state[0]
    except Exception:  # a family that does not take these arguments may raise anything
        return False
    finally:
        network.train(was_training)
    if together.shape != alone.shape or not torch.equal(together, beside_other):
        return False
    return bool((together - alone).abs().max() <= _CLOSE * alone.abs().max())


class _SeenDropout(TorchFunctionMode):
    """Notices calls of dropout as a function."""

    is_seen: bool = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        keywords = kwargs or {}
        if func is nn.functional.dropout and keywords["training"] and keywords["p"] > 0:
            self.is_seen = True
        return func(*args, **keywords)


@torch.no_grad()
def drops_by_function(network: PreTrainedModel) -> bool:
    """Whether training calls dropout as a function on a CPU, so that no module can be exchanged."""
    device = next(network.parameters()).device
    if device.type != "cpu":
        return False
    was_training = network.training
    network.train()
    seen = _SeenDropout()
    try:
        with seen:
            network(input_ids=torch.arange(1, 9)[None], use_cache=False)
    except (AttributeError, TypeError):  # a family that does not take these arguments
        return False
    finally:
        network.train(was_training)
    return seen.is_seen


@torch.no_grad()
def packs_hidden_keys(network: PreTrainedModel) -> bool:
    """Whether a document of which keys are hidden comes out as its padded row with a mask does.

    Not so where a family counts its positions by the mask.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    first, second = (torch.arange(begin, end, device=device) for begin, end in ((1, 6), (1, 9)))
    mask = torch.tensor([0, 1, 1, 1, 1, 1, 0, 0], device=device)
    visible = torch.cat([torch.ones_like(first), mask]).bool()
    try:
        packed = _run_pair(network, first, second, visible)
        body: Any = find_body(network)
        padded = body(
            input_ids=second[None], attention_mask=mask[None], use_cache=False
        ).last_hidden_state[0]
    finally:
        network.train(was_training)
    return bool((packed - padded).abs().max() <= _CLOSE * padded.abs().max())


def _run_pair(
    network: PreTrainedModel,
    first: Tensor,
    second: Tensor,
    visible: Tensor | None = None,
    *,
    attention: str = IMPLEMENTATION,
) -> Tensor:
    """Hidden states of `second` where it follows `first` in one row."""
    begin, end = len(first), len(first) + len(second)
    positions = torch.cat([torch.arange(begin), torch.arange(end - begin)]).to(first.device)
    flat_rows = FlatRows((0, begin, end), visible)
    ids = torch.cat([first, second])
    return run_flat_rows(network, ids, positions, flat_rows, attention=attention)[begin:]
