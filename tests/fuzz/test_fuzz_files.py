"""Damaged and odd files: an error for people or a sound result, and never anything else.

A sample runs with the other tests. `LORASTUDY_FUZZ=10000 pytest tests/fuzz` tries as many cases of
each kind. A case that takes longer than the deadline counts as a hang.
"""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config

from lorastudy.data.batches import Padding, make_batch
from lorastudy.data.files import read_rows
from lorastudy.data.rows import cut_lines
from lorastudy.errors import UserError
from lorastudy.model.adapters import load_adapter
from lorastudy.model.base import describe_base, load_base
from lorastudy.model.scoring import make_scorer
from lorastudy.model.tokenizer import load_tokenizer
from support.fuzzing import tried_often
from support.tiny_arms import CPU, as_if_trained, attach, lora

pytestmark = pytest.mark.filterwarnings("ignore")

NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([2**31, 10**9, 10**15, -(10**9), 10**400]),
    st.floats(),
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda parts: (
        st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=6), parts, max_size=3)
    ),
    max_leaves=5,
)
SUFFIXES = st.sampled_from(
    [
        ".jsonl",
        ".json",
        ".csv",
        ".tsv",
        ".parquet",
        ".txt",
        "",
        ".JSONL",
        ".jsonl.gz",
        ".csv.bz2",
        ".pq",
    ]
)
CONTENTS = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(lambda text: text.encode(errors="replace")),
    st.lists(
        st.dictionaries(st.sampled_from(["text", "n", ""]), VALUES, max_size=3), max_size=4
    ).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
    st.lists(st.text('",\n\ttextn01', max_size=12), max_size=5).map(
        lambda rows: "\n".join(["text,n", *rows]).encode()
    ),
)


@contextmanager
def folder_for_a_case() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@tried_often
@given(
    suffix=SUFFIXES, content=CONTENTS, sample_by=st.sampled_from(["line", "paragraph", "document"])
)
def test_data_file_gives_texts_or_an_error_for_people(
    suffix: str, content: bytes, sample_by: Any
) -> None:
    with folder_for_a_case() as folder:
        path = folder / f"a{suffix}"
        path.write_bytes(content)
        try:
            texts = read_rows(path, column="text", sample_by=sample_by)
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert all(isinstance(text, str) for text in texts)


@torch.no_grad()
def score(base: Path, adapter: Path | None) -> Tensor:
    """Nats of two short rows, from the folders alone."""
    describe_base(base)
    end_id = load_tokenizer(base).end_id
    network = load_base(base, device=CPU)
    if adapter is not None:
        load_adapter(network, adapter)
    tokens, table = np.arange(40, 70), cut_lines([0, 20, 30], 24, 1)
    return make_scorer(network, "float32").score(
        make_batch(tokens, table, np.arange(2), Padding(end_id))
    )


@pytest.fixture(scope="module")
def sound(
    tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Tensor, Tensor]:
    """A base model, an adapter, and what the two score: without and with the adapter."""
    adapter = tmp_path_factory.mktemp("adapter")
    as_if_trained(attach(tiny_gpt2, lora("lora-2"))).save(adapter)
    return tiny_gpt2, adapter, score(tiny_gpt2, None), score(tiny_gpt2, adapter)


@st.composite
def damages(draw: Any, names: list[str]) -> tuple[str, str, Any, Any]:
    """(file, kind of damage, where, with what)."""
    name = draw(st.sampled_from(names))
    kinds = ["cut", "flip", "empty", "delete", "garbage"]
    kinds += (
        ["set", "remove"] * 4 if name.endswith(".json") else ["drop", "rename", "add", "reshape"]
    )
    return name, draw(st.sampled_from(kinds)), draw(st.integers(0, 10**6)), draw(VALUES)


def damage(folder: Path, name: str, kind: str, where: int, value: Any) -> None:
    path = folder / name
    raw = path.read_bytes()
    at = where % len(raw)
    if kind in ("set", "remove"):
        content = json.loads(raw)
        keys = sorted({*content, *KNOWN_KEYS.get(name, ())} if kind == "set" else content)
        key = keys[where % len(keys)]
        content[key] = value
        if kind == "remove":
            del content[key]
        path.write_text(json.dumps(content))
    elif kind in ("drop", "rename", "add", "reshape"):
        tensors = load_file(path)
        key = sorted(tensors)[where % len(tensors)]
        if kind == "add":
            tensors["surplus"] = torch.ones(3)
        else:
            tensor = tensors.pop(key)
            if kind != "drop":
                new = f"{key}x" if kind == "rename" else key
                tensors[new] = tensor if kind == "rename" else torch.ones(*tensor.shape, 2)
        path.unlink()
        save_file(tensors, path, metadata={"format": "pt"})
    elif kind == "delete":
        path.unlink()
    else:
        flipped = raw[:at] + bytes([raw[at] ^ 1 << where % 8]) + raw[at + 1 :]
        path.write_bytes(
            {"cut": raw[:at], "flip": flipped, "empty": b"", "garbage": b"\xff\x00"}[kind]
        )


# keys that transformers and PEFT read, whether or not a file has them
KNOWN_KEYS = {
    "config.json": ("num_labels", *GPT2Config.attribute_map, *GPT2Config().to_dict()),
    "adapter_config.json": tuple(field.name for field in dataclasses.fields(LoraConfig)),
}
BASE_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
ADAPTER_FILES = ["adapter_config.json", "adapter_model.safetensors"]
# keys that say how a model computes: another value of them is another model, not damage unsaid
MEANT = ("flip", "set", "remove", "reshape")


@tried_often
@given(damaged=damages(BASE_FILES))
def test_model_folder_gives_its_score_or_an_error_for_people(
    sound: tuple[Path, Path, Tensor, Tensor], damaged: tuple[str, str, Any, Any]
) -> None:
    base, _, expected, _ = sound
    with folder_for_a_case() as folder:
        copy = Path(shutil.copytree(base, folder / "base"))
        damage(copy, *damaged)
        _expect_score_or_error(copy, None, expected, damaged, is_meant=damaged[1] in MEANT)


@tried_often
@given(damaged=damages(ADAPTER_FILES))
def test_adapter_folder_gives_its_score_or_an_error_for_people(
    sound: tuple[Path, Path, Tensor, Tensor], damaged: tuple[str, str, Any, Any]
) -> None:
    base, adapter, without, expected = sound
    with folder_for_a_case() as folder:
        copy = Path(shutil.copytree(adapter, folder / "adapter"))
        damage(copy, *damaged)
        nats = _expect_score_or_error(base, copy, expected, damaged, is_meant=damaged[1] in MEANT)
        if nats is not None and damaged[0] == "adapter_model.safetensors":
            assert not torch.equal(nats, without), "the adapter was left out"


def _expect_score_or_error(
    base: Path, adapter: Path | None, expected: Tensor, damaged: object, *, is_meant: bool
) -> Tensor | None:
    try:
        nats = score(base, adapter)
    except UserError as error:
        assert str(adapter or base) in str(error), damaged
        return None
    # a score may differ only where a number that can be meant was put in another's place
    assert is_meant or torch.equal(nats, expected), damaged
    return nats
