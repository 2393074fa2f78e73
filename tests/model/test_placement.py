"""Which modules a placement means, from configurations alone: no weight is ever made."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from lorastudy.errors import ConfigError
from lorastudy.model.base import BaseDescription, describe_base
from lorastudy.model.placement import (
    LinearModule,
    ModelShape,
    ResolvedPlacement,
    layer_of,
    resolve_placement,
)
from support.families import COMPOSITES, EXPERTS, MAPPED, layer_types_of, make_config

GPT2_124M = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
}
TRIED = (*MAPPED, *COMPOSITES)
WHOLE = ("attention", "projection", "feed-forward", "output")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> BaseDescription:
    folder = tmp_path_factory.mktemp("gpt2")
    (folder / "config.json").write_text(json.dumps(GPT2_124M))
    return describe_base(folder)


@pytest.fixture(scope="module")
def describe_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], BaseDescription]:
    @cache
    def describe(family: str) -> BaseDescription:
        folder = tmp_path_factory.mktemp(family)
        make_config(family).save_pretrained(folder)
        return describe_base(folder)

    return describe


def resolve(base: BaseDescription, *placement: str, allow_tied: bool = False) -> ResolvedPlacement:
    return resolve_placement("lora-x", placement, base.shape, allow_tied=allow_tied)


def unmapped(base: BaseDescription) -> ModelShape:
    return replace(base.shape, model_type="nova")


@pytest.mark.parametrize(
    ("placement", "n_modules", "n_parameters"),
    [
        (("attention",), 12, 589_824),  # 12 x 16 x (768 + 2,304)
        (("attention", "projection"), 36, 1_622_016),
        (("attention", "projection", "feed-forward"), 48, 2_359_296),
        (WHOLE, 49, 3_175_696),  # + 16 x (768 + 50,257)
        (("attention", "attention-projection"), 24, 884_736),  # the other reading of LoRA-2
        (("attention-projection",), 12, 294_912),
        (("transformer.h.*.mlp.c_proj",), 12, 737_280),
        (("feed-forward",), 12, 737_280),
        (("output",), 1, 816_400),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else None,
)
def test_published_parameter_counts_of_gpt2(
    placement: tuple[str, ...], n_modules: int, n_parameters: int, gpt2: BaseDescription
) -> None:
    resolved = resolve(gpt2, *placement)
    assert len(resolved.targets) == n_modules
    assert resolved.adapter_parameters(rank=16) == n_parameters


def test_tied_head_of_gpt2_is_counted_once(gpt2: BaseDescription) -> None:
    assert gpt2.total_parameters == 124_439_808
    assert gpt2.linear_modules[-1] == LinearModule(
        "lm_head", 768, 50_257, "transformer.wte", is_output=True
    )


def test_gpt2_is_described_from_its_config(gpt2: BaseDescription) -> None:
    assert (gpt2.max_positions, gpt2.hidden_size, gpt2.n_layers) == (1024, 768, 12)
    assert gpt2.vocabulary_size == 50_257


def test_targets_come_in_model_order_whatever_the_placement_says_first(
    gpt2: BaseDescription,
) -> None:
    assert resolve(gpt2, *WHOLE) == resolve(gpt2, *reversed(WHOLE))
    assert resolve(gpt2, "feed-forward", "attention").paths[:3] == (
        "transformer.h.0.attn.c_attn",
        "transformer.h.0.mlp.c_fc",
        "transformer.h.1.attn.c_attn",
    )


def test_pattern_may_name_single_layers(gpt2: BaseDescription) -> None:
    resolved = resolve(gpt2, "transformer.h.3.attn.c_attn", "transformer.h.11.mlp.c_fc")
    assert resolved.paths == ("transformer.h.3.attn.c_attn", "transformer.h.11.mlp.c_fc")


@pytest.mark.parametrize("family", TRIED)
def test_every_layer_has_every_layer_type(
    family: str, describe_family: Callable[[str], BaseDescription]
) -> None:
    base = describe_family(family)
    for layer_type in layer_types_of(family):
        paths = resolve(base, layer_type).paths
        everywhere = {None} if layer_type == "output" else set(range(base.n_layers))
        assert {layer_of(path) for path in paths} == everywhere, layer_type


@pytest.mark.parametrize("family", TRIED)
def test_layer_types_together_are_every_linear_module(
    family: str, describe_family: Callable[[str], BaseDescription]
) -> None:
    base = describe_family(family)
    targets = resolve(base, *layer_types_of(family)).targets
    others = [module for module in base.linear_modules if module not in targets]
    # Gemma 4 has embeddings of its own in every layer
    assert all("per_layer" in module.path for module in others)
    assert bool(others) == family.startswith("gemma4")


@pytest.mark.parametrize("family", TRIED)
def test_projection_leads_back_to_the_residual_stream(
    family: str, describe_family: Callable[[str], BaseDescription]
) -> None:
    base = describe_family(family)
    projection = resolve(base, "projection").targets
    assert {target.out_features for target in projection} == {base.hidden_size}
    of_attention = resolve(base, "attention-projection").paths
    assert len(of_attention) == base.n_layers
    assert len(projection) == base.n_layers * (1 if family in EXPERTS else 2)
    assert set(of_attention) <= {target.path for target in projection}


@pytest.mark.parametrize("family", TRIED)
def test_query_key_and_value_divide_attention(
    family: str, describe_family: Callable[[str], BaseDescription]
) -> None:
    base = describe_family(family)
    if family.startswith("qwen3_5"):  # linear attention has gates besides
        with pytest.raises(ConfigError, match="'query' is not mapped for model type 'qwen3_5_text"):
            resolve(base, "query")
        return
    thirds, whole = resolve(base, "query", "key", "value"), resolve(base, "attention")
    assert thirds.targets == whole.targets
    rows = {path: sum(part.n_rows for part in parts) for path, parts in thirds.parts.items()}
    assert rows == {t.path: t.out_features for t in whole.targets if t.path in rows}


def test_every_mapped_family_is_tried_here() -> None:
    from lorastudy.model import layer_types

    tried = {*MAPPED, *(text for text, _, _ in COMPOSITES.values())}
    assert set(layer_types._FAMILIES) == tried


def test_layer_type_of_experts_is_refused_with_the_reason(
    describe_family: Callable[[str], BaseDescription],
) -> None:
    with pytest.raises(ConfigError, match="no linear modules for layer type 'feed-forward'; its e"):
        resolve(describe_family("gpt_oss"), "feed-forward")


def test_pattern_that_matches_nothing_is_told_what_there_is(gpt2: BaseDescription) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(gpt2, "attention", "transformer.h.*.attn.c_prj")
    assert str(error.value) == (
        "placement of arm 'lora-x': pattern 'transformer.h.*.attn.c_prj' matches no linear "
        "module. This model has transformer.h.*.attn.c_attn (12), transformer.h.*.attn.c_proj "
        "(12), transformer.h.*.mlp.c_fc (12), transformer.h.*.mlp.c_proj (12), lm_head (1). "
        "Use one of these as the pattern."
    )


@pytest.mark.parametrize("suffix", ["c_proj", "attn.c_proj", "h.*.attn.c_proj", "transformer.h.*"])
def test_pattern_is_the_whole_path(suffix: str, gpt2: BaseDescription) -> None:
    with pytest.raises(ConfigError, match="matches no linear module"):
        resolve(gpt2, suffix)


def test_star_stands_for_one_segment(gpt2: BaseDescription) -> None:
    assert len(resolve(gpt2, "transformer.*.0.*.c_proj").paths) == 2
    with pytest.raises(ConfigError, match="matches no linear module"):
        resolve(gpt2, "transformer.*.c_proj")


def test_module_matched_by_two_entries_is_refused(gpt2: BaseDescription) -> None:
    with pytest.raises(
        ConfigError,
        match=r"transformer\.h\.0\.attn\.c_proj is matched by both 'projection' "
        r"and 'attention-projection'\. Remove one of the two\.",
    ):
        resolve(gpt2, "projection", "attention-projection")


def test_layer_type_of_an_unmapped_model_is_told_to_use_patterns(gpt2: BaseDescription) -> None:
    with pytest.raises(ConfigError, match=r"not mapped for model type 'nova'.*c_attn \(12\)"):
        resolve_placement("a", ["attention"], unmapped(gpt2), allow_tied=False)


def test_unknown_rows_of_a_fused_module_are_refused_as_such(gpt2: BaseDescription) -> None:
    with pytest.raises(ConfigError, match=r"'nova'\. Where one module computes queries.*c_attn"):
        resolve_placement("a", ["query"], unmapped(gpt2), allow_tied=False)


def test_patterns_work_for_an_unmapped_model(gpt2: BaseDescription) -> None:
    resolved = resolve_placement(
        "a", ["transformer.h.*.mlp.c_fc"], unmapped(gpt2), allow_tied=False
    )
    assert len(resolved.targets) == 12


def test_pattern_on_a_tied_head_is_refused(gpt2: BaseDescription) -> None:
    with pytest.raises(ConfigError, match=r"lm_head shares its weight with transformer\.wte.*"):
        resolve(gpt2, "attention", "lm_head")


def test_pattern_on_a_tied_head_may_be_allowed(gpt2: BaseDescription) -> None:
    assert resolve(gpt2, "lm_head", allow_tied=True) == resolve(gpt2, "output")


def test_pattern_on_an_untied_head_needs_no_leave(
    describe_family: Callable[[str], BaseDescription],
) -> None:
    assert resolve(describe_family("llama"), "lm_head").paths == ("lm_head",)
