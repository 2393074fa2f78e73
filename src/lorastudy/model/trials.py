"""Trials of a method on small models, made here, which show what no key of PEFT says.

A method of PEFT is an arm if its answer for a token follows from trained tensors and from this
token and those before it. Otherwise scores would depend on the rows that are computed together, or
a resumed run would become another one.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PeftConfig
from torch import Tensor
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

SMALL, _WIDER = (
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


def refuse_odd_answers(arm: Arm, placement: ResolvedPlacement) -> None:
    """Check on a small model what the answers of an adapter follow from.

    Raises:
        ConfigError: They follow from something that is not in its files, or from other tokens.
    """
    if arm.method == "lora":
        return
    config = make_peft_config(arm, placement, revision="main")
    network = make_small(_WIDER)
    try:
        attach_trial(network, config)
        why = next(_find_odd_answers(network), None)
    except (ConfigError, RuntimeError):
        return  # the keys are for wider modules
    if why is not None:
        raise ConfigError(
            f"arm {arm.name!r}: PEFT's {name_kind(config)} cannot be an arm, since {why}. "
            "Choose another method, or leave out a key that does this."
        )


@torch.no_grad()
def _find_odd_answers(network: PreTrainedModel) -> Iterator[str]:
    """Why answers cannot be relied on, with trained tensors that are not those of the start."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    generator = torch.Generator().manual_seed(0)
    for parameter in trained:
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    before = [parameter.clone() for parameter in trained]
    ids = torch.arange(1, 9)[None]
    others = torch.cat([ids[:, :4], ids[:, 4:] + 4], dim=1)
    network.eval()
    answer = _answer(network, ids)
    if not torch.equal(answer, _answer(network, ids)):
        yield "it answers by chance"
    together = _answer(network, torch.cat([ids, others]))
    if not torch.allclose(answer, together[:1], rtol=1e-3, atol=1e-4):
        yield "its answer for a row depends on the rows that are computed beside it"
    if not torch.allclose(answer[:, :4], _answer(network, others)[:, :4], rtol=1e-3, atol=1e-4):
        yield "its answer for a token depends on the tokens after it"

    # in training, where it may draw random numbers
    network.train()
    found = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found.append(_answer(network, ids))
    if not torch.equal(*found):
        yield "it draws random numbers of its own, so a resumed run would become another one"
    if not all(map(torch.equal, before, trained)):
        yield "it changes what is trained while it answers"


def _answer(network: PreTrainedModel, ids: Tensor) -> Tensor:
    """Logits, (rows, T, V)."""
    logits: Tensor = network(input_ids=ids, use_cache=False).logits
    return logits


def refuse_held(arm: Arm, placement: ResolvedPlacement) -> None:
    """Check that the adapters of `arm` can be trained on its `base_weights`.

    For bfloat16 this is tried on a small model, since some methods compute from float32 alone.

    Raises:
        ConfigError: PEFT's method cannot, or its start would change weights that are held.
    """
    config = make_peft_config(arm, placement, revision="main")
    if arm.base_weights != "bfloat16" or arm.has_plain_start:
        return
    plain, held = make_small(_WIDER), make_small(_WIDER)
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


def attach_trial(network: PreTrainedModel, config: PeftConfig, place: str = PLACE) -> None:
    """Attach the method of `config` to one module of a small model."""
    trial: Any = copy.copy(config)
    trial.target_modules = [place]
    if isinstance(config, LoraConfig):
        trial.r, trial.rank_pattern, trial.alpha_pattern = 2, {}, {}
    if isinstance(config, IA3Config):
        trial.feedforward_modules = []
    attach_adapter(network, trial, "trial", seed=0, rows=[torch.arange(16)])
