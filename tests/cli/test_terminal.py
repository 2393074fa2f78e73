"""Text of other people's files is shown on the terminal and never obeyed; no number is cut."""

import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lorastudy.analysis.findings import read_findings
from lorastudy.cli import main, options, show
from lorastudy.cli.console import make_console
from support.command_line import ROOT, call

FINISHED = ROOT / "tests" / "support" / "finished_study" / "study"
FAILED = "lora-2-s1-6f1c05e1"
ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\u202eback [bold]loud[/bold] :smile:\r"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study whose failed run says something in escape sequences, markup and emoji codes."""
    folder = shutil.copytree(FINISHED, tmp_path / "a[/]b[1]")
    path = folder / "runs" / FAILED / "failure.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reason": ESCAPES}))
    return folder


def test_an_interpreter_without_docstrings_is_refused_in_a_sentence() -> None:
    command = [sys.executable, "-OO", "-m", "lorastudy", "check", "demo"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 2 and "PYTHONOPTIMIZE=2" in said.stderr


def test_a_reader_that_closes_a_table_early_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich would end with 1, so that `set -o pipefail` takes `table DIR | head -1` for one."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        make_console().print("a table")


@pytest.mark.parametrize("command", ["status", "table", ("table", "--format", "md")])
def test_a_reason_is_shown_with_its_controls_replaced_and_its_brackets_kept(
    study: Path, command: str | tuple[str, ...]
) -> None:
    name, *options = (command,) if isinstance(command, str) else command
    answer = call(name, study, *options)
    assert answer.code == 0, answer.err
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", answer.out)
    said = re.sub(r"[\s│\\]+", "", answer.out)
    assert "[bold]loud[/bold]:smile:" in said or command == "table"


def test_a_folder_with_brackets_is_named_as_it_is(study: Path) -> None:
    answers = (call("status", study).out, call("status", study / "no").err)
    unwrapped = ["".join(line.strip() for line in text.splitlines()) for text in answers]
    assert all("a[/]b[1]" in text for text in unwrapped)


def test_a_message_of_an_error_has_no_controls(tmp_path: Path) -> None:
    answer = call("status", tmp_path / "\x1b[2Jno")
    assert answer.code == 2 and "\x1b" not in answer.err and "[2Jno" in answer.err


@pytest.mark.parametrize(
    ("redirection", "code", "said"), [(">/dev/full", 74, "write was refused"), (">&-", 0, "")]
)
def test_output_that_nothing_takes_ends_in_no_traceback(
    redirection: str, code: int, said: str
) -> None:
    done = subprocess.run(
        f"{sys.executable} -m lorastudy table {FINISHED} --format json {redirection}",
        shell=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr and len(done.stderr.splitlines()) <= 1


def test_a_message_that_nobody_reads_leaves_the_exit_code_as_it_is() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "lorastudy", "table", "no-such-folder"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=writer,
        stderr=writer,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 2


@pytest.mark.parametrize(
    "source",
    [
        "def as_int(x): return int(x)\nSECONDS = as_int(os.environ['ODD_SECONDS'])",
        "value = os.environ['ODD_' + 'SECONDS']\nraise KeyError(f'no `{value}`')",
        "raise ValueError('of another cause')",
    ],
)
def test_a_library_that_cannot_use_an_environment_variable_is_answered_with_its_name(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_library.py").write_text(f"import os\n{source}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ODD_SECONDS", "1o")
    monkeypatch.setattr(options, "say_doubts", lambda _: importlib.import_module("odd_library"))
    if "another" in source:
        monkeypatch.setattr(sys, "argv", ["lorastudy", "table", str(FINISHED)])
        with pytest.raises(ValueError, match="of another cause"):
            main()
        return
    answer = call("table", FINISHED)
    assert answer.code == 2 and "environment variable ODD_SECONDS (" in answer.err
    assert "1o" in answer.err and "unset it" in answer.err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", ["status", "table"])
def test_what_an_encoding_lacks_is_replaced(command: str, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lorastudy", command, str(FINISHED)],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"lora-2" in done.stdout and b"Traceback" not in done.stderr
    done.stdout.decode(encoding)


@pytest.mark.parametrize("width", [50, 80, 100, 160])  # at 50, the columns need two tables
def test_no_number_of_a_table_is_cut_or_wrapped(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = read_findings(FINISHED, with_bootstrap=False)
    monkeypatch.setattr(show, "console_width", lambda: width)
    monkeypatch.setattr(show, "make_console", lambda _: make_console(width))
    show.print_results(findings, with_padded=True)
    text = capsys.readouterr().out
    assert "…" not in text.partition("‡")[0].replace("SIGKILL, …", "")
    table = show.build_table1(findings)
    numbers = {
        line
        for row in table.rows
        for cell, column in zip(row, table.columns, strict=True)
        if column.group or column.title.startswith(show._COSTS)
        for line in show._show(cell, is_narrow=width < show._WIDE).plain.splitlines()
    }
    assert numbers and all(number in text for number in numbers)
    assert max(map(len, text.splitlines()[:30])) <= width + 1
