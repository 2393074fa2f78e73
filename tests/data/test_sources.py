"""Documents from every kind of source, and what is said where there are none."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorastudy.config.models import Source
from lorastudy.data.files import _csv_values
from lorastudy.data.sources import Documents, read_documents
from lorastudy.errors import InputError

CARD = """---
configs:
- config_name: small
  data_files:
  - split: train
    path: small/train-*
  - split: test
    path: [small/test-a.jsonl, small/test-b.jsonl]
- config_name: large
  default: true
  data_files: large/*.txt
license: mit
---
Text of the card, with a rule below.
---
"""


def read(folder: Path, name: str, **settings: Any) -> Documents:
    return read_documents(Source(path=name, **settings), mirror=None, offline=True, base=folder)


def refusal(folder: Path, name: str, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, name, **settings)
    return str(caught.value)


def write_parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror" / "owner" / "name"
    write_parquet(folder / "small" / "train-00000.parquet", text=["one", "", "two\n"])
    write_parquet(folder / "small" / "train-00001.parquet", text=["three"])
    (folder / "small" / "test-a.jsonl").write_text('{"text": "four"}\n')
    (folder / "small" / "test-b.jsonl").write_text('{"text": "five"}\n')
    (folder / "large").mkdir()
    (folder / "large" / "a.txt").write_text("six\nseven")
    (folder / "README.md").write_text(CARD)
    return tmp_path / "mirror"


def read_id(mirror: Path | None, **settings: Any) -> Documents:
    return read_documents(Source(id="owner/name", **settings), mirror=mirror, offline=True)


def refuse_id(mirror: Path | None, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_id(mirror, **settings)
    return str(caught.value)


# Plain text


def test_lines_of_a_text_file_are_documents_without_their_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\ntwo é\n".encode())
    assert read(tmp_path, "a.txt").texts == ("one", "", "two é")


def test_line_separators_other_than_newline_stay_in_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\u2028two\x0cthree\n")
    assert read(tmp_path, "a.txt").texts == ("one\u2028two\x0cthree",)


@pytest.mark.parametrize("sample_by", ["line", "paragraph", "document"])
@pytest.mark.parametrize("text", ["a\nb\n\nc\n", "a", "\n\na\n\n\nb", "a\r\nb\r\n\r\nc"])
def test_text_files_are_cut_as_by_datasets(tmp_path: Path, sample_by: str, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode())
    theirs = datasets.load_dataset(
        "text",
        data_files=str(tmp_path / "a.txt"),
        split="train",
        sample_by=sample_by,
        cache_dir=str(tmp_path / "cache"),
    )
    assert list(read(tmp_path, "a.txt", sample_by=sample_by).texts) == list(theirs["text"])


def test_glob_reads_its_files_in_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a.txt", "b/1.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = read(tmp_path, "**/*.txt")
    assert found.texts == ("a.txt", "b/1.txt", "b/2.txt")
    assert found.origin == "**/*.txt (3 files)"


def test_folder_with_glob_signs_in_its_name_is_taken_literally(tmp_path: Path) -> None:
    base = tmp_path / "a[1]*"
    base.mkdir()
    (base / "x.txt").write_text("one")
    (base / "y[2].txt").write_text("two")
    assert read(base, "x.*").texts == ("one",)
    assert read(base, "y[2].txt").texts == ("two",)


@pytest.mark.parametrize("inside", [True, False])
def test_absolute_path_needs_no_base(tmp_path: Path, inside: bool) -> None:
    (tmp_path / "a.txt").write_text("one")
    base = tmp_path if inside else Path("elsewhere")
    assert read(base, str(tmp_path / "*.txt")).texts == ("one",)


def test_line_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    long = "x" * 10_000_000
    (tmp_path / "a.txt").write_text(long)
    (tmp_path / "a.csv").write_text(f"text\n{long}\n")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": long}))
    write_parquet(tmp_path / "a.parquet", text=[long])
    for name in ("a.txt", "a.csv", "a.jsonl", "a.parquet"):
        assert read(tmp_path, name).texts == (long,)


# Files with columns


