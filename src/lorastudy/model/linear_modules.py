"""The modules of a network that a placement may name, and how many weights they hold."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorastudy.model.held_experts import list_experts
from lorastudy.model.placement import LinearModule


def list_linear_modules(network: nn.Module) -> tuple[LinearModule, ...]:
    """Every nn.Linear and Conv1D of `network` in model order, with shared weights named.

    Subclasses that compute something else, such as routers of experts, are left out.
    """
    owners: dict[int, str] = {
        id(module.weight): path
        for path, module in network.named_modules()
        if isinstance(module, nn.Embedding)
    }
    head = getattr(network, "get_output_embeddings", lambda: None)()
    found = []
    for path, module in network.named_modules():
        if isinstance(module, Conv1D):
            n_in, n_out = module.weight.shape  # Conv1D stores (in, out)
        elif isinstance(module, nn.Linear):
            n_out, n_in = module.weight.shape
        else:
            continue
        if not _maps_linearly(module, n_in, n_out):
            continue
        owner = owners.get(id(module.weight))
        found.append(LinearModule(path, n_in, n_out, owner, is_output=module is head))
    return tuple(found)


@torch.no_grad()
def _maps_linearly(module: nn.Module, n_in: int, n_out: int) -> bool:
    """Whether `module` makes (..., n_out) of (..., n_in), which a subclass need not do."""
    if type(module) in (nn.Linear, Conv1D):
        return True
    device = next(module.parameters()).device
    try:
        output = module(torch.zeros(1, 1, n_in, device=device))
    except (RuntimeError, TypeError, ValueError):
        return False
    return isinstance(output, Tensor) and output.shape == (1, 1, n_out)


@cache
def computes_as_linear(kind: Any) -> bool:
    """Whether a class is `nn.Linear` or computes the same, as Falcon's: tried on a small module."""
    if kind is nn.Linear or not issubclass(kind, nn.Linear):
        return kind is nn.Linear
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
            made, x = kind(3, 2), torch.linspace(-1, 1, 6).reshape(1, 2, 3)
            made.weight.copy_(x.flatten().reshape(2, 3))
            made.bias.copy_(x[0, 0, :2])
            return torch.allclose(made(x), nn.functional.linear(x, made.weight, made.bias))
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return False


def list_other_modules(network: nn.Module) -> tuple[LinearModule, ...]:
    """Modules that are not linear and hold parameters themselves; they have no features here."""
    return tuple(
        LinearModule(path, 0, 0)
        for path, module in network.named_modules()
        if not isinstance(module, (nn.Linear, Conv1D)) and module._parameters
    )


def count_matrices(network: PreTrainedModel) -> tuple[int, int]:
    """Weights of linear modules; and of embeddings, experts and the output layer, each once."""
    head = network.get_output_embeddings()
    outer = {
        id(module.weight): module.weight.numel()
        for module in network.modules()
        if isinstance(module, nn.Embedding) or module is head
    }
    linear = [m.weight for m in network.modules() if isinstance(m, (nn.Linear, Conv1D))]
    experts = [t.numel() for module in network.modules() for t in list_experts(module).values()]
    n_linear = sum(w.numel() for w in linear if id(w) not in outer)
    return n_linear, sum(outer.values()) + sum(experts)
