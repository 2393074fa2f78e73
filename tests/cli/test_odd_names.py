"""Names that no file can have, and numbers that nobody means: a sentence and exit code 2 or 3."""

from pathlib import Path

import pytest

import lorastudy
from lorastudy.config.study_file import preset_text
from support.command_line import call

LONG, HEX = "a" * 300, "0x" + "f" * 5_000
BENCHMARK = ("--benchmark", "docstrings", "--protocol", "rows-text", "--offline")
COMMANDS = (
    *(("check", name) for name in ("LOOP", LONG, f"{LONG}.yaml", "LATIN")),
    *(("init", name) for name in ("LOOP", LONG, "~nobody-here")),
    *(("init", "demo", "--out", name) for name in ("", "LOOP", LONG)),
    *(("run", "demo", "--out", name) for name in ("", " ", "LOOP", LONG)),
    *(("check", "demo", "--mirror", name) for name in ("", "LOOP", LONG)),
    *((command, "LOOP") for command in ("status", "table", "report", "fsck")),
    *((command, LONG) for command in ("status", "table", "report", "fsck")),
    *((command, "LATIN") for command in ("run", "status", "table", "report", "fsck")),
    *((command, "") for command in ("status", "table", "report", "fsck")),
    *(("extend", name, "--seeds", 1) for name in ("LOOP", LONG, "LATIN")),
    *(("export", "LATIN", name, "--to", "new") for name in ("full", "full-s0-12345678")),
    *(("evaluate", name, *BENCHMARK) for name in ("./no/such/folder", LONG, "a b", "LOOP")),
    ("audit", "--reported", 2, "--benchmark", "docstrings", "--tokenizer", LONG),
    *(("push", name, "owner/name") for name in (LONG, "LOOP")),
    ("compare", "demo", "--adapter", f"a={LONG}", *BENCHMARK),
    ("evaluate", "demo", "--adapter", LONG, *BENCHMARK),
    ("audit", "--reported", 2, "--benchmark", "docstrings", "--tokenizer", "./none/here/."),
    *(("check", "demo", "--set", f"seeds=[{number}]") for number in (HEX, "9" * 5_000, 2**64)),
    *(("check", "demo", "--set", f"training.epochs={number}") for number in (HEX, 10**12)),
    ("check", "demo", "--set", "data.train={path: ~nobody-here/a.txt}"),
    ("check", "demo", "--set", f"base_model={{path: {LONG}}}"),
)


@pytest.fixture
def odd_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "latin").mkdir()
    (tmp_path / "latin" / "study.yaml").write_bytes(b"name: caf\xe9\n")
    return {"LOOP": tmp_path / "loop", "LATIN": tmp_path / "latin"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(map(str, c))[:60])
def test_a_name_that_cannot_be_is_refused_with_a_sentence(
    command: tuple[object, ...], odd_places: dict[str, Path], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    answer = call(*(odd_places.get(str(part), part) for part in command))
    assert answer.code in (2, 3), answer.err
    assert answer.err.startswith("lorastudy: ") and len(answer.err) < 1_000
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_the_place_of_the_schema_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lorastudy.schema.json").mkdir()
    answer = call("init", "demo", "--out", tmp_path / "new.yaml")
    assert answer.code == 2 and "--no-schema" in answer.err
    assert not (tmp_path / "new.yaml").exists()


def test_more_seeds_than_anyone_runs_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(preset_text("demo"))
    answer = call("extend", tmp_path, "--seeds", 99_999_999_999)
    assert answer.code == 2 and "at most 1,000 seeds" in answer.err


def test_the_version_is_printed() -> None:
    answer = call("--version")
    assert (answer.code, answer.out) == (0, f"lorastudy {lorastudy.__version__}\n")


def test_a_current_folder_that_was_deleted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lost").mkdir()
    monkeypatch.chdir(tmp_path / "lost")
    (tmp_path / "lost").rmdir()
    answer = call("status", tmp_path)
    assert answer.code == 2 and "current folder cannot be used" in answer.err
