"""Faults of the list that have no figure of their own; docs/reliability.md names the test of each.

Reports are killed at their writes, memory ends in every phase, a device gives up, a child dies,
an interrupted command is interrupted again, and padding tokens of all sorts change nothing.
"""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lorastudy.run import setup
from lorastudy.store.checkpoints import list_checkpoints
from lorastudy.store.folders import RunFolder, StudyFolder
from support.command_line import blank_figures, call
from support.forked_studies import call_study, start_study
from support.tiny_runs import (
    KILLED,
    Case,
    assert_same_run,
    make_study,
    wait_for_child,
    write_texts,
)

DRIFTED, NO_MEMORY, CRASHED = 6, 7, 98


@pytest.fixture(scope="module")
def finished(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose baseline is done and reported."""
    folder = tmp_path_factory.mktemp("finished") / "study"
    assert call_study("run", study_file, "--out", folder, "--arm", "baseline").code == 0
    return folder


def raising(error: BaseException, point: str, nth: int) -> Callable[[str, object], None]:
    count = iter(range(10**9))

    def handler(reached: str, _stop: object) -> None:
        if reached == point and next(count) == nth:
            raise error

    return handler


# Memory and devices


@pytest.mark.parametrize(
    "point",
    [
        "train:after-forward",
        "train:after-backward",
        "checkpoint:before-optimizer.safetensors",
        "run:after-validation",
    ],
)
def test_out_of_memory_in_step_save_and_evaluation_is_a_row_and_costs_nothing(
    case: Case, whole: RunFolder, point: str, tmp_path: Path
) -> None:
    folder = case.folder(tmp_path, "short")
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
    assert case.child(folder, raising(error, point, 1)) == NO_MEMORY
    failure = folder.read_result()
    assert failure is not None and failure.status == "out-of-memory"
    assert "peak" in str(failure.reason) and "other processes hold" in str(failure.reason)
    assert str(failure.reason).count("lorastudy run ") == 2
    assert case.child(folder) == 0
    assert_same_run(whole, folder)


def test_a_device_assert_is_a_row_and_the_next_attempt_is_equal(
    case: Case, whole: RunFolder, tmp_path: Path
) -> None:
    folder = case.folder(tmp_path, "assert")
    error = RuntimeError("CUDA error: device-side assert triggered")
    assert case.child(folder, raising(error, "train:after-backward", 5)) == CRASHED
    failure = folder.read_result()
    assert failure is not None and failure.status == "failed"
    assert "device-side assert" in str(failure.reason)
    assert case.child(folder) == 0
    assert_same_run(whole, folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("libraries", {"torch": "9.9"}),
        ("device", "NVIDIA H100"),
        ("threads", 7),
        ("world_size", 2),
        ("python", "4.0"),
    ],
)
def test_another_torch_device_thread_count_or_world_size_is_refused_on_resume(
    *,
    case: Case,
    whole: RunFolder,
    key: str,
    value: dict[str, str] | str | int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = case.folder(tmp_path, "moved")
    assert case.child(folder, lambda p, _: p == "run:after-epoch-line" and os._exit(KILLED))
    kept = [path.name for path in list_checkpoints(folder.checkpoints)]
    take = setup.take_fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(
            setup, "take_fingerprint", lambda *a, **n: take(*a, **n).model_copy(update={key: value})
        )
        assert case.child(folder) == DRIFTED
    failure = folder.read_result()
    assert failure is not None and f"environment.{key}" in str(failure.reason)
    assert [path.name for path in list_checkpoints(folder.checkpoints)] == kept
    assert case.child(folder) == 0
    assert_same_run(whole, folder)


# Processes


def test_a_second_interrupt_ends_command_and_children_at_once(
    finished: Path, tmp_path: Path
) -> None:
    """As Ctrl-C twice in a terminal, which sends SIGINT to all processes of the command."""
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    reached = tmp_path / "reached"

    def wait_in_save(point: str) -> None:
        if point == "checkpoint:before-manifest":
            reached.touch()
            time.sleep(120)

    command = ("run", folder, "--arm", "lora", "--seed", 0)
    process = start_study(*command, handler=wait_in_save)
    for _ in range(6000):
        if reached.exists():
            break
        time.sleep(0.01)
    began = time.monotonic()
    (run,) = (StudyFolder(folder).run(path.name) for path in (folder / "runs").glob("lora-*"))
    while run.is_owned() and time.monotonic() - began < 60:
        os.killpg(process, signal.SIGINT)  # two that come as one are one for the kernel too
        time.sleep(0.5)
    assert wait_for_child(process) == 130
    assert time.monotonic() - began < 60  # and not after the two minutes of the save
    assert call_study(*command).code == 0
    assert call("fsck", folder).code == 0


# The report, killed at its writes


@pytest.fixture(scope="module")
def quick_figures(finished: Path) -> Iterator[None]:
    """Figures only have to be written here, again and again."""
    with blank_figures():
        assert call("report", finished).code == 0
        yield


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("write:before-bytes", 0),
        ("write:before-rename", 0),
        ("publish:before-rename", 0),
        ("publish:between-renames", 0),
        ("write:before-rename", 5),
        ("write:before-rename", 12),
    ],
)
def test_a_report_that_is_killed_at_a_write_is_made_again_whole(
    finished: Path, quick_figures: None, point: str, nth: int, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    before = files_of(folder)
    count = iter(range(10**9))

    def kill(reached: str) -> None:
        is_ours = multiprocessing.current_process().name == "MainProcess"
        if is_ours and reached == point and next(count) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    assert wait_for_child(start_study("report", folder, handler=kill)) == -signal.SIGKILL
    halfway = files_of(folder)
    assert {name for name in before if halfway.get(name) != before[name]} <= {
        name for name in before if point == "publish:between-renames" and "/figures/" in name
    }
    assert call("report", folder).code == 0
    assert files_of(folder) == before


def files_of(folder: Path) -> dict[str, bytes]:
    """Results and report by path, without what readers never look at."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in [folder / "results.json", *(folder / "report").rglob("*")]
        if path.is_file() and not any(part[0] == "." for part in path.relative_to(folder).parts)
    }


# Padding tokens


def test_no_pad_token_and_a_pad_token_that_ends_texts_give_the_same_run(
    flat_gpt2: Path, whole: RunFolder, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(flat_gpt2, base)
    path = base / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    assert "pad_token" not in settings
    path.write_text(json.dumps({**settings, "pad_token": settings["eos_token"]}))
    case = Case(make_study(base), write_texts(tmp_path / "texts"), tmp_path / "cache")
    folder = case.folder(tmp_path, "padded")
    assert case.child(folder) == 0
    lines = [run.steps.read_bytes().splitlines() for run in (whole, folder)]
    steps = [[line.split(b'"seconds"')[0] for line in part] for part in lines]
    assert steps[0] == steps[1] and len(steps[0]) == 9
    scores = [
        [(e.benchmark, e.sum_nats) for e in result.evaluations]
        for result in (whole.read_result(), folder.read_result())
        if result is not None
    ]
    assert scores[0] == scores[1] and len(scores) == 2
