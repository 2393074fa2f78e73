"""Every command in the pages is carried out, page by page, or the page says why it is not.

A block is left out only by a comment above it, `<!-- not run here: REASON -->`; its `lorastudy`
commands still have to be understood by the command line. `ADDED` makes the demo and the study of
own texts small, and puts a tiny model where the pages name GPT-2.
"""

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from lorastudy.cli import app
from lorastudy.cli.examples import EXAMPLES
from support.command_line import call, without_page

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(
    r"(?:<!-- not run here: (?P<reason>.{10,}?) -->\n)?^```sh\n(?P<lines>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
ELSEWHERE = {  # what is no `lorastudy` command, and what looks at it instead
    "./run demo": "tests/test_run_script.py",
    "./run test": "tests/test_run_script.py",
    "./run lint": "tests/test_run_script.py",
    "./run docs": "the gate",
    "./run python -m pip": "pip",
    "make check": "tests/test_run_script.py",
    "source .venv/bin/activate": "the shell",
    "torchrun": "tests/launch/test_engines.py",
}
_LORA = "method: lora, placement: [attention], alpha: 4, learning_rates: [1.0e-3]"
_ARMS = (
    "arms=[{name: baseline, method: baseline}, {name: full, method: full, "
    f"learning_rates: [1.0e-3]}}, {{name: lora-1, rank: 1, {_LORA}}}, "
    f"{{name: lora-2, rank: 2, {_LORA}}}]"
)
_DEMO = (
    *("--set", _ARMS),
    *("--set", "training.epochs=1", "--set", "seeds=[0]", "--set", "data.rows.length=24"),
    *("--set", "data.train.limit=16", "--set", "data.validation.limit=4"),
    *("--set", "benchmarks.python-reference.limit=4", "--set", "benchmarks.docstrings.limit=4"),
    *("--set", "benchmarks.licences.limit=4"),
)
_NOTES = ("--set", "data.rows.length=40", "--mirror", "mirror")
_RATES = tuple(
    word
    for arm in ("full", "lora-attention", "lora-all")
    for word in ("--set", f"arms.{arm}.learning_rates=[1.0e-3]")
)
ADDED = {
    "run demo": _DEMO,
    "run my-study.yaml": _DEMO,
    "check my-notes.yaml": _NOTES,
    "run my-notes.yaml": (*_NOTES, "--seed", "0", *_RATES),
}
_TEXT = "The {n}th boat came in with {n} fish and no song.\n"


@dataclass(frozen=True)
class Command:
    page: str
    line: str
    reason: str | None  # why it is not carried out

    @property
    def words(self) -> list[str]:
        """Arguments of `lorastudy`; none for another program."""
        words = shlex.split(self.line, comments=True)
        if words[:2] == ["./run", "lorastudy"]:
            return words[2:]
        return words[1:] if words[0] == "lorastudy" else []


def commands_of(page: str) -> list[Command]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Command(page, line, block["reason"])
        for block in _BLOCK.finditer(text)
        for line in block["lines"].replace("\\\n", " ").splitlines()  # a command may go on below
        if line.strip() and not line.startswith("#")
    ]


PAGES = [
    "README.md",
    *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md")),
]
COMMANDS = [command for page in PAGES for command in commands_of(page)]
PAGES_RUN = [page for page in PAGES if any(c.words and not c.reason for c in commands_of(page))]


def parse(words: list[str]) -> None:
    """Let the command line read `words` without carrying them out."""
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    command.make_context(words[0], words[1:])


@pytest.fixture(scope="module")
def desk(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it: own texts, a finished demo, and a mirror with a tiny GPT-2."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "notes").mkdir()
    for name, numbers in (("train", range(20)), ("validation", range(3)), ("test", range(3, 6))):
        text = "".join(_TEXT.format(n=n) for n in numbers)
        (folder / "notes" / f"{name}.txt").write_text(text)
    shutil.copytree(tiny_gpt2, folder / "mirror" / "openai-community" / "gpt2")
    with without_page():
        answer = call("run", "demo", *_DEMO, "--out", folder / "studies" / "demo")
    assert answer.code == 0, answer.err
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_RUN)
def test_commands_of_a_page_can_be_carried_out_in_their_order(
    page: str, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for command in commands_of(page):
        if command.words and not command.reason:
            added = ADDED.get(" ".join(command.words[:2]), ())
            with without_page():
                answer = call(*command.words, *added)
            assert answer.code == 0, f"{command.line}\n{answer.err}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.page}: {c.line}")
def test_every_command_is_understood_or_has_its_test_elsewhere(command: Command) -> None:
    if command.words:
        parse(command.words)
    else:
        assert any(command.line.startswith(known) for known in ELSEWHERE)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_the_help_are_understood(name: str) -> None:
    for example in EXAMPLES[name]:
        words = shlex.split(example.split(" > ")[0])
        assert words[:2] == ["lorastudy", name]
        parse(words[1:])


def test_every_command_has_examples() -> None:
    assert set(EXAMPLES) == {command.name for command in app.registered_commands}
    assert "lorastudy export studies/demo lora-2" in call("export", "--help").out


def test_a_command_that_is_wrong_is_found() -> None:
    with pytest.raises(Exception, match="--epochs"):
        parse(["run", "demo", "--epochs", "2"])
