"""The command line as a script calls it, in this process or another, and a tiny study for it."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lorastudy.cli import main
from lorastudy.store.folders import RunFolder

ROOT = Path(__file__).resolve().parents[2]
STUDY = """
name: tiny
base_model: {{path: "{base}"}}
data:
  train: {{path: texts/train.txt}}
  validation: {{path: texts/validation.txt}}
  rows: {{cut: lines, length: 40}}
training: {{epochs: 2, rows_per_step: 4, micro_batch: 2, optimizer: {{name: adamw}}}}
seeds: [0, 1]
arms:
  - {{name: baseline, method: baseline}}
  - {{name: full, method: full, learning_rates: [1.0e-3]}}
  - name: lora
    method: lora
    placement: [attention]
    rank: 2
    alpha: 4
    dropout: 0.1
    learning_rates: [1.0e-2]
benchmarks:
  - {{name: tale, path: texts/test.txt, protocols: [rows-text, paper-padded]}}
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


def call(*arguments: object) -> Answer:
    """The command line in this process, exit code and all; signals and threads are put back."""
    out, err = io.StringIO(), io.StringIO()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = [signal.getsignal(number) for number in numbers]
    n_threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lorastudy", *map(str, arguments)])
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    if torch.get_num_threads() != n_threads:  # with more, forks of this process would hang
        torch.set_num_threads(n_threads)
    code = ended.value.code
    assert isinstance(code, int)
    return Answer(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def without_page() -> Iterator[None]:
    """Commands that end with a report write none: it takes seconds, and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lorastudy.report.build.write_report",
            lambda _, folder, **options: folder / "report/index.html",
        )
        yield


@contextlib.contextmanager
def blank_figures() -> Iterator[None]:
    """Reports are written whole, but their figures are blank: drawing them takes two seconds."""
    from lorastudy.report.figures import draw
    from lorastudy.report.figures.writing import FORMATS, DrawnFigure

    files = dict.fromkeys(FORMATS, b'<svg xmlns="http://www.w3.org/2000/svg"></svg>')
    blank = tuple(DrawnFigure(f"fig{n}", f"Fig. {n}", "Blank.", files) for n in range(8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "draw_figures", lambda _: blank)
        yield


def start(*arguments: object) -> subprocess.Popen:
    """`python -m lorastudy` as the leader of its own process group, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "lorastudy", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        start_new_session=True,
    )


def execute(*arguments: object) -> Answer:
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return Answer(process.returncode, out, err)


def until(is_true: Callable[[], object], seconds: float = 60) -> None:
    for _ in range(int(seconds / 0.01)):
        if is_true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


def write_study(folder: Path, base: Path) -> Path:
    """A study file with two trained arms and a baseline, and the texts it names."""
    (folder / "texts").mkdir()
    lines = [f"The {n}th boat came in with {n * n} fish and no song." for n in range(10)]
    lines[4] = "Silence."
    (folder / "texts" / "train.txt").write_text("\n".join(lines))
    (folder / "texts" / "validation.txt").write_text("A boat.\nTen fish, and one song.\n")
    (folder / "texts" / "test.txt").write_text("The last boat.\n\nIt came in with the song.\n")
    path = folder / "study.yaml"
    path.write_text(STUDY.format(base=base))
    return path


def names_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def stamps(folder: Path) -> dict[str, int]:
    return {
        name: (folder / name).stat().st_mtime_ns
        for name in names_in(folder)
        if not name.endswith(".lock")
    }


def assert_same_training(one: RunFolder, other: RunFolder) -> None:
    losses = [[line["loss"] for line in lines_of(folder.steps)] for folder in (one, other)]
    assert losses[0] == losses[1]
    a, b = (load_file(run.best / "adapter_model.safetensors") for run in (one, other))
    assert a.keys() == b.keys()
    assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())
    scores = [
        [e.cross_entropy for e in result.evaluations]
        for result in (one.read_result(), other.read_result())
        if result is not None
    ]
    assert len(scores) == 2 and scores[0] == scores[1]
