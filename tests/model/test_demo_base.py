"""The base model of the demo is pretrained, small, and what its record says."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

import lorastudy
from lorastudy.data.builtin import read_builtin

BASE = Path(lorastudy.__file__).parent / "demo" / "base"
IMDB = Path(__file__).parents[3] / "shared/data/stanfordnlp/imdb/plain_text"
N_PARAGRAPHS = 60  # some 4,000 tokens: enough for a margin of a nat, done in a second
LENGTH = 128


@cache
def load_tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(BASE, local_files_only=True)


@cache
def read_counts() -> NDArray[np.int64]:
    return np.array(json.loads((BASE / "unigram_counts.json").read_text()), dtype=np.int64)


def read_record() -> dict[str, object]:
    return json.loads((BASE / "pretraining.json").read_text())


def encode(texts: list[str]) -> list[list[int]]:
    return [[0, *load_tokenizer().encode(text)][:LENGTH] for text in texts]


@torch.no_grad()
def measure_model_loss(rows: list[list[int]]) -> float:
    """Nats a token of rows that each begin with the end-of-text token."""
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    nats = 0.0
    for row in rows:
        ids = torch.tensor([row])
        logits = model(input_ids=ids).logits[0, :-1]
        nats += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
    return nats / sum(len(row) - 1 for row in rows)


def measure_unigram_loss(rows: list[list[int]]) -> float:
    """Nats a token under the add-one smoothed token frequencies of the pretraining text."""
    smoothed = read_counts() + 1
    tokens = np.concatenate([row[1:] for row in rows])
    return float(-np.log(smoothed / smoothed.sum())[tokens].mean())


def read_imdb() -> list[str]:
    parquet = pytest.importorskip("pyarrow.parquet")
    files = sorted(IMDB.glob("test-*.parquet"))
    if not files:
        pytest.skip("the IMDB test split is not on this machine")
    reviews = parquet.read_table(files[0])["text"].to_pylist()[:: 25_000 // N_PARAGRAPHS]
    return [review.replace("<br />", "\n") for review in reviews]


def assert_a_nat_better_than_unigram(texts: list[str]) -> None:
    rows = encode(texts)
    assert measure_model_loss(rows) <= measure_unigram_loss(rows) - 1.0


@pytest.mark.parametrize(
    ("name", "split"), [("python-reference", "test"), ("docstrings", "test"), ("licences", "test")]
)
def test_english_it_never_read_costs_a_nat_less_than_by_word_frequency(
    name: str, split: str
) -> None:
    assert_a_nat_better_than_unigram(read_builtin(name, split)[:N_PARAGRAPHS])


def test_reviews_it_never_read_cost_a_nat_less_than_by_word_frequency() -> None:
    assert_a_nat_better_than_unigram(read_imdb())


def test_folder_holds_at_most_16_megabytes() -> None:
    assert sum(file.stat().st_size for file in BASE.iterdir()) <= 16e6


def test_counts_are_those_of_the_recorded_pretraining_text() -> None:
    assert len(read_counts()) == len(load_tokenizer()) == 4096
    assert read_counts().sum() == read_record()["n_tokens"]


def test_recorded_held_out_loss_is_a_nat_under_the_unigram_loss() -> None:
    record = read_record()
    assert record["held_out_loss"] <= record["held_out_unigram_loss"] - 1.0


def test_weights_are_finite_and_of_the_configured_type() -> None:
    config = json.loads((BASE / "config.json").read_text())
    weights = load_file(BASE / "model.safetensors").values()
    assert {str(w.dtype) for w in weights} == {f"torch.{config['dtype']}"}
    assert all(torch.isfinite(w).all() for w in weights)


def test_model_loads_with_the_dropout_of_gpt2() -> None:
    config = AutoModelForCausalLM.from_pretrained(BASE).config
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.1, 0.1, 0.1)


def test_end_of_text_is_start_end_and_token_zero() -> None:
    tokenizer = load_tokenizer()
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|endoftext|>",) * 2
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 0


def test_tokenizer_adds_no_special_tokens() -> None:
    assert 0 not in load_tokenizer().encode("One plain sentence.")


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_encoding_and_decoding(text: str) -> None:
    tokenizer = load_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_byte_survives_encoding_and_decoding() -> None:
    text = "".join(map(chr, range(0x110000 // 64))) + "\r\n\t  \x00 e\u0301 \U0001f600"
    tokenizer = load_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text
