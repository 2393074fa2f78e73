"""Every command that reads texts says how much of them is read and known, and what it read."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from lorastudy.config.study_file import read_study_file
from lorastudy.units import write_count
from support.command_line import Answer, call

LINE = "Ten boats came in with fish and no song.\n"
PAGE = "# Boats\n\n" + 10 * LINE


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_folder(name: str, files: dict[str, str]) -> Path:
    folder = Path(name)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "cut", "sample_by", "why"),
    [
        (
            {"train/a.md": PAGE, "train/b.md": PAGE, "val.md": PAGE},
            "stream",
            "document",
            "Markdown",
        ),
        ({"train.txt": 9 * LINE, "val.txt": LINE}, "lines", "line", ""),
        (
            {"train.txt": 9 * f"{LINE[:-1]} " + LINE, "val.txt": 4 * LINE},
            "stream",
            "document",
            "would be lost",
        ),
        (
            {"train.txt": 9 * LINE, "val.txt": LINE, "test.txt": 9 * f"{LINE[:-1]} "},
            "stream",
            "document",
            "of the test text would be lost",
        ),
        (
            {
                name: 5 * (json.dumps({"text": PAGE}) + "\n")
                for name in ("train.jsonl", "dev.jsonl")
            },
            "stream",
            "line",
            "would be lost",
        ),
    ],
)
def test_init_joins_texts_that_rows_would_cut_and_says_why(
    files: dict[str, str], cut: str, sample_by: str, why: str, tiny_gpt2: Path
) -> None:
    answer = call("init", make_folder("notes", files), "--base", tiny_gpt2, "--out", "a.yaml")
    assert answer.code == 0, answer.err
    data = read_study_file(Path("a.yaml")).data
    assert (data.rows.cut, data.train.sample_by) == (cut, sample_by)
    assert (
        (why in answer.out and why in Path("a.yaml").read_text())
        if why
        else "Chose" not in (answer.out)
    )
    checked = call("check", "a.yaml", "--json")
    assert checked.code == 0, checked.err
    text = json.loads(checked.out)["train_text"]
    documents = write_count(text["n_documents"], "document")
    assert f"train: {documents}, {text['n_tokens']:,} tokens" in answer.out


def test_init_estimates_tokens_without_the_base_model_and_says_so() -> None:
    files = {"train.txt": 3 * (50 * f"{LINE[:-1]} " + "\n"), "val.txt": 60 * LINE}
    answer = call("init", make_folder("notes", files), "--base", "team/none", "--out", "a.yaml")
    assert answer.code == 0, answer.err
    assert "Tokens are estimated" in answer.out and "unknown" not in answer.out
    assert read_study_file(Path("a.yaml")).data.rows.cut == "stream"


def test_init_refuses_files_without_text() -> None:
    folder = make_folder("notes", {"train.txt": "\n \n", "val.txt": LINE})
    answer = call("init", folder, "--out", "a.yaml")
    assert answer.code == 3 and "train.txt: there is no text" in answer.err


def score(model: object, *options: object) -> Answer:
    return call("evaluate", model, "--protocol", "rows-text", "--length", 24, "--offline", *options)


def counts_of(answer: Answer) -> dict[str, Any]:
    assert answer.code == 0, answer.err
    (record,) = json.loads(answer.out)["evaluations"]
    return record


def test_evaluate_reads_files_folders_and_patterns_as_a_study_does(tiny_gpt2: Path) -> None:
    make_folder("pages", {"a.md": "one\ntwo\n", "b.md": "three\n", ".hidden.md": "four\n"})
    make_folder("mixed", {"a.md": "one\n", "a.txt": "two\n", "b.csv": 'body,n\n"one, two",1\n'})
    with gzip.open("lines.jsonl.gz", "wt") as stream:
        stream.write('{"text": "one"}\n{"text": "two"}\n')
    for named, options, n_documents, n_tokens in (
        ("pages", (), 3, 11),
        ("pages/*.md", (), 3, 11),
        ("pages", ("--sample-by", "document"), 2, 12),
        ("pages/a.md", (), 2, 6),
        ("lines.jsonl.gz", (), 2, 6),
        ("mixed/b.csv", ("--column", "body"), 1, 8),
    ):
        record = counts_of(score(tiny_gpt2, "--benchmark", named, *options, "--json"))
        text = {"n_documents": n_documents, "n_tokens": n_tokens, "n_dropped": 0, "n_unknown": 0}
        assert (named, record["text"]) == (named, text)
        assert record["n_tokens"] == n_tokens
    refused = score(tiny_gpt2, "--benchmark", "mixed")
    assert refused.code == 2 and "files ending in .csv, .md, .txt" in refused.err


@pytest.mark.parametrize(
    ("named", "options", "what"),
    [
        ("", (), "the name is empty"),
        ("a\0b.txt", (), "null byte"),
        ("none", (), "this folder has no file"),
        ("wikitext-2", ("--sample-by", "document"), "applies to text files under path only"),
        ("wikitext-22", (), "did you mean 'wikitext-2'"),
        ("wikitext-2", ("--protocol", "rows-txt"), "did you mean 'rows-text'"),
    ],
)
def test_a_benchmark_that_is_none_is_refused(
    named: str, options: tuple[str, ...], what: str, tiny_gpt2: Path
) -> None:
    Path("none").mkdir()
    answer = score(tiny_gpt2, "--benchmark", named, *options)
    assert answer.code == 2 and what in answer.err


def test_init_reads_compressed_files() -> None:
    for name in ("train-1", "train-2", "val"):
        Path("notes").mkdir(exist_ok=True)
        with gzip.open(f"notes/{name}.txt.gz", "wt") as stream:
            stream.write(3 * LINE)
    answer = call("init", "notes", "--base", "demo", "--out", "a.yaml")
    assert answer.code == 0, answer.err
    assert "train: 6 documents" in answer.out and "val.txt.gz" in answer.out
    assert read_study_file(Path("a.yaml")).base_model.builtin == "demo"


def test_evaluate_and_audit_state_what_is_cut_off(tiny_gpt2: Path) -> None:
    Path("a.txt").write_text("short\n" + "x" * 95 + "\n")
    said = "2 documents, 100 tokens: 72.0 % in no row, 0.0 % unknown to the tokenizer"
    answer = score(tiny_gpt2, "--benchmark", "a.txt")
    assert answer.code == 0 and said in answer.out
    audited = call("audit", tiny_gpt2, "--benchmark", "a.txt", "--length", 24, "--offline")
    assert audited.code == 0 and said in audited.out


def test_a_perplexity_that_no_number_holds_is_said_in_words(tiny_gpt2: Path) -> None:
    Path("one-word.txt").write_text("x" * 2_000)
    options = ("--benchmark", "one-word.txt", "--protocol", "document")
    said = call("evaluate", tiny_gpt2, *options).out
    assert "word perplexity more than the largest number" in said and " inf " not in said


def test_demo_is_a_model_that_evaluate_and_audit_know() -> None:
    Path("a.txt").write_text(LINE)
    assert counts_of(score("demo", "--benchmark", "a.txt", "--json"))["n_documents"] == 1
    said = call("audit", "--reported", 3, "--tokenizer", "demo", "--benchmark", "a.txt")
    assert said.code == 0, said.err


@pytest.mark.parametrize(("text", "is_known"), [("ten boats", True), ("ten boats sail in", False)])
def test_unknown_text_has_no_perplexity_per_byte_or_word(
    text: str, is_known: bool, tiny_gpt2: Path
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = Tokenizer(
        models.WordLevel({"[UNK]": 0, "[EOS]": 1, "ten": 2, "boats": 3}, unk_token="[UNK]")
    )
    known.pre_tokenizer = pre_tokenizers.Whitespace()
    base = Path("base")
    base.mkdir()
    for name in ("config.json", "model.safetensors"):
        (base / name).write_bytes((tiny_gpt2 / name).read_bytes())
    PreTrainedTokenizerFast(
        tokenizer_object=known, unk_token="[UNK]", eos_token="[EOS]"
    ).save_pretrained(base)
    Path("a.txt").write_text(text)
    answer = score(base, "--benchmark", "a.txt", "--json")
    record = counts_of(answer)
    units = [record[key] for key in ("byte_perplexity", "word_perplexity", "bits_per_byte")]
    assert [unit is not None for unit in units] == 3 * [is_known]
    assert record["text"]["n_unknown"] == (0 if is_known else 2)
    said = score(base, "--benchmark", "a.txt").err
    assert ("does not know" in said) == (not is_known)


@pytest.mark.parametrize(
    ("text", "has_units"), [("ten Boats of wood and oak", True), ("TEN", False)]
)
def test_letters_that_the_tokenizer_changes_are_said_beside_the_score(
    text: str, has_units: bool, tiny_gpt2: Path
) -> None:
    shutil.copytree(tiny_gpt2, "base")
    whole = json.loads(Path("base/tokenizer.json").read_text())
    whole["normalizer"] = {"type": "Lowercase"}
    Path("base/tokenizer.json").write_text(json.dumps(whole))
    Path("a.txt").write_text(text)
    options = ("--benchmark", "a.txt", "--protocol", "document")
    record = counts_of(call("evaluate", "base", *options, "--json"))
    units = [record[key] for key in ("byte_perplexity", "word_perplexity", "bits_per_byte")]
    assert [unit is not None for unit in units] == 3 * [has_units]
    said = call("evaluate", "base", *options)
    assert "of the letters changed by it" in said.out
    assert "of the letters of a, such as capitals" in said.err
    assert ("none per byte or word" in said.err) == (not has_units)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        OSError(12, "Cannot allocate memory"),
    ],
)
@pytest.mark.parametrize("command", ["check", "evaluate"])
def test_a_command_that_runs_out_of_memory_ends_with_its_code(
    command: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object, **__: object) -> None:
        raise error

    place = {"check": "api.checking.check_study", "evaluate": "run.evaluate_model.evaluate_model"}
    monkeypatch.setattr(f"lorastudy.{place[command]}", run_out)
    rest = () if command == "check" else ("--benchmark", "imdb", "--protocol", "rows-text")
    answer = call(command, "demo", *rest)
    assert answer.code == 7 and answer.err.startswith("lorastudy: there is not enough memory")
