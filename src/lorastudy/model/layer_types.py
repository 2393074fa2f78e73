"""Layer types by name for the common families of causal language models.

`attention` means the modules that compute queries, keys and values, and the gates of linear
attention. `attention-projection` maps the heads back to the residual stream. `feed-forward` is the
widening part of the MLP. `projection` is *every* map back to the residual stream, both that of
attention and that of the MLP; this is what the suffix `c_proj` meant in the published study.
`output` is the language-model head, which is found in every model.

`query`, `key` and `value` are thirds of `attention`. Some families compute them in one fused
module; then the layer type means a part of the module's output rows. Families that mix linear
attention with the usual kind do not have these thirds.
"""

from dataclasses import dataclass, replace
from typing import Literal

FusedLayout = Literal["blocks", "heads"]
QKV = ("query", "key", "value")


@dataclass(frozen=True, slots=True)
class FamilyLayers:
    """Names of a family's modules within a layer. A layer need not have all of them."""

    layers: str  # where the layers are, in the module under the output layer
    attention: tuple[str, ...]  # of queries, keys and values, in this order; or of all in one
    attention_projection: tuple[str, ...]
    feed_forward: tuple[str, ...] = ()  # empty: experts, which are tensors without modules
    feed_forward_projection: tuple[str, ...] = ()
    # rows of a fused module: all queries, all keys, all values; or these of one head after another
    fused: FusedLayout = "blocks"


def _qkv(parent: str) -> tuple[str, ...]:
    return tuple(f"{parent}.{letter}_proj" for letter in "qkv")


_WIDEN, _NARROW = ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",)
_LLAMA = FamilyLayers("layers", _qkv("self_attn"), ("self_attn.o_proj",), _WIDEN, _NARROW)
_LLAMA_LIKE = (
    *("llama", "mistral", "ministral", "ministral3", "granite", "smollm3"),
    *("qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gemma4_text"),
    *("olmo", "olmo2", "olmo3"),
    *("qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text"),
)
_BLOOM = FamilyLayers(
    "h",
    ("self_attention.query_key_value",),
    ("self_attention.dense",),
    ("mlp.dense_h_to_4h",),
    ("mlp.dense_4h_to_h",),
    fused="heads",
)
_GPT2 = FamilyLayers("h", ("attn.c_attn",), ("attn.c_proj",), ("mlp.c_fc",), ("mlp.c_proj",))
_FAMILIES: dict[str, FamilyLayers] = {
    **dict.fromkeys(_LLAMA_LIKE, _LLAMA),
    "gpt2": _GPT2,
    "gpt_bigcode": replace(_GPT2, fused="heads"),
    "gpt_neo": FamilyLayers(
        "h", _qkv("attn.attention"), ("attn.attention.out_proj",), ("mlp.c_fc",), ("mlp.c_proj",)
    ),
    "gptj": FamilyLayers("h", _qkv("attn"), ("attn.out_proj",), ("mlp.fc_in",), ("mlp.fc_out",)),
    "gpt_neox": FamilyLayers(
        "layers",
        ("attention.query_key_value",),
        ("attention.dense",),
        ("mlp.dense_h_to_4h",),
        ("mlp.dense_4h_to_h",),
        fused="heads",
    ),
    "bloom": _BLOOM,
    "falcon": _BLOOM,
    "opt": FamilyLayers(
        "decoder.layers", _qkv("self_attn"), ("self_attn.out_proj",), ("fc1",), ("fc2",)
    ),
    "phi": FamilyLayers(
        "layers", _qkv("self_attn"), ("self_attn.dense",), ("mlp.fc1",), ("mlp.fc2",)
    ),
    "phi3": FamilyLayers(
        "layers", ("self_attn.qkv_proj",), ("self_attn.o_proj",), ("mlp.gate_up_proj",), _NARROW
    ),
    # three layers of linear attention, then one of the usual kind
    "qwen3_5_text": FamilyLayers(
        "layers",
        (
            *_qkv("self_attn"),
            *(f"linear_attn.in_proj_{name}" for name in ("qkv", "z", "b", "a")),
        ),
        ("self_attn.o_proj", "linear_attn.out_proj"),
        _WIDEN,
        _NARROW,
    ),
    "gpt_oss": FamilyLayers("layers", _qkv("self_attn"), ("self_attn.o_proj",)),
}


@dataclass(frozen=True, slots=True)
class LayerPattern:
    """Where a layer type is: a path pattern, and perhaps a part of the modules' rows."""

    pattern: str
    part: str | None = None  # "query", "key" or "value" of a fused module
    layout: FusedLayout = "blocks"


def patterns_of(model_type: str, layer_type: str, body: str) -> tuple[LayerPattern, ...] | None:
    """Patterns of a layer type in a family (`config.model_type`); None if it is not mapped.

    `body` is the path of the module under the output layer. There is no pattern for what the family
    holds in tensors instead of linear modules.
    """
    family = _FAMILIES.get(model_type)
    if family is None:
        return None
    names: tuple[str, ...] = ()
    part: str | None = None
    match layer_type:
        case "attention":
            names = family.attention
        case "attention-projection":
            names = family.attention_projection
        case "projection":
            names = family.attention_projection + family.feed_forward_projection
        case "feed-forward":
            names = family.feed_forward
        case _ if len(family.attention) == len(QKV):
            names = (family.attention[QKV.index(layer_type)],)
        case _ if len(family.attention) == 1:
            names, part = family.attention, layer_type
        case _:
            return None
    return tuple(
        LayerPattern(f"{body}.{family.layers}.*.{name}", part, family.fused if part else "blocks")
        for name in names
    )


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
