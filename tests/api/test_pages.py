"""docs/python.md and examples/ are carried out as a notebook would, on a tiny study named demo."""

import re
import shutil
from pathlib import Path

import pytest

from support.command_line import write_study

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "python.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LOAD = 'ls.load_study("demo"'
pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def desk(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with own texts in notes/, and a study file that stands for the demo."""
    folder = tmp_path_factory.mktemp("desk")
    path = write_study(folder, tiny_gpt2)
    text = (
        path.read_text()
        .replace("name: tiny", "name: demo")
        .replace("name: lora\n", "name: lora-2\n")
    )
    path.write_text(text.replace("seeds: [0, 1]", "seeds: [0]").replace("epochs: 2", "epochs: 1"))
    shutil.copytree(folder / "texts", folder / "notes")
    return folder


def carry_out(
    code: str, desk: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """Execute `code` in a copy of the desk, with its study in place of the demo."""
    shutil.copytree(desk, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    assert _LOAD in code
    names: dict[str, object] = {}
    exec(code.replace(_LOAD, 'ls.load_study("study.yaml"'), names)
    return names


def test_every_snippet_of_the_page_can_be_carried_out(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) > 8
    carry_out("\n".join(blocks), desk, tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert "arms.lora.rnak" in printed and "lora-2" in printed and "done" in printed


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_can_be_carried_out(
    path: Path,
    desk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = carry_out(path.read_text(encoding="utf-8"), desk, tmp_path, monkeypatch)
    assert names["winner"] == "lora-2"
    assert (tmp_path / "studies" / "demo" / "report" / "index.html").is_file()
    assert "lora-2 trains" in capsys.readouterr().out.replace("  ", "")
