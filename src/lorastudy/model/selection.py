"""Methods that train a part of the base model's own weights, without an adapter.

A method is one row of `_SELECTED`: which parameters are trained. The best epoch is stored as a
whole model, as for full fine-tuning.
"""

from collections.abc import Callable
from dataclasses import dataclass

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from lorastudy.config.arm_values import pick_layers
from lorastudy.config.models import Arm
from lorastudy.errors import ConfigError
from lorastudy.model.placement import layer_of, refuse_other_layers


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a parameter is."""

    name: str  # in its module, such as "weight"
    module: nn.Module
    is_head: bool


_SELECTED: dict[str, Callable[[_Place], bool]] = {
    "baseline": lambda place: False,
    "full": lambda place: True,
    "head": lambda place: place.is_head,
    "bitfit": lambda place: place.name == "bias",  # arXiv:2106.10199
    "layer-norms": lambda place: "norm" in type(place.module).__name__.lower(),
    "last-layers": lambda place: True,  # of the arm's layers
}


def select_parameters(network: PreTrainedModel, arm: Arm) -> None:
    """Make `network` train what the method of `arm` selects, and nothing else.

    A head that shares its weight with the embedding gets a weight of its own if it is trained
    alone, so that the embedding stays as it is.

    Raises:
        ConfigError: The model has no such parameters.
    """
    if arm.method == "head":
        untie_head(network)
    is_selected, head = _SELECTED[arm.method], network.get_output_embeddings()
    layers = None
    if arm.layers is not None:
        n_layers = int(network.config.get_text_config().num_hidden_layers)
        layers = pick_layers(arm.layers, n_layers)
        refuse_other_layers(arm.name, layers, n_layers)
    network.requires_grad_(False)
    n_selected = 0
    for path, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if layers is not None and layer_of(path) not in layers:
                continue
            if is_selected(_Place(name, module, module is head)):
                parameter.requires_grad_(True)
                n_selected += 1
    if not n_selected and arm.method != "baseline":
        raise ConfigError(
            f"arm {arm.name!r}: this model has no parameters that method: {arm.method} trains"
            f"{' in these layers' if layers is not None else ''}. Choose another method."
        )


def untie_head(network: PreTrainedModel) -> None:
    """Give an output layer that shares its weight with the embedding a weight of its own."""
    head, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    base = head.get_base_layer() if isinstance(head, BaseTunerLayer) else head
    if isinstance(base, nn.Linear) and base.weight is embedding.weight:
        base.weight = nn.Parameter(base.weight.detach().clone())
        for config in (network.config, network.config.get_text_config()):
            config.tie_word_embeddings = False