def test_json_lines_skip_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "one", "n": 1}\n\n{"body": "two\\n"}\n')
    assert read(tmp_path, "a.jsonl", column="body").texts == ("one", "two\n")


@pytest.mark.parametrize(
    "text", ['[{"text": "one"}, {"text": "two"}]', '{"text":"one"}\n{"text":"two"}']
)
def test_json_is_a_list_or_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read(tmp_path, "a.json").texts == ("one", "two")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_keeps_quoted_line_breaks_as_they_are(end: str, tmp_path: Path) -> None:
    rows = ("id,text", '1,"one\ntwo\r\nthree\rfour"', "2,five", "")
    (tmp_path / "a.csv").write_bytes(end.join(rows).encode())
    assert read(tmp_path, "a.csv").texts == ("one\ntwo\r\nthree\rfour", "five")


def test_reading_a_short_csv_never_lowers_the_limit_of_the_whole_process(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\na\n")
    before = csv.field_size_limit()
    lowest = []
    for _ in _csv_values(path, path.read_text(), "text", ","):
        lowest.append(csv.field_size_limit())
    assert min(lowest) >= before == csv.field_size_limit()


def test_parquet_keeps_blank_rows(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", text=["one", "", " two\n"], label=[0, 1, 2])
    assert read(tmp_path, "a.parquet").texts == ("one", "", " two\n")


# Limit


def test_limit_counts_documents_that_are_not_blank(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\none\n \ntwo\nthree\n")
    assert read(tmp_path, "a.txt", limit=2).texts == ("one", "two")
    assert read(tmp_path, "a.txt", limit=9).texts == ("one", "two", "three")


# What is refused

BAD_FILES = {
    "utf8.txt": (b"fine\nbad \xff\n", ["line 2", "0xff", "UTF-8"]),
    "nul.txt": (b"fine\nbad\x00\n", ["line 2", "NUL"]),
    "nul.jsonl": (b'{"text": "a"}\n{"text": "\\u0000"}', ["line 2", "NUL"]),
    "surrogate.jsonl": (b'{"text": "\\ud800"}', ["line 1", "surrogate"]),
    "broken.jsonl": (b'{"text": "a"}\n{"text": \n', ["line 2", "not JSON"]),
    "broken.json": (b'[{"text": "a"},\n\n{"text" 1}]', ["line 3", "not JSON"]),
    "deep.json": (b"[" * 100_000, ["not JSON", "nested"]),
    "number.jsonl": (b'{"text": "a"}\n\n{"text": 5}', ["line 3", "'text'", "int"]),
    "null.jsonl": (b'{"text": null}', ["line 1", "null"]),
    "list.jsonl": (b'["a"]', ["line 1", "list", "object"]),
    "column.jsonl": (b'{"body": "a", "title": "b"}', ["line 1", "'text'", "body, title"]),
    "column.csv": (b"body,title\na,b\n", ["'text'", "body, title"]),
    "short.csv": (b"id,text\n1\n", ["line 2", "null"]),
    "quote.csv": (b'text\n"a" b\n', ["CSV"]),
    "nothing.csv": (b"", ["'text'", "none"]),
    "lfs.parquet": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        ["Git LFS", "git lfs pull"],
    ),
    "annex.txt": (b"/annex/objects/SHA256E-s9--0.txt\n", ["git-annex", "git annex get"]),
    "junk.parquet": (b"PAR1 and then nothing of the sort", ["Parquet", "fetch it again"]),
    "empty.parquet": (b"", ["Parquet"]),
    "empty.txt": (b"", ["no document"]),
    "blank.txt": (b"\n \n\t\n", ["3 documents are blank"]),
    "empty.jsonl": (b"", ["no document"]),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_refused_with_its_name_and_the_place(tmp_path: Path, name: str) -> None:
    content, words = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path, name)
    assert [word for word in [name, *words] if word not in message] == []


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_truncated_parquet_is_refused(tmp_path: Path, kept: float) -> None:
    path = write_parquet(tmp_path / "a.parquet", text=[str(n) for n in range(1_000)])
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * kept)])
    assert "a.parquet is not a whole Parquet file" in refusal(tmp_path, "a.parquet")


