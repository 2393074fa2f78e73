"""A data file is read as what it is, or refused by its name; none falls through to plain text."""

import bz2
import csv
import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorastudy.config.models import Source
from lorastudy.data.files import read_rows
from lorastudy.data.paths import find_files, local_path
from lorastudy.data.sources import read_documents
from lorastudy.errors import InputError

TEXTS = ["The river ran high.", "Anna wrote, twice.\nYes.", ""]
JSON_LINES = "\n".join(json.dumps({"n": 1, "text": text}) for text in TEXTS)
CSV = 'n,text\n1,The river ran high.\n1,"Anna wrote, twice.\nYes."\n1,""\n'


def zstd(raw: bytes) -> bytes:
    return pa.Codec("zstd").compress(raw, asbytes=True)


def parquet(path: Path, array: pa.Array) -> bytes:
    pq.write_table(pa.table({"n": [1] * len(array), "text": array}), path)
    return path.read_bytes()


def read(path: Path) -> list[str]:
    return read_rows(path, column="text", sample_by="line")


def refusal_of(path: Path) -> str:
    with pytest.raises(InputError) as refused:
        read(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(
            (f"a.{s}", JSON_LINES)
            for s in ("jsonl", "JSONL", "ndjson", "jsonlines", "NDJson", "jl")
        ),
        *((f"a.{s}", json.dumps([{"text": text} for text in TEXTS])) for s in ("json", "JSON")),
        *((f"a.{s}", CSV) for s in ("csv", "CSV", "Csv")),
        *(
            (f"a.{s}", CSV.replace(",", "\t", 1).replace("1,", "1\t"))
            for s in ("tsv", "TSV", "tab")
        ),
    ],
)
def test_table_is_read_whatever_its_name_looks_like(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read(tmp_path / name) == TEXTS


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".ZST", zstd)],
)
@pytest.mark.parametrize(("name", "text"), [("a.jsonl", JSON_LINES), ("a.CSV", CSV)])
def test_compressed_file_is_read_and_one_cut_off_is_refused(
    suffix: str, compress: Callable[[bytes], bytes], name: str, text: str, tmp_path: Path
) -> None:
    path, raw = tmp_path / (name + suffix), compress(text.encode())
    path.write_bytes(raw)
    assert read(path) == TEXTS
    path.write_bytes(raw[: len(raw) // 2])
    assert refusal_of(path)
    (tmp_path / name).write_bytes(raw)
    assert "compressed" in refusal_of(tmp_path / name)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
@pytest.mark.parametrize("is_dictionary", [True, False])
def test_every_kind_of_text_column_is_read(
    kind: pa.DataType, is_dictionary: bool, tmp_path: Path
) -> None:
    if is_dictionary and kind == pa.string_view():
        pytest.skip("Parquet keeps no dictionary of them")
    array = pa.array(TEXTS, kind)
    parquet(tmp_path / "a.PARQUET", array.dictionary_encode() if is_dictionary else array)
    assert read(tmp_path / "a.PARQUET") == TEXTS


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("sign", [",", "\t", ";", "|"])
def test_sign_between_columns_is_read_from_the_header(
    sign: str, ending: str, tmp_path: Path
) -> None:
    path, rows = tmp_path / f"a.{ending}", [("n", "text"), (1, "a, b"), (2, "c; d|e")]
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=sign).writerows(rows)
    assert read(path) == ["a, b", "c; d|e"]
    path.write_text(path.read_text().replace("text", "body"))
    assert "its columns are n, body." in refusal_of(path)
    path.write_text(f"n{sign}text\n1{sign}a{sign}b\n")  # a text with the sign, and no quotes
    assert "line 2: more fields" in refusal_of(path)
    path.write_text("text\na; b|c\n")  # one column, which every sign finds
    assert read(path) == ["a; b|c"]
    (tmp_path / "one.tsv").write_text("text\na, b\n")
    assert read(tmp_path / "one.tsv") == ["a, b"]


def test_column_of_lists_of_texts_is_named_with_its_type(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", pa.array([["a", "b"], []]))
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": ["a", "b"]}))
    for name, kind in (("a.parquet", "list<element: string>"), ("a.jsonl", "a list")):
        said = refusal_of(tmp_path / name)
        assert "column 'text' holds" in said and f"{kind}, not text. Join the texts" in said


def test_column_of_categories_that_are_numbers_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", pa.array([1, 2, 1]).dictionary_encode())
    assert "not text" in refusal_of(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("a.zip", "archive"),
        ("a.tar.gz", "archive"),
        ("a.XLSX", "table"),
        ("a.feather", "table"),
        ("a.pdf", "document"),
        ("a.pkl", "Python objects"),
        ("a.txt.br", "compressed"),
        ("a.HTM", "markup"),
        ("a.xml.gz", "markup"),
        ("a.yml", "table"),
    ],
)
def test_format_that_is_not_read_is_refused_by_its_name(
    name: str, word: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("text")
    assert word in refusal_of(tmp_path / name)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.data", "a.json.bak"])
def test_json_lines_are_never_read_as_plain_text(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(JSON_LINES)
    assert "Rename it to .jsonl" in refusal_of(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (json.dumps([{"text": text} for text in TEXTS], indent=1), ".json."),
        (CSV, ".csv."),
        (CSV.replace(",", "\t"), ".tsv."),
        ('"text"|"n"\n"a"|1\n', ".csv."),
        ("text;label\na;1\n\nb;2", ".csv."),
        ("<!DOCTYPE html>\n<p>The river ran high.", "markup"),
        ('\n<?xml version="1.0"?><a/>', "markup"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.cvs", "a"])
def test_structure_under_another_name_is_never_scored_as_text(
    name: str, text: str, advice: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    assert advice in refusal_of(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["text, image and sound\nare media", "text,n", "<b> is a tag", "[1]"]
)
def test_prose_about_tables_is_plain_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text + "\nYes.")
    assert read(tmp_path / "a.txt") == [*text.split("\n"), "Yes."]


@pytest.mark.parametrize("text", ["[1]", "[]", "[1, 2]", "{"])
def test_brackets_that_hold_no_objects_are_plain_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text)
    assert read(tmp_path / "a.txt") == [text]


@pytest.mark.parametrize("text", ["{1, 2} is a set.\nIt has two members.", '{"a": 1} is JSON.'])
def test_prose_about_braces_is_plain_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(text)
    assert read(tmp_path / "a.md") == text.split("\n")


def test_column_that_is_named_twice_is_refused_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,n,text\na,1,b\n")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "a", "text": "b"}\n')
    pq.write_table(
        pa.Table.from_arrays([pa.array(["a"])] * 2, ["text"] * 2), tmp_path / "a.parquet"
    )
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert "'text' twice" in refusal_of(tmp_path / name)


def test_text_that_commas_cut_into_fields_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,text\n1,The river, high.\n")
    assert "line 2: more fields than the header" in refusal_of(tmp_path / "a.csv")


@pytest.mark.parametrize("text", ["1" * 5000, '{"text": ' + "9" * 5000 + "}"])
def test_number_of_endless_digits_is_not_called_deep(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    assert "4300 digits" in refusal_of(tmp_path / "a.jsonl")


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    for name in ("part1.jsonl", "._part1.jsonl", ".DS_Store", ".cache/part2.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(JSON_LINES)
    assert find_files("**/*", tmp_path) == (tmp_path / "part1.jsonl",)


@pytest.mark.parametrize(
    "named", ["x" * 300, "~nosuchuser/a.txt", "loop/a.txt", "a\0b", "y/" * 3000]
)
def test_path_that_cannot_be_one_is_refused(named: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for find in (find_files, lambda named, base: local_path(named, base, key="path")):
        with pytest.raises(InputError, match="path"):
            find(named, tmp_path)


def test_what_is_no_file_is_not_called_absent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for named in ("pipe", "/dev/null"):
        with pytest.raises(InputError, match="is not a file of texts"):
            find_files(named, tmp_path)


def test_file_that_is_reached_twice_through_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "above").symlink_to(tmp_path)
    with pytest.raises(InputError, match="count twice"):
        find_files("**/*.txt", tmp_path)
    assert find_files("*.txt", tmp_path) == (tmp_path / "a.txt",)


@pytest.mark.parametrize(
    "head",
    [
        "released: 2024-13-41",
        "n: " + "[" * 3000,
        "n: !!int x",
        "n: !!timestamp x",
        "n: &a [*a]",
        "n: " + "1" * 5000,
        "? {a: 1}\n: 2",
    ],
    ids=lambda head: head[:12],
)
def test_odd_card_of_a_mirror_is_read_or_refused(head: str, tmp_path: Path) -> None:
    folder = tmp_path / "o" / "d"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("The river ran high.")
    files = "configs:\n- config_name: c\n  data_files:\n  - {split: train, path: a.txt}\n"
    (folder / "README.md").write_text(f"---\n{files}{head}\n---\ntext")
    source = Source(id="o/d", config="c", split="train")
    try:
        documents = read_documents(source, mirror=tmp_path, offline=True)
    except InputError as error:
        assert "README.md" in str(error)
    else:
        assert documents.texts == ("The river ran high.",)


@pytest.mark.parametrize("pattern", ["''", ".", "'a**b'", "x" * 300, "5", "'[a'", "/etc/passwd"])
def test_odd_path_in_the_card_of_a_mirror_is_refused(pattern: str, tmp_path: Path) -> None:
    folder = tmp_path / "o" / "d"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- data_files:\n  - {{split: train, path: {pattern}}}\n---\n"
    )
    with pytest.raises(InputError, match=str(folder)):
        read_documents(Source(id="o/d", split="train"), mirror=tmp_path, offline=True)
