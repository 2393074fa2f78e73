"""Encoding with what a tokenizer adds by itself, as lm-evaluation-harness encodes."""

import json
import shutil
from pathlib import Path

import pytest

from lorastudy.errors import InputError
from lorastudy.model.tokenizer import load_tokenizer

START = 256


@pytest.fixture
def starting(byte_tokenizer: Path, tmp_path: Path) -> Path:
    """The byte tokenizer, which puts its start token before every text."""
    folder = tmp_path / "starting"
    shutil.copytree(byte_tokenizer, folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    token = "<|endoftext|>"
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": token, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {token: {"id": token, "ids": [START], "tokens": [token]}},
    }
    path.write_text(json.dumps(content))
    return folder


def test_start_token_is_added_only_where_it_is_asked_for_and_not_there(starting: Path) -> None:
    tokenizer = load_tokenizer(starting)
    texts = ["ab", "<|endoftext|>c", ""]
    assert tokenizer.encode(texts) == [[97, 98], [START, 99], []]
    assert tokenizer.encode_as_configured(texts) == [[START, 97, 98], [START, 99], [START]]


def test_tokenizer_that_adds_nothing_encodes_alike(byte_tokenizer: Path) -> None:
    tokenizer = load_tokenizer(byte_tokenizer)
    assert tokenizer.encode_as_configured(["ab", ""]) == tokenizer.encode(["ab", ""])


def test_runs_of_spaces_are_text_also_where_they_are_added_tokens(byte_tokenizer: Path) -> None:
    tokenizer = load_tokenizer(byte_tokenizer)
    tokenizer.backend.add_tokens(["    ", "<|end|>"])
    (spaces,), (end,) = tokenizer.encode(["    ", "<|end|>"])
    assert spaces not in tokenizer.added_ids and end in tokenizer.added_ids


def test_text_that_becomes_no_token_is_refused(byte_tokenizer: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(byte_tokenizer, tmp_path / "without-a"))
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    del content["model"]["vocab"]["a"]
    path.write_text(json.dumps(content))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode(["b c\n", "d"]) == load_tokenizer(byte_tokenizer).encode(["b c\n", "d"])
    for encode in (tokenizer.encode, tokenizer.encode_as_configured, tokenizer.write_texts):
        with pytest.raises(InputError, match=r"no token for 'a'.*'b a' would be read without"):
            encode(["b", "b a"])
    content["model"]["unk_token"] = "b"
    path.write_text(json.dumps(content))
    assert len(load_tokenizer(folder).encode(["b a"])[0]) == 3
