"""R6, R7, R8, R11, R16: lines that survive, signals, non-finite values, and what safety costs."""

import math
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

from lorastudy.data.batches import Batch
from lorastudy.errors import DivergedError
from lorastudy.interrupts import StopFlag
from lorastudy.model.scoring import Scorer
from lorastudy.run import training
from lorastudy.store.folders import RunFolder
from lorastudy.store.lines import append_record, read_records
from lorastudy.store.records import StepRecord
from support.command_line import ROOT, write_study
from support.forked_studies import call_study
from support.reliability_rows import Row
from support.tiny_runs import (
    SOUND,
    Case,
    in_child,
    make_study,
    start_child,
    wait_for_child,
    write_texts,
)


class Line(BaseModel):
    n: int


@pytest.fixture(scope="module")
def case(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    parent = tmp_path_factory.mktemp("inputs")
    return Case(make_study(tiny_gpt2, SOUND, "lora"), write_texts(parent), parent / "cache")


def test_r6_no_line_that_was_acknowledged_is_lost_at_a_kill(tmp_path: Path) -> None:
    row, draw = Row("R6"), random.Random(6)
    n_acknowledged = n_kills = 0
    for trial in range(100):
        path = tmp_path / f"{trial}.jsonl"
        ours, theirs = os.pipe()

        def write(path: Path = path, theirs: int = theirs) -> None:
            for n in range(10**6):
                append_record(path, Line(n=n))
                os.write(theirs, b".")

        process = start_child(write)
        os.close(theirs)
        os.read(ours, 1)
        time.sleep(draw.uniform(0, 0.003))
        os.kill(process, signal.SIGKILL)
        n_kills += wait_for_child(process) == -signal.SIGKILL
        acknowledged = 1 + len(b"".join(iter(lambda fd=ours: os.read(fd, 65536), b"")))
        os.close(ours)
        lines = read_records(path, Line)
        assert [line.n for line in lines] == list(range(len(lines)))
        assert acknowledged <= len(lines) <= acknowledged + 1
        n_acknowledged += acknowledged
    row.show(f"0 of {n_acknowledged} lines lost in {n_kills} kills")
    assert n_kills == 100


NON_FINITE = {
    "nan loss": lambda nats: nats * float("nan"),
    "infinite loss": lambda nats: nats + float("inf"),
    "infinite gradient": lambda nats: (nats.register_hook(lambda g: g * float("inf")), nats)[1],
    "nan gradient": lambda nats: (nats.register_hook(lambda g: g * float("nan")), nats)[1],
}


def test_r8_no_optimizer_step_follows_a_value_that_is_not_finite(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, after, trials = Row("R8"), 0, 0
    score, step = Scorer.sum_nats, torch.optim.AdamW.step
    for kind, spoil in NON_FINITE.items():
        for micro_batch in (0, 1, 3, 4):  # a step has two; the epoch ends after five or six
            calls, steps = iter(range(10**9)), []

            def changed(
                self: Scorer,
                batch: Batch,
                spoil: Callable[[Tensor], Tensor] = spoil,
                calls: Iterator[int] = calls,
                at: int = micro_batch,
            ) -> Tensor:
                nats = score(self, batch)
                return spoil(nats) if next(calls) == at else nats

            monkeypatch.setattr(Scorer, "sum_nats", changed)
            monkeypatch.setattr(
                torch.optim.AdamW, "step", lambda self, steps=steps: (steps.append(1), step(self))
            )
            folder = case.folder(tmp_path, f"{kind}-{micro_batch}")
            with pytest.raises(DivergedError, match=f"step {micro_batch // 2 + 1}"):
                case.execute(folder)
            after += len(steps) - micro_batch // 2
            trials += 1
            assert len(read_records(folder.steps, StepRecord)) == len(steps)
    row.show(f"{after} steps after the first non-finite value, {trials} trials")
    assert after == 0


def test_a_validation_loss_that_is_not_finite_ends_the_run_as_diverged(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 1.0, math.nan])  # validation and training slice, then validation
    monkeypatch.setattr(training, "average_nats", lambda *_: next(losses))
    folder = case.folder(tmp_path, "nan")
    with pytest.raises(DivergedError, match="epoch 2: the validation loss is nan"):
        case.execute(folder)
    failure = folder.read_result()
    assert failure is not None and failure.status == "diverged"


def test_r7_sigterm_leaves_a_durable_checkpoint_within_five_seconds(
    case: Case, tmp_path: Path
) -> None:
    row, seconds = Row("R7"), []
    for trial in range(5):
        folder = case.folder(tmp_path, f"term-{trial}")
        seen = iter(range(10**9))

        def handler(
            point: str,
            stop: StopFlag,
            seen: Iterator[int] = seen,
            trial: int = trial,
            folder: RunFolder = folder,
        ) -> None:
            if point == "train:after-forward" and next(seen) == 3 * trial:
                stop.listen()
                (folder.path / "asked").write_text(str(time.monotonic()))
                os.kill(os.getpid(), signal.SIGTERM)

        def carry_out(handler: Callable[..., None] = handler, folder: RunFolder = folder) -> None:
            from lorastudy import faults

            stop = StopFlag()
            faults.handler = lambda point: handler(point, stop)
            case.execute(folder, stop)

        assert in_child(carry_out) == 75
        seconds.append(time.monotonic() - float((folder.path / "asked").read_text()))
        assert list(folder.checkpoints.glob("step-*"))
    row.show(f"exit 75 after at most {max(seconds):.2f} s (tiny LoRA; GPT-2: see the benchmark)")
    assert max(seconds) < 5


def measure(*arguments: str) -> tuple[float, float]:
    """Least seconds of six starts of Python, the first with bytecode to write; CPU seconds."""

    def once() -> tuple[float, float]:
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, *arguments]
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": "src", "PYTHONDONTWRITEBYTECODE": ""},
            cwd=ROOT,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.perf_counter() - began, cpu_seconds

    seconds, cpu_seconds = zip(*(once() for _ in range(6)), strict=True)
    return min(seconds), min(cpu_seconds)


def test_r16_help_and_status_start_at_once(tiny_gpt2: Path, tmp_path: Path) -> None:
    row, study = Row("R16"), write_study(tmp_path, tiny_gpt2)
    answer = call_study("run", study, "--out", tmp_path / "out", "--arm", "baseline")
    assert answer.code == 0
    help_seconds, of_help = measure("-m", "lorastudy", "--help")
    status_seconds, of_status = measure("-m", "lorastudy", "status", str(tmp_path / "out"))
    _, of_torch = measure("-c", "import torch")
    row.show(f"--help {help_seconds:.2f} s, status {status_seconds:.2f} s (demanded: 0.30)")
    # other tests may hold the cores meanwhile, and machines differ: importing torch takes about a
    # second of a CPU where the demand is met
    assert max(of_help, of_status) < of_torch / 2
