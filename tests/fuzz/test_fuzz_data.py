"""Data files and data set cards: the texts that were written, an error for people, and no third.

A sample runs with the other tests. `LORASTUDY_FUZZ=10000 pytest tests/fuzz` tries as many.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lorastudy.data.files import read_rows
from lorastudy.data.mirror import find_split
from lorastudy.errors import UserError
from support.fuzzing import tried_often

pytestmark = pytest.mark.filterwarnings("ignore")


def write_csv(texts: Sequence[str], sign: str) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=sign, quoting=csv.QUOTE_ALL)
    writer.writerows([["n", "text"], *enumerate(texts)])
    return stream.getvalue().encode()


def write_parquet(texts: Sequence[str], kind: pa.DataType) -> bytes:
    stream = io.BytesIO()
    column = pa.array(list(texts), pa.string()).cast(kind)
    pq.write_table(pa.table({"n": pa.array(range(len(texts))), "text": column}), stream)
    return stream.getvalue()


def write_lines(texts: Sequence[str], *, ascii_only: bool) -> bytes:
    rows = (json.dumps({"n": 1, "text": text}, ensure_ascii=ascii_only) for text in texts)
    return "\n".join(rows).encode()


FORMATS: dict[str, Callable[[Sequence[str]], bytes]] = {
    "a.jsonl": lambda texts: write_lines(texts, ascii_only=False),
    "a.NDJSON": lambda texts: write_lines(texts, ascii_only=True),
    "a.json": lambda texts: json.dumps([{"text": text} for text in texts]).encode(),
    "a.csv": lambda texts: write_csv(texts, ","),
    "a.TSV": lambda texts: write_csv(texts, "\t"),
    "a.parquet": lambda texts: write_parquet(texts, pa.string()),
    "b.parquet": lambda texts: write_parquet(texts, pa.large_string()),
    "c.pq": lambda texts: write_parquet(texts, pa.dictionary(pa.int32(), pa.string())),
    "d.PARQUET": lambda texts: write_parquet(texts, pa.string_view()),
    "a.txt": lambda texts: "".join(f"{text}\n" for text in texts).encode(),
    "a.md": lambda texts: "\r\n".join([*texts, ""]).encode(),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda raw: raw,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".XZ": lzma.compress,
    ".zst": lambda raw: bytes(pa.compress(raw, "zstd")),
}
LETTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
TEXTS = st.lists(
    st.one_of(
        st.text(LETTERS, max_size=20),
        st.text('",;\t\n\r\u2028\ufeff{}[]ab ', max_size=8),
        st.sampled_from(["null", "NA", "NaN", "1", "true", "", " ", "PAR1", "BZh", "%PDF"]),
    ),
    min_size=1,
    max_size=6,
)


@tried_often
@given(TEXTS, st.sampled_from(sorted(FORMATS)), st.sampled_from(sorted(COMPRESSIONS)))
def test_texts_are_read_as_they_were_written(texts: list[str], name: str, compression: str) -> None:
    is_plain = name in ("a.txt", "a.md")
    if is_plain:
        texts = [text.replace("\n", " ").replace("\r", " ") for text in texts]
    expected = [texts[0].removeprefix("\ufeff"), *texts[1:]] if is_plain else texts
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (name + compression)
        path.write_bytes(COMPRESSIONS[compression](FORMATS[name](texts)))
        _expect_texts(path, expected, is_plain=is_plain)


def _expect_texts(path: Path, expected: list[str], *, is_plain: bool) -> None:
    try:
        assert read_rows(path, column="text", sample_by="line") == expected
    except UserError as error:  # text that looks like another format, which is refused by name
        assert is_plain
        assert "first bytes" in str(error) or "JSON" in str(error)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.floats(),
    st.dates(),
    st.sampled_from(["train", "test", "default", "data/*.txt", "data/train.txt", "**", "*", ""]),
    st.sampled_from(["../x", "/etc/passwd", ".", "[", "a" * 300, "train[:10%]", "data", "\0"]),
    st.text(max_size=6),
)
KEYS = st.sampled_from(["configs", "config_name", "data_files", "split", "path", "default", "x"])
PARTS = st.recursive(
    SCALARS,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(KEYS, parts, max_size=4),
    max_leaves=10,
)
FILES = st.fixed_dictionaries({"split": SCALARS, "path": SCALARS | st.lists(SCALARS, max_size=2)})
CONFIGS = st.fixed_dictionaries(
    {"data_files": st.lists(FILES | PARTS, max_size=3) | PARTS},
    optional={"config_name": SCALARS, "default": SCALARS},
)
FRAMES = [
    "---\n{}---\n",
    "---\n{}---\ntext",
    "\ufeff---\r\n{}---\r\n",
    "{}",
    "---\n{}",
]
CARDS = st.one_of(
    st.fixed_dictionaries({"configs": st.lists(CONFIGS | PARTS, max_size=3)}),
    PARTS,
)


@tried_often
@given(
    CARDS,
    st.tuples(st.sampled_from(FRAMES), st.binary(max_size=3)),
    st.none() | st.sampled_from(["default", "x", "train"]),
    st.sampled_from(["train", "test"]),
)
def test_data_set_cards_lead_to_files_of_their_folder_or_are_refused(
    card: Any, around: tuple[str, bytes], config: str | None, split: str
) -> None:
    frame, noise = around
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "data" / "train.txt").write_text("a\n")
        head = yaml.safe_dump(card, allow_unicode=True)
        raw = frame.replace("{}", head).encode("utf-8", "replace")
        (folder / "README.md").write_bytes(raw + noise)
        _expect_files_or_error(folder, config, split)


def _expect_files_or_error(folder: Path, config: str | None, split: str) -> None:
    try:
        found = find_split(folder, config, split)
    except UserError as error:
        assert str(folder) in str(error) and len(str(error)) < 1_000
        return
    for path in found.files:
        assert path.is_file() and path.resolve().is_relative_to(folder.resolve())


@pytest.mark.parametrize(
    "head",
    [
        "a: &a [1]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in pairwise("abcdefghijkl")),
        "configs: " + "[" * 1_500,
        "configs: !!python/object/apply:os.system [ls]",
        "configs: " + "9" * 6_000,
        "configs: 2024-13-45",
        "configs: {a: b: c}",
        "? [a]\n: b",
    ],
)  # fmt: skip
def test_odd_heads_of_cards_are_refused_at_once(head: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n")
    with pytest.raises(UserError) as refused:
        find_split(tmp_path, None, "train")
    assert len(str(refused.value)) < 1_000
