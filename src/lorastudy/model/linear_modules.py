"""The modules of a network that a placement may name, and how many weights they hold."""

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