def test_parquet_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", body=["a"], label=[1])
    assert "columns are body, label" in refusal(tmp_path, "a.parquet")


def test_parquet_column_of_numbers_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", text=["a"], label=[1])
    assert "int64" in refusal(tmp_path, "a.parquet", column="label")


def test_parquet_null_is_refused_with_its_row(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", text=["a", None])
    assert "row 2" in refusal(tmp_path, "a.parquet")


def test_parquet_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    column = pa.array([b"\xff"], pa.binary()).view(pa.string())
    write_parquet(tmp_path / "a.parquet", text=column)
    assert "UTF-8" in refusal(tmp_path, "a.parquet")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "'a.txt' does not exist" in refusal(tmp_path, "a.txt")


def test_glob_without_a_match_is_refused(tmp_path: Path) -> None:
    assert "'*.txt' does not match any file" in refusal(tmp_path, "*.txt")


def test_folder_instead_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert "notes/*.txt" in refusal(tmp_path, "notes")


# Mirror


def test_split_of_a_mirror_joins_its_files_in_order(mirror: Path) -> None:
    found = read_id(mirror, config="small", split="train")
    assert found.texts == ("one", "", "two\n", "three")
    assert found.origin == "mirror of owner/name/small/train"
    assert read_id(mirror, config="small", split="test").texts == ("four", "five")


def test_config_of_none_is_the_default_one(mirror: Path) -> None:
    assert read_id(mirror, split="train").texts == ("six", "seven")


def test_split_that_the_mirror_lacks_names_those_it_has(mirror: Path) -> None:
    message = refuse_id(mirror, config="small", split="validation")
    assert "no split 'validation'" in message
    assert "train, test" in message


def test_config_that_the_mirror_lacks_names_those_it_has(mirror: Path) -> None:
    assert "small, large" in refuse_id(mirror, config="tiny", split="test")


def test_no_default_among_several_configs_is_refused(mirror: Path) -> None:
    card = mirror / "owner/name/README.md"
    card.write_text(card.read_text().replace("  default: true\n", ""))
    assert "no default config" in refuse_id(mirror, split="test")


def test_file_that_the_card_lists_but_the_mirror_lacks_is_named(mirror: Path) -> None:
    (mirror / "owner/name/small/test-b.jsonl").unlink()
    assert "small/test-b.jsonl" in refuse_id(mirror, config="small", split="test")


@pytest.mark.parametrize("setting", ["sample_by: document", "sep: ';'", "data_dir: large"])
def test_settings_of_a_card_for_reading_files_are_refused_and_others_are_not(
    setting: str, mirror: Path
) -> None:
    card = mirror / "owner/name/README.md"
    whole = card.read_text()
    card.write_text(whole.replace("- config_name: large", f"- {setting}\n  config_name: large"))
    assert f"{setting.split(':')[0]} would change how" in refuse_id(
        mirror, config="large", split="train"
    )
    card.write_text(
        whole.replace("- config_name: large", "- version: 1.0\n  sep:\n  config_name: large")
    )
    assert read_id(mirror, config="large", split="train").texts == ("six", "seven")


def test_card_cannot_lead_out_of_its_data_set(mirror: Path) -> None:
    card = mirror / "owner/name/README.md"
    card.write_text(card.read_text().replace("large/*.txt", "../../*.txt"))
    assert "leads out" in refuse_id(mirror, config="large", split="train")


@pytest.mark.parametrize("text", ["no head", "---\n: [\n---\n", "---\nlicense: mit\n---\n"])
def test_mirror_without_a_usable_card_says_what_is_missing(mirror: Path, text: str) -> None:
    (mirror / "owner/name/README.md").write_text(text)
    assert "data_files" in refuse_id(mirror, split="test")


@pytest.mark.parametrize("config", ["wikitext-2-raw-v1", "wikitext-2-v1"])
def test_mirror_is_read_as_by_datasets(tmp_path: Path, shared_data: Path, config: str) -> None:
    theirs = datasets.load_dataset(
        str(shared_data / "Salesforce/wikitext"),
        config,
        split="validation",
        cache_dir=str(tmp_path),
    )
    source = Source(id="Salesforce/wikitext", config=config, split="validation")
    assert list(read_documents(source, mirror=shared_data, offline=True).texts) == theirs["text"][:]


# Hub


def test_data_set_that_is_neither_mirrored_nor_cached_is_refused_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    message = refuse_id(tmp_path, split="test")
    assert "owner/name is not in the cache" in message
    assert "--mirror" in message
    assert not datasets.config.HF_HUB_OFFLINE


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A hub with one data set; `asked` keeps what was asked for."""
    commit = "a" * 40
    rows = datasets.Dataset.from_dict({"text": ["one", "", "two"], "n": [1, 2, 3]})
    rows.info.download_checksums = {f"hf://datasets/owner/name@{commit}/test.parquet": {}}
    state = SimpleNamespace(asked=None, answer=rows, commit=commit)

    def load_dataset(
        repository: str, config: str | None, *, split: str, revision: str | None
    ) -> object:
        state.asked = (repository, config, split, revision, datasets.config.HF_HUB_OFFLINE)
        if isinstance(state.answer, Exception):
            raise state.answer
        return state.answer

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    return state


def test_hub_gives_texts_and_the_commit_they_came_from(hub: SimpleNamespace) -> None:
    source = Source(id="owner/name", config="small", split="test", revision="v1")
    found = read_documents(source, mirror=None, offline=False)
    assert found == Documents(("one", "", "two"), "owner/name/small/test", hub.commit)
    assert hub.asked == ("owner/name", "small", "test", "v1", False)


def test_offline_reading_keeps_the_library_offline(hub: SimpleNamespace) -> None:
    read_id(None, split="test")
    assert hub.asked[-1] is True


def test_cached_copy_of_another_commit_is_refused(hub: SimpleNamespace) -> None:
    assert hub.commit in refuse_id(None, split="test", revision="b" * 40)


def test_column_of_the_hub_must_be_there_and_hold_text(hub: SimpleNamespace) -> None:
    assert "columns are text, n" in refuse_id(None, split="test", column="body")
    assert "row 1: column 'n' holds int" in refuse_id(None, split="test", column="n")


def test_split_that_the_hub_lacks_names_those_it_has(hub: SimpleNamespace) -> None:
    hub.answer = ValueError("Unknown split \"x\". Should be one of ['train', 'test'].")
    assert "['train', 'test']" in refuse_id(None, split="x")


def test_unreachable_hub_names_the_mirror_option(hub: SimpleNamespace) -> None:
    hub.answer = ConnectionError("Couldn't reach it")
    with pytest.raises(InputError, match="cannot be reached on the hub"):
        read_documents(Source(id="owner/name", split="test"), mirror=None, offline=False)


TALK = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "!"}] for n in "ab"]


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt": ["1?", "2?"], "completion": [" one", " two"], "n": [7, 8]},
        {"messages": TALK},
        {"prompt": [talk[:1] for talk in TALK], "completion": [talk[1:] for talk in TALK]},
    ],
    ids=["texts", "conversations", "messages"],
)
def test_rows_with_answers_come_from_a_mirror_and_from_the_hub_alike(
    columns: dict[str, Any], mirror: Path, hub: SimpleNamespace
) -> None:
    for number in (0, 1):
        part = {name: values[number : number + 1] for name, values in columns.items()}
        write_parquet(mirror / f"owner/name/small/train-0000{number}.parquet", **part)
    hub.answer = datasets.Dataset.from_dict(columns)
    found = [read_id(where, config="small", split="train").examples for where in (mirror, None)]
    of_mirror, of_hub = ([(row.prompt, row.completion) for row in rows] for rows in found)
    assert of_mirror == of_hub and len(of_hub) == 2
    assert found[1][1].place == "owner/name/small/train, row 2"
    assert found[0][1].place.endswith("train-00001.parquet, row 1")


# Built in


def test_built_in_text_needs_neither_file_nor_network() -> None:
    found = read_documents(Source(builtin="licences", split="test"), mirror=None, offline=True)
    assert found.origin == "builtin licences/test"
    assert any(text.strip() for text in found.texts)
