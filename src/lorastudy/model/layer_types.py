"""Layer types by name for the common families of causal language models.

`attention` means the modules that compute queries, keys and values. `attention-projection` maps
the heads back to the residual stream. `feed-forward` is the widening part of the MLP. `projection`
is *every* map back to the residual stream, both that of attention and that of the MLP; this is
what the suffix `c_proj` meant in the published study. `output` is the language-model head.

`query`, `key` and `value` are thirds of `attention`. Some families compute them in one fused
module; then the layer type means a part of the module's output rows.
"""

from dataclasses import dataclass, replace
from typing import Literal

FusedLayout = Literal["blocks", "heads"]
QKV = ("query", "key", "value")


@dataclass(frozen=True, slots=True)
class FamilyLayers:
    """Path patterns of one family; each starts at the root of the causal model."""

    attention: tuple[str, ...]  # of queries, keys and values, in this order; or of all in one
    attention_projection: tuple[str, ...]
    feed_forward: tuple[str, ...]
    feed_forward_projection: tuple[str, ...]
    output: tuple[str, ...] = ("lm_head",)
    # rows of a fused module: all queries, all keys, all values; or these of one head after another
    fused: FusedLayout = "blocks"


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
    fused="heads",
)
_BLOOM = FamilyLayers(
    attention=("transformer.h.*.self_attention.query_key_value",),
    attention_projection=("transformer.h.*.self_attention.dense",),
    feed_forward=("transformer.h.*.mlp.dense_h_to_4h",),
    feed_forward_projection=("transformer.h.*.mlp.dense_4h_to_h",),
    fused="heads",
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
    "gpt_bigcode": replace(_GPT2, fused="heads"),
    "bloom": _BLOOM,
    "falcon": _BLOOM,
    "gpt_neox": _GPT_NEOX,
    "opt": _OPT,
    "phi3": _PHI3,
    **dict.fromkeys(_LLAMA_LIKE, _llama_like()),
}


@dataclass(frozen=True, slots=True)
class LayerPattern:
    """Where a layer type is: a path pattern, and perhaps a part of the modules' rows."""

    pattern: str
    part: str | None = None  # "query", "key" or "value" of a fused module
    layout: FusedLayout = "blocks"


def patterns_of(model_type: str, layer_type: str) -> tuple[LayerPattern, ...] | None:
    """Patterns of a layer type in a family (`config.model_type`); None if it is not mapped."""
    family = _FAMILIES.get(model_type)
    if family is None:
        return None
    if layer_type in QKV:
        if len(family.attention) == len(QKV):
            return (LayerPattern(family.attention[QKV.index(layer_type)]),)
        return (LayerPattern(family.attention[0], layer_type, family.fused),)
    patterns = {
        "attention": family.attention,
        "attention-projection": family.attention_projection,
        "projection": family.attention_projection + family.feed_forward_projection,
        "feed-forward": family.feed_forward,
        "output": family.output,
    }
    return tuple(LayerPattern(pattern) for pattern in patterns[layer_type])


def rows_of_part(
    part: str, layout: FusedLayout, *, n_rows: int, n_heads: int, n_key_heads: int
) -> tuple[tuple[int, int], ...]:
    """Spans of the output rows of a fused module that compute queries, keys or values.

    "blocks": all queries, all keys, all values. "heads": for each head of keys, the heads of
    queries that share it, then this head of keys, then that of values. A head has
    n_rows / (n_heads + 2 n_key_heads) rows; where this is not whole, there are no spans.
    """
    width, rest = divmod(n_rows, n_heads + 2 * n_key_heads)
    if rest or n_heads % n_key_heads:
        return ()
    n_groups = n_key_heads if layout == "heads" else 1
    sizes = [width * n // n_groups for n in (n_heads, n_key_heads, n_key_heads)]
    first = sum(sizes[: QKV.index(part)])
    begins = (group * sum(sizes) + first for group in range(n_groups))
    return tuple((begin, begin + sizes[QKV.index(part)]) for begin in begins)
