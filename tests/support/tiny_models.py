"""Tiny models and their tokenizer, made here: nothing is downloaded, nothing is committed.

Libraries are imported where they are used, since tests/conftest.py sets their environment first.
"""

import json
from pathlib import Path

END_OF_TEXT = "<|endoftext|>"
N_VOCABULARY = 300  # more rows than the tokenizer's 257, as real models have
N_CONTEXT = 64


def save_tiny_gpt2(folder: Path, n_layer: int = 2) -> Path:
    """Fill a folder: GPT-2 of width 32 with dropout 0.1, and the byte tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=n_layer,
        n_embd=32,
        n_head=2,
        vocab_size=N_VOCABULARY,
        n_positions=N_CONTEXT,
        resid_pdrop=0.1,
        embd_pdrop=0.1,
        attn_pdrop=0.1,
        initializer_range=0.2,  # with the usual 0.02 all logits of so narrow a model are alike
        bos_token_id=256,
        eos_token_id=256,
    )
    return _save_model(GPT2LMHeadModel, config, folder)


def save_tiny_llama(folder: Path) -> Path:
    """Fill a folder: Llama with 2 layers, width 32, a tied head, and the byte tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=2,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=N_VOCABULARY,
        max_position_embeddings=N_CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=256,
        eos_token_id=256,
    )
    return _save_model(LlamaForCausalLM, config, folder)


def save_byte_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer without merges to `folder`: one token a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()
    vocabulary = {letters[byte]: byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "model_max_length": N_CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def _save_model(model_class: type, config: object, folder: Path) -> Path:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model_class(config).save_pretrained(folder)
    save_byte_tokenizer(folder)
    return folder
