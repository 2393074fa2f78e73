"""Runs that diverge, are killed, interrupted or owned by another: exit codes and what is kept."""

import json
import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.status import read_status
from support.command_line import (
    assert_same_training,
    call,
    lines_of,
    stamps,
    start,
    until,
)

pytestmark = pytest.mark.usefixtures("blank_figures")


# alpha / rank overflows float32 in the forward after the first step that moves B
DIVERGING = (
    "{name: wild, method: lora, placement: [attention], rank: 1, alpha: 1.0e+38, "
    "learning_rates: [0.9]}"
)


@pytest.fixture
def wild_study(study_file: Path) -> Path:
    path = study_file.with_name("wild.yaml")
    text = study_file.read_text().replace("benchmarks:\n", f"  - {DIVERGING}\nbenchmarks:\n")
    path.write_text(text)
    return path


def test_an_arm_that_diverges_is_reported_and_the_others_finish(
    wild_study: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "wild"
    command = ("run", wild_study, "--out", folder, "--seed", 0, "--jobs", 2)
    answer = call(*command, "--arm", "wild", "--arm", "lora")
    assert answer.code == 5
    assert "wild-s0-" in answer.err and "diverged" in answer.err
    runs = json.loads((folder / "results.json").read_text())["runs"]
    assert {run["arm"]: run["status"] for run in runs} == {"lora": "done", "wild": "diverged"}
    (wild,) = (folder / "runs").glob("wild-*")
    assert (wild / "failure.json").is_file() and not (wild / "result.json").exists()
    assert "diverged" in (folder / "report" / "index.html").read_text()
    before = stamps(folder / "runs")
    assert call(*command, "--arm", "wild", "--arm", "lora").code == 5  # and not tried again
    assert stamps(folder / "runs") == before


LONG = ("--arm", "lora", "--seed", "0", "--set", "training.epochs=30", "--jobs", "2")


@pytest.fixture(scope="module")
def long_run(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("long") / "whole"
    assert call("run", study_file, "--out", folder, *LONG).code == 0
    return only_run(folder)


def only_run(folder: Path) -> RunFolder:
    (run,) = (folder / "runs").iterdir()
    return StudyFolder(folder).run(run.name)


def has_lines(folder: Path, n_lines: int) -> bool:
    steps = list((folder / "runs").glob("*/steps.jsonl"))
    return bool(steps) and steps[0].read_bytes().count(b"\n") >= n_lines


@pytest.mark.slow
def test_ctrl_c_stops_at_a_checkpoint_and_the_same_command_finishes(
    study_file: Path, long_run: RunFolder, tmp_path: Path
) -> None:
    folder = tmp_path / "stopped"
    process = start("run", study_file, "--out", folder, *LONG)
    until(lambda: has_lines(folder, 10))
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "Traceback" not in err and "again" in err
    run = only_run(folder)
    assert read_status(run).status == "interrupted"
    steps = lines_of(run.steps)
    assert 10 <= len(steps) < len(lines_of(long_run.steps))
    assert any(path.name.endswith(f"{steps[-1]['step']:08d}") for path in run.checkpoints.iterdir())
    assert call("run", folder, "--arm", "lora", "--seed", "0", "--jobs", "2").code == 0
    assert_same_training(long_run, run)


def kill_workers(folder: Path) -> None:
    """Kill what the fork server of this process has started, in the middle of a run."""
    until(lambda: has_lines(folder, 10))
    for server in psutil.Process().children():
        for worker in server.children():
            worker.kill()


@pytest.mark.slow
def test_a_run_that_the_system_kills_is_a_row_and_is_retried(
    study_file: Path, long_run: RunFolder, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    killing = threading.Thread(target=kill_workers, args=(folder,))
    killing.start()
    answer = call("run", study_file, "--out", folder, *LONG)
    killing.join()
    assert answer.code == 5, answer.err
    assert "SIGKILL" in answer.err
    run = only_run(folder)
    assert read_status(run).status == "failed"
    assert call("run", folder, "--arm", "lora", "--seed", "0", "--jobs", "2").code == 0
    assert not run.failure.exists()
    assert_same_training(long_run, run)


@pytest.mark.slow
def test_workers_stop_when_the_command_is_killed(study_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "orphaned"
    process = start("run", study_file, "--out", folder, *LONG)
    until(lambda: has_lines(folder, 5))
    process.kill()
    process.communicate(timeout=60)
    run = only_run(folder)
    until(lambda: not run.is_owned(), 20)
    assert read_status(run).status == "interrupted"


def test_a_run_owned_by_another_process_is_left_to_it(study_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    command = ("run", study_file, "--out", folder, "--arm", "baseline")
    assert call(*command, "--set", "benchmarks=[]").code == 0
    run = only_run(folder)
    run.result.unlink()
    with run.claim():
        answer = call(*command, "--set", "benchmarks=[]")
        assert answer.code == 73
        assert run.path.name in answer.err


@pytest.mark.parametrize(("number", "is_renamed"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_signal_while_the_report_is_written_ends_the_command_at_once(
    number: int,
    is_renamed: bool,
    study_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write_half(*_: object) -> Path:
        try:
            os.kill(os.getpid(), number)
        except SystemExit as error:
            if is_renamed:  # as libraries do that are imported when they are first needed
                raise ModuleNotFoundError("Could not import module 'Bloom'.") from error
            raise
        raise AssertionError("the signal was not noticed")

    monkeypatch.setattr("lorastudy.report.build.write_report", write_half)
    folder = tmp_path / "reported"
    options = ("--arm", "baseline", "--set", "benchmarks=[]")
    assert call("run", study_file, "--out", folder, *options).code == 75
    assert only_run(folder).result.is_file()
