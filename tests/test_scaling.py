"""docs/scaling.md shows what its commands print."""

import sys
from pathlib import Path

import pytest

from lorastudy.config.study_file import load_study, preset_text
from lorastudy.launch.sky import make_sky_task
from support.scripts import load_script

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks" / "scaling_2cores_202611"
PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_the_page_on_scaling_has_the_plan_that_its_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["plan.py"])
    load_script(FOLDER / "plan.py").main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 21 and [row for row in rows if row not in PAGE] == []


def test_the_page_on_scaling_has_the_task_that_sky_is_given() -> None:
    study = load_study(preset_text("demo"), "preset demo")
    assert make_sky_task(study, gpus=8, cpus=2) in PAGE


@pytest.mark.parametrize("name", ["plan.txt", "weak.txt"])
def test_the_page_on_scaling_has_the_committed_tables(name: str) -> None:
    lines = (FOLDER / name).read_text().splitlines()
    assert [line for line in lines if line.startswith("|") and line not in PAGE] == []
