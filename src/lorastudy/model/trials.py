"""Trials of a method on small models, made here, which show what no key of PEFT says."""

import copy
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from lorastudy.config.models import Arm
from lorastudy.errors import ConfigError, first_line
from lorastudy.model.attach import attach_adapter, look_at, name_kind
from lorastudy.model.base_weights import ask_for_bfloat16, widen_products
from lorastudy.model.peft_config import make_peft_config
from lorastudy.model.placement import ResolvedPlacement

SMALL, WIDER = (
    LlamaConfig(
        hidden_size=width,
        intermediate_size=width,
        num_attention_heads=2,
        num_hidden_layers=1,
        vocab_size=16,
    )
    for width in (8, 64)
)
SMALL_GPT2 = GPT2Config(
    n_embd=8, n_layer=1, n_head=2, vocab_size=16, bos_token_id=0, eos_token_id=0
)
PLACE = "model.layers.0.self_attn.q_proj"


def refuse_held(arm: Arm, placement: ResolvedPlacement) -> None:
    """Check that the adapters of `arm` can be trained on its `base_weights`.

    For bfloat16 this is tried on a small model, since some methods compute from float32 alone.

    Raises:
        ConfigError: PEFT's method cannot, or its start would change weights that are held.
    """
    config = make_peft_config(arm, placement, revision="main")
    if arm.base_weights != "bfloat16" or arm.has_plain_start:
        return
    plain, held = make_small(WIDER), make_small(WIDER)
    ask_for_bfloat16(held)
    widen_products(held)
    try:
        attach_trial(plain, config)
        look_at(plain, [])
    except (ConfigError, RuntimeError):
        return  # the keys are for wider modules
    try:
        attach_trial(held, config)
        look_at(held, [])
    except (ConfigError, RuntimeError) as error:
        reason = first_line(error.__cause__ or error).rstrip(".")
        raise ConfigError(
            f"arm {arm.name!r}: PEFT's {name_kind(config)} does not compute from "
            f"base_weights: {arm.base_weights} ({reason}). "
            "Leave base_weights out, or choose another method."
        ) from error


def make_small(config: PretrainedConfig) -> PreTrainedModel:
    """A random model of a configuration."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        return network


def attach_trial(network: PreTrainedModel, config: PeftConfig, place: str = PLACE) -> PeftModel:
    """Attach the method of `config` to one module of a small model."""
    trial: Any = copy.copy(config)
    trial.target_modules = [place]
    if isinstance(config, LoraConfig):
        trial.r, trial.rank_pattern, trial.alpha_pattern = 2, {}, {}
    if isinstance(config, IA3Config):
        trial.feedforward_modules = []
    return attach_adapter(network, trial, "trial", seed=0, rows=[torch.arange(16)])
