"""Tiny random models of many families, each a model folder with the byte tokenizer."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

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
MAPPED = {
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
    "gpt_neox": _NEOX,
    "opt": {**_NEOX, "ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 1},
    "phi3": {**_LLAMA, "sliding_window": 12},
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": 12},
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": {**_LLAMA, "sliding_window": 12, "attn_logit_softcapping": 2.0},
    "smollm3": _LLAMA,
    "olmo": _LLAMA,
    "olmo2": _LLAMA,
}
OTHERS = {
    "codegen": {**_GPT2, "rotary_dim": 4},
    "cohere": _LLAMA,
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "gpt_oss": {**_LLAMA, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 12},
    "gptj": {**_GPT2, "rotary_dim": 4},
    "granite": _LLAMA,
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": N_CONTEXT},
    "openai-gpt": _GPT2,
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "stablelm": _LLAMA,
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48},
}
FAMILIES = {**MAPPED, **OTHERS}


def save_family(family: str, folder: Path, **values: object) -> Path:
    """A random model of `family` whose logits differ from token to token."""
    limit = {} if family == "xlnet" else {"max_position_embeddings": N_CONTEXT}
    config = AutoConfig.for_model(
        family,
        **{
            "vocab_size": N_VOCABULARY,
            **limit,
            "bos_token_id": 256,
            "eos_token_id": 256,
            **FAMILIES.get(family, {}),
            **values,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.copy_(torch.randn(parameter.shape) * 0.15)
        network.save_pretrained(folder)
    save_byte_tokenizer(folder)
    return folder
