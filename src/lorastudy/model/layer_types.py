"""Layer types by name for the common families of causal language models.

`attention` means the modules that compute queries, keys and values. `attention-projection` maps
the heads back to the residual stream. `feed-forward` is the widening part of the MLP. `projection`
is *every* map back to the residual stream, both that of attention and that of the MLP; this is
what the suffix `c_proj` meant in the published study. `output` is the language-model head.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FamilyLayers:
    """Path patterns of one family; each starts at the root of the causal model."""

    attention: tuple[str, ...]
    attention_projection: tuple[str, ...]
    feed_forward: tuple[str, ...]
    feed_forward_projection: tuple[str, ...]
    output: tuple[str, ...] = ("lm_head",)


def _llama_like(*, qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")) -> FamilyLayers:
    return FamilyLayers(
        attention=tuple(f"model.layers.*.self_attn.{name}" for name in qkv),
        attention_projection=("model.layers.*.self_attn.o_proj",),
        feed_forward=("model.layers.*.mlp.gate_proj", "model.layers.*.mlp.up_proj"),
        feed_forward_projection=("model.layers.*.mlp.down_proj",),
    )


_GPT2 = FamilyLayers(
    attention=("transformer.h.*.attn.c_attn",),
    attention_projection=("transformer.h.*.attn.c_proj",),
    feed_forward=("transformer.h.*.mlp.c_fc",),
    feed_forward_projection=("transformer.h.*.mlp.c_proj",),
)
_GPT_NEOX = FamilyLayers(
    attention=("gpt_neox.layers.*.attention.query_key_value",),
    attention_projection=("gpt_neox.layers.*.attention.dense",),
    feed_forward=("gpt_neox.layers.*.mlp.dense_h_to_4h",),
    feed_forward_projection=("gpt_neox.layers.*.mlp.dense_4h_to_h",),
)
_OPT = FamilyLayers(
    attention=tuple(f"model.decoder.layers.*.self_attn.{n}_proj" for n in "qkv"),
    attention_projection=("model.decoder.layers.*.self_attn.out_proj",),
    feed_forward=("model.decoder.layers.*.fc1",),
    feed_forward_projection=("model.decoder.layers.*.fc2",),
)
_PHI3 = FamilyLayers(
    attention=("model.layers.*.self_attn.qkv_proj",),
    attention_projection=("model.layers.*.self_attn.o_proj",),
    feed_forward=("model.layers.*.mlp.gate_up_proj",),
    feed_forward_projection=("model.layers.*.mlp.down_proj",),
)
_LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "smollm3", "olmo", "olmo2")
_FAMILIES: dict[str, FamilyLayers] = {
    "gpt2": _GPT2,
    "gpt_neox": _GPT_NEOX,
    "opt": _OPT,
    "phi3": _PHI3,
    **dict.fromkeys(_LLAMA_LIKE, _llama_like()),
}


def patterns_of(model_type: str, layer_type: str) -> tuple[str, ...] | None:
    """Patterns of a layer type in a family (`config.model_type`); None if it is not mapped."""
    family = _FAMILIES.get(model_type)
    if family is None:
        return None
    match layer_type:
        case "attention":
            return family.attention
        case "attention-projection":
            return family.attention_projection
        case "projection":
            return family.attention_projection + family.feed_forward_projection
        case "feed-forward":
            return family.feed_forward
        case "output":
            return family.output
    raise AssertionError(layer_type)
