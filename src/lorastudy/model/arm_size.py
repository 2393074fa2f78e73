"""How much an arm trains and stores, found by attaching it to a model without weights.

This is the code that attaches it in a run, so what a run would refuse is refused here as well.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from lorastudy.config.models import Arm
from lorastudy.errors import ConfigError
from lorastudy.model.adapters import ArmModel, attach_arm
from lorastudy.model.base import BaseDescription, build_without_weights
from lorastudy.model.placement import ResolvedPlacement


@dataclass(frozen=True, slots=True)
class ArmSize:
    """Numbers of an arm, counted one by one."""

    trained: int  # can be changed by training
    added: int  # beside those of the base model
    stored: int  # in the files of the best epoch


def measure_arm(arm: Arm, base: BaseDescription, placement: ResolvedPlacement) -> ArmSize:
    """The numbers that an arm trains, adds and stores.

    Raises:
        ConfigError: The method cannot train these modules in this program.
    """
    match arm.method:
        case "baseline":
            return ArmSize(0, 0, 0)
        case "full":
            return ArmSize(base.total_parameters, 0, base.total_parameters)
    network = build_without_weights(base.folder)
    try:
        model = attach_arm(network, arm, placement, seed=0, has_weights=False)
    except ConfigError as error:
        if not isinstance(error.__cause__, RuntimeError):  # NotImplementedError is one, too
            raise
        # Some methods compute with numbers while they are attached; then the base has some.
        model = attach_arm(_with_numbers(base), arm, placement, seed=0, has_weights=False)
    return ArmSize(
        trained=model.n_trained,
        added=sum(p.numel() for p in model.network.parameters()) - base.total_parameters,
        stored=_count_stored(model),
    )


def _count_stored(model: ArmModel) -> int:
    tensors = {id(tensor): tensor for tensor in model.stored_tensors().values()}
    return sum(tensor.numel() for tensor in tensors.values())


def _with_numbers(base: BaseDescription) -> PreTrainedModel:
    """The base model with ones for weights, which take no memory: each tensor is one number."""
    network = build_without_weights(base.folder)
    made: dict[int, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            one = nn.Parameter(torch.ones(1).expand(parameter.shape), requires_grad=False)
            module.register_parameter(name, made.setdefault(id(parameter), one))
    return network
