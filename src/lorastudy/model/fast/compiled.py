"""The layers of a fast model, compiled by torch.compile into fewer and larger kernels.

If a step is short, a fast card waits for Python to start its kernels. One compiled layer serves
all layers and all numbers of tokens. Attention within rows is outside of it, since its kernel
cannot be compiled together with the rest.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lorastudy.errors import ConfigError, first_line
from lorastudy.model.fast.attention import IMPLEMENTATION, attend


def compile_layers(network: PreTrainedModel, backend: str = "inductor") -> None:
    """Let torch.compile run the layers of `network`, each in its place.

    `backend`: the compiler that makes kernels from the traced layer.

    Raises:
        ConfigError: torch.compile does not work on its device.
    """
    device = next(network.parameters()).device
    _refuse_without_compiler(device, backend)
    ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, torch.compiler.disable(attend))
    for layer in find_layers(network):
        layer.compile(dynamic=True, backend=backend)


def run_uncompiled(network: nn.Module) -> AbstractContextManager[object]:
    """Inside, compiled layers run as they were written.

    For rows that grow by one token: each length would be compiled anew, until torch gives up.
    """
    is_compiled = any(layer._compiled_call_impl is not None for layer in find_layers(network))
    return torch.compiler.set_stance("force_eager") if is_compiled else nullcontext()


def find_layers(network: nn.Module) -> list[nn.Module]:
    """The layers that a model repeats: the members of its longest `ModuleList`."""
    lists = [list(module) for module in network.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def _refuse_without_compiler(device: torch.device, backend: str) -> None:
    """Compile something small, so that it is not the first step that fails."""
    try:
        torch.compile(_try, backend=backend)(torch.ones(8, device=device))
    except Exception as error:  # torch has no common class for the errors of a missing compiler
        raise ConfigError(
            f"training.implementation: compiled needs a torch.compile that works on {device}; "
            f"it says: {first_line(error)}. "
            "Install a C++ compiler (CPU) or Triton (CUDA), or use fast."
        ) from error


def _try(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
