"""How much an arm trains and stores, found by attaching it to a model without weights.

This is the code that attaches it in a run, so what a run would refuse is refused here as well.
"""

from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorastudy.config.models import Arm
from lorastudy.errors import ConfigError
from lorastudy.model.adapters import ArmModel, attach_arm
from lorastudy.model.attach import ADAPTER_NAME, is_plain_start, look_at
from lorastudy.model.base import BaseDescription, build_without_weights
from lorastudy.model.base_weights import ask_for_bfloat16, widen_products
from lorastudy.model.odd_methods import refuse_odd_method
from lorastudy.model.placement import ResolvedPlacement
from lorastudy.model.text_part import path_of
from lorastudy.model.trials import (
    PLACE,
    SMALL,
    SMALL_GPT2,
    attach_trial,
    make_small,
    refuse_held,
)


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
        model = _attach_to_numbers(base, arm, placement)
    if model.adapter is not None:
        refuse_odd_method(arm, placement)
        refuse_held(arm, placement)
        _refuse_low_embedding(base, arm, placement)
    return ArmSize(
        trained=model.n_trained,
        added=sum(p.numel() for p in model.network.parameters()) - base.total_parameters,
        # an adapter that was taken out of the base weights is stored beside its start
        stored=_count_stored(model) * (2 if _is_taken_out(model, arm) else 1),
    )


def _refuse_low_embedding(base: BaseDescription, arm: Arm, placement: ResolvedPlacement) -> None:
    """Check that an adapted embedding that is held in 16 bits still answers in float32.

    Raises:
        ConfigError: It does not, so that the whole model would compute in 16 bits.
    """
    if arm.base_weights == "float32":
        return
    network = build_without_weights(base.folder)
    if path_of(network, network.get_input_embeddings()) not in placement.paths:
        return
    ask_for_bfloat16(network)
    widen_products(network)
    attach_arm(network, arm, placement, seed=0, has_weights=False)
    ids = torch.zeros(1, 1, dtype=torch.long, device="meta")
    if network.get_input_embeddings()(ids).dtype != torch.float32:
        raise ConfigError(
            f"arm {arm.name!r}: this method does not compute float32 from an embedding that is "
            "held in bfloat16. Leave base_weights out, or choose another method."
        )


def _attach_to_numbers(base: BaseDescription, arm: Arm, placement: ResolvedPlacement) -> ArmModel:
    """The arm on a base with numbers, for methods that compute with them while they are attached.

    A start that changes them in place (OLoRA) is left out, since they take no memory of their own.
    """
    try:
        return attach_arm(_with_numbers(base), arm, placement, seed=0, has_weights=False)
    except ConfigError as error:
        if "single memory location" not in str(error.__cause__):
            raise
    usual: dict[str, Any] = {"init_lora_weights": True}
    update = {"peft": {**arm.peft, **usual}} if arm.peft else usual
    network = build_without_weights(base.folder)
    plain = arm.model_copy(update=update)
    model = attach_arm(network, plain, placement, seed=0, has_weights=False)
    assert model.adapter is not None
    config: Any = model.adapter.peft_config[ADAPTER_NAME]
    config.init_lora_weights = (arm.peft or {}).get("init_lora_weights", arm.init_lora_weights)
    return model


def _count_stored(model: ArmModel) -> int:
    tensors = list(model.stored_tensors().values())
    if model.adapter is None:  # a whole model's file holds a shared tensor once
        tensors = list({id(tensor): tensor for tensor in tensors}.values())
    return sum(tensor.numel() for tensor in tensors)


def _is_taken_out(model: ArmModel, arm: Arm) -> bool:
    """Whether the adapter's start changes base weights: tried on a small module with weights.

    Raises:
        ConfigError: It does, and PEFT does it wrongly in modules of this kind.
    """
    config = model.adapter and model.adapter.peft_config[ADAPTER_NAME]
    if type(config) is not LoraConfig or is_plain_start(config):
        return False
    for small, place in ((SMALL, PLACE), (SMALL_GPT2, "transformer.h.0.attn.c_attn")):
        network = make_small(small)
        before = look_at(network, [place])
        attach_trial(network, config, place)
        is_changed = before.finds_other_weights(network, [place])
        if not is_changed or not _has_conv1d(model):
            return is_changed
    before.refuse_other_model(network, arm.name)
    return True


def _has_conv1d(model: ArmModel) -> bool:
    layers = (m for m in model.network.modules() if isinstance(m, BaseTunerLayer))
    return any(isinstance(layer.get_base_layer(), Conv1D) for layer in layers)


def _with_numbers(base: BaseDescription) -> PreTrainedModel:
    """The base model with ones for weights, which take no memory: each tensor is one number."""
    network = build_without_weights(base.folder)
    made: dict[int, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            one = nn.Parameter(torch.ones(1).expand(parameter.shape), requires_grad=False)
            module.register_parameter(name, made.setdefault(id(parameter), one))
    return network
