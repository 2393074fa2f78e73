"""Generation in batches, with a cache, gives each prompt what it is given alone without one."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from lorastudy.model.base import load_base
from lorastudy.model.generating import (
    CacheUse,
    Ending,
    Generated,
    choose_cache_use,
    generate_greedily,
)
from lorastudy.model.scoring import make_scorer
from support.families import MAPPED, save_family
from support.tiny_arms import CPU, as_if_trained, attach, lora

N_NEW = 8
LENGTHS = (9, 4, 17, 9, 1)  # tokens of prompts; some are equally long
LONG = {  # another form of rotary embedding for rows of more than 20 tokens
    "original_max_position_embeddings": 20,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 2.0, 4.0, 8.0],
        "original_max_position_embeddings": 20,
    },
}
FAMILIES = {
    **{f: {} for f in ("gpt2", "mistral", "gemma2", "qwen3_5_text", "mamba")},
    "phi3": LONG,
    "bamba": {  # counts positions by its cache, and asks a layer that has none
        **{"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8},
        **{"mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8},
    },
    "lfm2": {"layer_types": ["conv", "conv"]},  # fails to ask such layers how long a text is
}
CACHED = {  # how a family's cache is used where it is not simply used
    "phi3": CacheUse(is_used=False),
    "bamba": CacheUse(is_used=True, names_positions=True),
    "lfm2": CacheUse(is_used=False),
}


@pytest.fixture(scope="module")
def prompts() -> list[tuple[int, ...]]:
    rng = np.random.default_rng(5)
    return [tuple(rng.integers(0, 250, size=n).tolist()) for n in LENGTHS]


@torch.no_grad()
def continue_alone(network: PreTrainedModel, prompt: Sequence[int]) -> tuple[int, ...]:
    """The most likely token of the whole row, computed anew for each token."""
    ids, remembers = list(prompt), network.config.model_type == "phi3"
    for _ in range(N_NEW):
        fresh = copy.deepcopy(network) if remembers else network  # how long a row was
        ids.append(int(fresh(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_each_prompt_alone_without_a_cache(
    family: str, prompts: list[tuple[int, ...]], tmp_path: Path
) -> None:
    folder = save_family(family, tmp_path, **FAMILIES[family])
    network = load_base(folder, device=CPU).eval()
    if family in MAPPED:
        network = as_if_trained(attach(folder, lora("lora-2"))).network
    alone = [continue_alone(network, prompt) for prompt in prompts]
    assert len(set(alone)) > 2  # the prompt matters
    scorer = make_scorer(network, "float32")
    assert scorer.takes_rows_alone == (family == "phi3")
    assert choose_cache_use(scorer, CPU) == CACHED.get(family, CacheUse(is_used=True))
    found = generate_greedily(scorer, prompts, Ending(N_NEW, frozenset()), device=CPU)
    assert found == tuple(Generated(ids, is_cut=True) for ids in alone)


def test_an_answer_ends_at_an_end_token_at_a_stop_or_at_its_limit(
    prompts: list[tuple[int, ...]], tiny_llama: Path
) -> None:
    scorer = make_scorer(attach(tiny_llama, lora("lora-1")).network, "float32")
    whole = generate_greedily(scorer, prompts, Ending(N_NEW, frozenset()), device=CPU)
    end = whole[0].ids[3]
    ended = generate_greedily(scorer, prompts, Ending(N_NEW, frozenset({end})), device=CPU)
    for before, after in zip(whole, ended, strict=True):
        place = before.ids.index(end) if end in before.ids else None
        assert after == Generated(before.ids[:place], is_cut=place is None)
    assert {found.is_cut for found in ended} == {True, False}
    over = Ending(N_NEW, frozenset(), lambda ids: len(ids) == 2)
    stopped = generate_greedily(scorer, prompts, over, device=CPU)
    assert stopped == tuple(Generated(found.ids[:2], is_cut=False) for found in whole)


def test_rows_at_once_do_not_change_what_is_generated(
    prompts: list[tuple[int, ...]], tiny_gpt2: Path
) -> None:
    scorer = make_scorer(attach(tiny_gpt2, lora("lora-4")).network, "float32")
    ending = Ending(N_NEW, frozenset())
    many, one = (
        generate_greedily(scorer, prompts, ending, device=CPU, max_positions=n) for n in (10_000, 1)
    )
    assert many == one
