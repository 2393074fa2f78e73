"""Encoding with what a tokenizer adds by itself, as lm-evaluation-harness encodes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from lorastudy.errors import InputError
from lorastudy.model.tokenizer import Tokenizer, load_tokenizer

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
    content["model"]["vocab"]["\ue000"] = content["model"]["vocab"].pop("a")
    path.write_text(json.dumps(content))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode(["b c\n", "d"]) == load_tokenizer(byte_tokenizer).encode(["b c\n", "d"])
    for encode in (tokenizer.encode, tokenizer.encode_as_configured, tokenizer.write_texts):
        with pytest.raises(InputError, match=r"no token for 'a'.*'b a' would be read without"):
            encode(["b", "b a"])
    content["model"]["unk_token"] = "b"
    path.write_text(json.dumps(content))
    assert len(load_tokenizer(folder).encode(["b a"])[0]) == 3


@pytest.fixture
def tokenizer_with(byte_tokenizer: Path, tmp_path: Path) -> Callable[..., Tokenizer]:
    """The byte tokenizer with parts of its tokenizer.json replaced."""

    def load(model: dict[str, object] | None = None, **parts: object) -> Tokenizer:
        folder = Path(shutil.copytree(byte_tokenizer, tmp_path / "edited", dirs_exist_ok=True))
        path = folder / "tokenizer.json"
        content = json.loads((byte_tokenizer / "tokenizer.json").read_text())
        content.update(parts)
        content["model"].update(model or {})
        vocabulary, end = content["model"]["vocab"], content["added_tokens"][0]
        if end["content"] not in vocabulary:
            end["id"] = len(vocabulary)
        path.write_text(json.dumps(content))
        return load_tokenizer(folder)

    return load


_LETTER = {"type": "Split", "pattern": {"String": "e"}, "behavior": "Removed", "invert": False}


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "Replace", "pattern": {"String": "e"}, "content": ""}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [_LETTER]}},
        {"model": {"byte_fallback": True, "vocab": {"a": 0, "b": 1}}},
    ],
    ids=["normalizer", "pre-tokenizer", "fallback"],
)
def test_letters_that_a_step_takes_out_are_refused(
    parts: dict[str, object], tokenizer_with: Callable[..., Tokenizer]
) -> None:
    with pytest.raises(InputError, match="no token for 'e'"):
        tokenizer_with(**parts).encode(["ab e"])


def test_steps_that_only_change_letters_lose_no_text(
    tokenizer_with: Callable[..., Tokenizer],
) -> None:
    steps = [{"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "_"}]
    tokenizer = tokenizer_with(normalizer={"type": "Sequence", "normalizers": steps})
    assert not tokenizer.loses_text
    assert tokenizer.encode(["A"]) == [[95, 97]]


_WORDS = {"type": "WordLevel", "vocab": {"a": 0, "?": 1}}
_PIECES = {"type": "Unigram", "vocab": [["?", 0.0], ["a", -1.0]], "byte_fallback": False}
_SPACES = {"type": "Whitespace"}


@pytest.mark.parametrize(
    ("model", "unknown"),
    [
        ({**_WORDS, "unk_token": "?"}, 1),
        ({**_PIECES, "unk_id": 0}, 0),
        ({"vocab": {"a": 0, "<|endoftext|>": 256}, "unk_token": "<|endoftext|>"}, 256),
        ({"unk_token": "<|endoftext|>"}, None),
    ],
    ids=["words", "pieces", "end-of-text", "bytes"],
)
def test_unknown_text_is_known_by_what_the_model_writes_for_it(
    model: dict[str, object], unknown: int | None, tokenizer_with: Callable[..., Tokenizer]
) -> None:
    tokenizer = tokenizer_with(model, pre_tokenizer=_SPACES)
    assert tokenizer.unknown_id == unknown
    if unknown is not None:
        assert tokenizer.encode(["a x"]) == [[tokenizer.encode(["a"])[0][0], unknown]]


@pytest.mark.parametrize(
    "model", [{**_WORDS, "unk_token": "none"}, {**_PIECES, "unk_id": None}], ids=["words", "pieces"]
)
def test_text_that_a_tokenizer_cannot_read_is_an_error_for_people(
    model: dict[str, object], tokenizer_with: Callable[..., Tokenizer]
) -> None:
    tokenizer = tokenizer_with(model, pre_tokenizer=_SPACES)
    with pytest.raises(InputError, match="the tokenizer cannot read a text"):
        tokenizer.encode(["a x"])


def test_tokens_that_are_drawn_at_random_are_refused(
    tokenizer_with: Callable[..., Tokenizer],
) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json: dropout of the model is set"):
        tokenizer_with({"dropout": 0.1})


def test_answers_end_at_every_token_that_is_special_and_at_no_other(starting: Path) -> None:
    """Some tokenizers name the token that ends a turn in tokenizer.json alone."""
    path = starting / "tokenizer.json"
    tokens = tokenizers.Tokenizer.from_file(str(path))
    tokens.add_special_tokens(["<|eot|>"])
    tokens.add_tokens(["<tool>"])
    tokens.save(str(path))
    tokenizer = load_tokenizer(starting)
    assert tokenizer.ending_ids == {START, START + 1}
    assert tokenizer.decode([97, *tokenizer.ending_ids, START + 2]) == "a<tool>"


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "added_tokens.json"])
def test_a_token_that_would_get_another_id_than_its_file_says_is_refused(
    file: str, byte_tokenizer: Path, tmp_path: Path
) -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    token = {"content": "cat", **flags}

    def load(number: int) -> Tokenizer:
        folder = Path(shutil.copytree(byte_tokenizer, tmp_path / str(number)))
        path = folder / file
        content = json.loads(path.read_text()) if path.exists() else {"cat": number}
        if file == "tokenizer.json":
            content["added_tokens"].append({"id": number, **token})
        elif file == "tokenizer_config.json":
            content["added_tokens_decoder"] = {str(number): token}
        path.write_text(json.dumps(content))
        return load_tokenizer(folder)

    with pytest.raises(InputError, match=rf"{file}: 'cat' has the id 290, and would be read as"):
        load(290)
    assert load(257).encode(["a cat"]) == [[97, 32, 257]]
    (tmp_path / "257/added_tokens.json").write_text('{"cat": 257, "<|endoftext|>": 300}')
    assert load_tokenizer(tmp_path / "257").end_id == START  # what tokenizer.json has goes first


@pytest.mark.parametrize("key", ["bos_token", "eos_token"])
@pytest.mark.parametrize("file", ["added_tokens.json", "tokenizer_config.json"])
def test_start_and_end_tokens_that_would_be_new_are_refused(
    file: str, key: str, byte_tokenizer: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(byte_tokenizer, tmp_path / "edited"))
    path = folder / "tokenizer_config.json"
    config = {**json.loads(path.read_text()), key: "<new>"}
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="'<new>' would begin or end a text"):
        load_tokenizer(folder)
    token = {"content": "<new>", "special": True}
    config["added_tokens_decoder"] = {"256": {**token, "content": "<|endoftext|>"}, "257": token}
    (folder / file).write_text(json.dumps({"added_tokens.json": {"<new>": 257}}.get(file, config)))
    assert load_tokenizer(folder).vocabulary_size == 258


_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}


@pytest.mark.parametrize(
    ("family", "named", "steps"),
    [
        ("qwen2", "PreTrainedTokenizerFast", {}),  # the family's own steps split numbers
        ("llama", "Qwen2Tokenizer", {"normalizer": {"type": "Lowercase"}}),
        (
            "gpt2",
            "GPT2Tokenizer",
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [_DIGITS, _BYTES]}},
        ),
        ("gpt_neox", None, {"normalizer": {"type": "Lowercase"}}),
        ("gpt2", "GPT2Tokenizer", {"model": {"ignore_merges": True}}),
        ("gpt2", "GPT2Tokenizer", {"decoder": {"type": "Fuse"}}),
        ("gpt2", "GPT2Tokenizer", {"added_tokens": {"lstrip": True}}),
    ],
)
def test_tokens_are_those_of_the_file_whatever_family_the_model_is_of(
    family: str, named: str | None, steps: dict[str, Any], byte_tokenizer: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(byte_tokenizer, tmp_path / family))
    content = json.loads((folder / "tokenizer.json").read_text())
    inside = {"model": content["model"], "added_tokens": content["added_tokens"][0]}
    for key, value in steps.items():
        inside.get(key, content).update(value if key in inside else {key: value})
    content["model"]["vocab"]["\u0120at"] = len(content["model"]["vocab"])  # no merge makes it
    for token, merge in (("20", ["2", "0"]), ("\u0120a", ["\u0120", "a"])):
        content["model"]["vocab"][token] = len(content["model"]["vocab"])
        content["model"]["merges"].append(merge)
    content["added_tokens"][0]["id"] = len(content["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": named}))
    texts = ["B at 2020", " a\n\na <|endoftext|> 20"]
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = [raw.encode(text, add_special_tokens=False).ids for text in texts]
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode(texts) == expected
    assert [tokenizer.decode(ids, with_special=True) for ids in expected] == [
        raw.decode(ids, skip_special_tokens=False) for ids in expected
    ]


@pytest.mark.parametrize("step", [_BYTES, {"type": "Sequence", "pretokenizers": [_DIGITS, _BYTES]}])
def test_a_space_before_texts_that_only_one_of_two_files_has_is_refused(
    step: dict[str, object], byte_tokenizer: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(byte_tokenizer, tmp_path / "edited"))
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pre_tokenizer": step}))
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    settings = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(
        InputError, match=r"add_prefix_space is True in tokenizer_config\.json and F"
    ):
        load_tokenizer(folder)
