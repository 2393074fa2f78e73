"""Figures are drawn by two processes, and all of them are there whatever becomes of the second."""

import os
import time
from collections.abc import Callable
from functools import partial

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
