"""Figures are drawn by two processes, and all of them are there whatever becomes of the second."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import pytest

from lorastudy.analysis.findings import make_findings
from lorastudy.report.figures import in_two
from lorastudy.report.figures.bars import draw_parameters
from lorastudy.report.figures.curves import draw_losses
from lorastudy.report.figures.in_two import draw_all
from lorastudy.report.figures.style import SETTINGS
from lorastudy.report.figures.writing import DrawnFigure
from support.made_results import make_results, make_run

THIS = os.getpid()
NAMES = [f"fig{number}" for number in range(8)]


@pytest.fixture(autouse=True)
def forking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_two, "_can_fork", lambda: True)


def draw(name: str, *, in_copy: Callable[[], None] = lambda: None) -> DrawnFigure:
    time.sleep(0.02)  # long enough for both processes to take some
    if os.getpid() != THIS:
        in_copy()
    return DrawnFigure(name, str(os.getpid()), "", {"png": name.encode() * 100_000})


def test_two_processes_draw_the_figures_in_their_order() -> None:
    drawn = draw_all([partial(draw, name) for name in NAMES])
    assert [figure.name for figure in drawn] == NAMES
    assert {figure.title for figure in drawn} > {str(THIS)}  # who drew it


def test_two_processes_write_the_bytes_of_one() -> None:
    findings = make_findings(make_results([make_run("full", 0), make_run("lora-1", 0)]))
    drawings = [partial(draw, findings) for draw in (draw_parameters, draw_losses)]
    with matplotlib.rc_context(SETTINGS):
        by_two = draw_all(drawings)
        assert by_two == tuple(draw() for draw in drawings)


@pytest.mark.parametrize("end", [lambda: os._exit(1), lambda: 1 / 0])
def test_what_a_copy_does_not_send_is_drawn_here(end: Callable[[], None]) -> None:
    drawn = draw_all([partial(draw, name, in_copy=end) for name in NAMES])
    assert [(figure.name, figure.title) for figure in drawn] == [(n, str(THIS)) for n in NAMES]


def test_a_mistake_in_a_drawing_is_raised_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copies = []
    monkeypatch.setattr(os, "fork", lambda fork=os.fork: copies.append(fork()) or copies[-1])
    with pytest.raises(ZeroDivisionError):
        draw_all([partial(draw, name) for name in NAMES] + [lambda: 1 / 0])
    with pytest.raises(ChildProcessError):
        os.waitpid(copies[0], os.WNOHANG)


ENDED_BY_FORCE = """
import os, signal, sys, time
from pathlib import Path
from lorastudy.report.figures import in_two
from lorastudy.report.figures.writing import DrawnFigure
this, folder = os.getpid(), Path(sys.argv[1])
def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.01)
def draw():
    if os.getpid() == this:
        (folder / "taken").touch()
        wait_for("sending")
        os.kill(this, signal.SIGKILL)
    wait_for("taken")
    (folder / "copy").write_text(str(os.getpid()))
    (folder / "sending").touch()
    return DrawnFigure("fig", "", "", {"png": bytes(1_000_000)})  # more than a pipe holds
in_two._can_fork = lambda: True
in_two.draw_all([draw, draw])
"""


def test_a_copy_ends_if_the_process_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDED_BY_FORCE, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    copy = int((tmp_path / "copy").read_text())
    latest = time.monotonic() + 10
    while is_alive(copy) and time.monotonic() < latest:
        time.sleep(0.02)
    if is_alive(copy):
        os.kill(copy, signal.SIGKILL)
        pytest.fail("it still waits for a reader")


def is_alive(process: int) -> bool:
    """It is there, and not only waits for its parent to look at how it ended."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
