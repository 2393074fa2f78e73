"""Tiny random models of many families, each a model folder with the byte tokenizer.

A composite model has a tower for images, which must be left out, beside a text part of a family.
"""

import json
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from support.tiny_models import N_CONTEXT, N_VOCABULARY, save_byte_tokenizer

_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": None,
}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": N_CONTEXT}
_NEOX = {**_LLAMA, "num_key_value_heads": 4}
_HYBRID = {  # a layer of linear attention below one of the usual kind
    "layer_types": ["linear_attention", "full_attention"],
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_GEMMA4 = {
    **{**_LLAMA, "num_hidden_layers": 4, "sliding_window": 12},
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 1,  # the last layer has the keys and values of the second
    **{"attention_k_eq_v": True, "num_global_key_value_heads": 1},  # full: values are the keys
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": N_VOCABULARY,
    "global_head_dim": 16,
}
MAPPED = {
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "gptj": {**_GPT2, "rotary_dim": 4},
    "gpt_neox": _NEOX,
    "opt": {**_NEOX, "ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 1},
    "phi": _LLAMA,
    "phi3": {**_LLAMA, "sliding_window": 12},
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": 12},
    "ministral": {**_LLAMA, "layer_types": ["sliding_attention", "full_attention"]},
    "ministral3": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "qwen3_5_text": {**_LLAMA, **_HYBRID},
    "gemma": _LLAMA,
    "gemma2": {**_LLAMA, "sliding_window": 12, "attn_logit_softcapping": 2.0},
    "gemma3_text": {**_LLAMA, "sliding_window": 12, "sliding_window_pattern": 2},
    "gemma4_text": _GEMMA4,
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "smollm3": _LLAMA,
    "olmo": _LLAMA,
    "olmo2": _LLAMA,
    "olmo3": {**_LLAMA, "sliding_window": 12},
    "granite": _LLAMA,
    "gpt_oss": {**_LLAMA, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 12},
}
OTHERS = {
    "codegen": {**_GPT2, "rotary_dim": 4},
    "cohere": _LLAMA,
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": N_CONTEXT},
    "openai-gpt": _GPT2,
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "stablelm": _LLAMA,
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48},
}
FAMILIES = {**MAPPED, **OTHERS}
_TOWER = {
    **{"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "image_size": 8, "patch_size": 4},
}
_QWEN_TOWER = {
    **{"depth": 1, "num_heads": 2, "hidden_size": 16, "intermediate_size": 16, "patch_size": 4},
    **{"spatial_merge_size": 1, "out_hidden_size": 32},
}
_QWEN = {
    **{"vision_config": _QWEN_TOWER, "image_token_id": 299, "video_token_id": 298},
    **{"vision_start_token_id": 297, "vision_end_token_id": 296},
}
_MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
# family of the text part, what is different there, and the other keys
COMPOSITES: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "gemma3": (
        *("gemma3_text", {}),
        {
            "vision_config": {**_TOWER, "model_type": "siglip_vision_model"},
            **{"mm_tokens_per_image": 4, "image_token_id": 299},
        },
    ),
    "gemma4": (
        *("gemma4_text", {"pad_token_id": 0}),
        {
            "vision_config": {
                **{**_TOWER, "num_key_value_heads": 2, "head_dim": 8},
                **{"position_embedding_size": 16, "pooling_kernel_size": 1},
            },
            **{"audio_config": None, "image_token_id": 299, "video_token_id": 298},
        },
    ),
    "mistral3": (
        *("ministral3", {}),
        {
            "vision_config": {**_TOWER, "model_type": "pixtral", "head_dim": 8},
            **{"spatial_merge_size": 1, "image_token_id": 299},
        },
    ),
    "qwen3_5": ("qwen3_5_text", {}, _QWEN),
    "qwen2_vl": (
        *("qwen2_vl_text", _MROPE),
        {**_QWEN, "vision_config": {**_QWEN_TOWER, "embed_dim": 16, "hidden_size": 32}},
    ),
    "qwen2_5_vl": ("qwen2_5_vl_text", _MROPE, _QWEN),
    "qwen3_vl": ("qwen3_vl_text", {}, _QWEN),
}
OTHER_COMPOSITES: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "llama4": (  # its output layer is a part of the module with the text configuration
        *("llama4_text", {"num_local_experts": 2, "intermediate_size_mlp": 48, "pad_token_id": 0}),
        {
            "vision_config": {
                **{**_TOWER, "pixel_shuffle_ratio": 0.5, "vision_output_dim": 16},
                **dict.fromkeys(("projector_input_dim", "projector_output_dim"), 16),
            }
        },
    ),
}
_COMPOSITES = {**COMPOSITES, **OTHER_COMPOSITES}


EXPERTS = ("gpt_oss",)  # families whose feed-forward layers are not linear modules


def layer_types_of(family: str) -> tuple[str, ...]:
    """The layer types that together are the linear modules of a family."""
    types = ("attention", "projection", "feed-forward", "output")
    return tuple(t for t in types if family not in EXPERTS or t != "feed-forward")


def make_config(family: str, **values: object) -> PretrainedConfig:
    """The configuration of a tiny model of `family`, which may be composite."""
    if family in _COMPOSITES:
        text, own, others = _COMPOSITES[family]
        keys = {"model_type": text, **_keys_of(text), **own, **values}
        return AutoConfig.for_model(family, text_config=keys, **others)
    return AutoConfig.for_model(family, **{**_keys_of(family), **values})


def _keys_of(family: str) -> dict[str, object]:
    limit = {} if family == "xlnet" else {"max_position_embeddings": N_CONTEXT}
    ends = {"bos_token_id": 256, "eos_token_id": 256}
    return {"vocab_size": N_VOCABULARY, **limit, **ends, **FAMILIES.get(family, _LLAMA)}


def save_family(family: str, folder: Path, **values: object) -> Path:
    """A random model of `family` whose logits differ from token to token."""
    auto_class = AutoModelForMultimodalLM if family in _COMPOSITES else AutoModelForCausalLM
    config = make_config(family, **values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = auto_class.from_config(config)
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.copy_(torch.randn(parameter.shape) * 0.15)
        network.save_pretrained(folder)
    save_byte_tokenizer(folder)
    return folder


def load_plain(folder: Path) -> PreTrainedModel:
    """The whole model of a folder, as its reader loads it: by the class that config.json names."""
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    network: PreTrainedModel = getattr(transformers, name).from_pretrained(
        folder, dtype=torch.float32
    )
    return network.eval()
