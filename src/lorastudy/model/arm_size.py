"""How much an arm trains and stores, found by attaching it to a model without weights.

This is the code that attaches it in a run, so what a run would refuse is refused here as well.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from lorastudy.config.models import Arm
from lorastudy.errors import ConfigError, first_line
from lorastudy.model.adapters import ArmModel, attach_arm
from lorastudy.model.attach import (
    ADAPTER_NAME,
    attach_adapter,
    is_plain_start,
    look_at,
    name_kind,
)
from lorastudy.model.base import BaseDescription, build_without_weights
from lorastudy.model.base_weights import ask_for_bfloat16, widen_products
from lorastudy.model.peft_config import make_peft_config
from lorastudy.model.placement import ResolvedPlacement

_SMALL, _WIDER = (
    LlamaConfig(
        hidden_size=width,
        intermediate_size=width,
        num_attention_heads=2,
        num_hidden_layers=1,
        vocab_size=16,
    )
    for width in (8, 64)
)
_SMALL_GPT2 = GPT2Config(
    n_embd=8, n_layer=1, n_head=2, vocab_size=16, bos_token_id=0, eos_token_id=0
)
_PLACE = "model.layers.0.self_attn.q_proj"


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
        refuse_held(arm, placement)
    return ArmSize(
        trained=model.n_trained,
        added=sum(p.numel() for p in model.network.parameters()) - base.total_parameters,
        # an adapter that was taken out of the base weights is stored beside its start
        stored=_count_stored(model) * (2 if _is_taken_out(model, arm) else 1),
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
    for small, place in ((_SMALL, _PLACE), (_SMALL_GPT2, "transformer.h.0.attn.c_attn")):
        network = _make_small(small)
        before = look_at(network, [place])
        _attach_trial(network, config, place)
        is_changed = before.finds_other_weights(network, [place])
        if not is_changed or not _has_conv1d(model):
            return is_changed
    before.refuse_other_model(network, arm.name)
    return True


def _has_conv1d(model: ArmModel) -> bool:
    layers = (m for m in model.network.modules() if isinstance(m, BaseTunerLayer))
    return any(isinstance(layer.get_base_layer(), Conv1D) for layer in layers)


def refuse_held(arm: Arm, placement: ResolvedPlacement) -> None:
    """Check that the adapters of `arm` can be trained on its `base_weights`.

    For bfloat16 this is tried on a small model, since some methods compute from float32 alone.

    Raises:
        ConfigError: PEFT's method cannot, or its start would change weights that are held.
    """
    config = make_peft_config(arm, placement, revision="main")
    if arm.base_weights != "bfloat16" or arm.has_plain_start:
        return
    plain, held = _make_small(_WIDER), _make_small(_WIDER)
    ask_for_bfloat16(held)
    widen_products(held)
    try:
        _attach_trial(plain, config)
        look_at(plain, [])
    except (ConfigError, RuntimeError):
        return  # the keys are for wider modules
    try:
        _attach_trial(held, config)
        look_at(held, [])
    except (ConfigError, RuntimeError) as error:
        reason = first_line(error.__cause__ or error).rstrip(".")
        raise ConfigError(
            f"arm {arm.name!r}: PEFT's {name_kind(config)} does not compute from "
            f"base_weights: {arm.base_weights} ({reason}). "
            "Leave base_weights out, or choose another method."
        ) from error


def _make_small(config: PretrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        return network


def _attach_trial(network: PreTrainedModel, config: PeftConfig, place: str = _PLACE) -> None:
    """Attach the method of `config` to one module of a small model."""
    trial: Any = copy.copy(config)
    trial.target_modules = [place]
    if isinstance(config, LoraConfig):
        trial.r, trial.rank_pattern, trial.alpha_pattern = 2, {}, {}
    if isinstance(config, IA3Config):
        trial.feedforward_modules = []
    attach_adapter(network, trial, "trial", seed=0, rows=[torch.arange(16)])


def _with_numbers(base: BaseDescription) -> PreTrainedModel:
    """The base model with ones for weights, which take no memory: each tensor is one number."""
    network = build_without_weights(base.folder)
    made: dict[int, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            one = nn.Parameter(torch.ones(1).expand(parameter.shape), requires_grad=False)
            module.register_parameter(name, made.setdefault(id(parameter), one))
    return network
