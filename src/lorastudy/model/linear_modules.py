"""The modules of a network that a placement may name, and how many weights they hold."""

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorastudy.model.placement import LinearModule


def list_linear_modules(network: nn.Module) -> tuple[LinearModule, ...]:
    """Every nn.Linear and Conv1D of `network` in model order, with shared weights named."""
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
        owner = owners.get(id(module.weight))
        found.append(LinearModule(path, n_in, n_out, owner, is_output=module is head))
    return tuple(found)


def list_other_modules(network: nn.Module) -> tuple[LinearModule, ...]:
    """Modules that are not linear and hold parameters themselves; they have no features here."""
    return tuple(
        LinearModule(path, 0, 0)
        for path, module in network.named_modules()
        if not isinstance(module, (nn.Linear, Conv1D)) and module._parameters
    )


def count_matrices(network: PreTrainedModel) -> tuple[int, int]:
    """Weights of linear modules, and those of embeddings and the output layer, each once."""
    head = network.get_output_embeddings()
    outer = {
        id(module.weight): module.weight.numel()
        for module in network.modules()
        if isinstance(module, nn.Embedding) or module is head
    }
    linear = [m.weight for m in network.modules() if isinstance(m, (nn.Linear, Conv1D))]
    return sum(w.numel() for w in linear if id(w) not in outer), sum(outer.values())
