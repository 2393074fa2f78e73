"""One run: done once, by one process, and honest about whatever goes wrong."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from lorastudy import faults
from lorastudy.config.training import Training
from lorastudy.errors import DivergedError, OutOfMemoryError
from lorastudy.evaluate.score import score_rows
from lorastudy.machine.environment import take_fingerprint
from lorastudy.model.adapters import load_adapter
from lorastudy.model.base import load_base
from lorastudy.model.scoring import Scorer, make_scorer
from lorastudy.run import setup, training
from lorastudy.store.checkpoints import list_checkpoints
from lorastudy.store.folders import RunFolder
from lorastudy.store.lines import read_records
from lorastudy.store.records import Fingerprint, StepRecord
from lorastudy.store.resuming import Resuming
from lorastudy.store.status import read_status
from support.tiny_runs import (
    CPU,
    KILLED,
    SOUND,
    Case,
    assert_same_run,
    in_child,
    kill_at,
    make_study,
    write_texts,
)

OWNED, DRIFTED, DAMAGED = 73, 6, 3
FILES = ("weights.safetensors", "optimizer.safetensors", "trainer.json", "MANIFEST.json")


@dataclass(frozen=True)
class Done:
    """A run that nothing happened to, and a copy that was killed after its last checkpoint."""

    case: Case
    folder: RunFolder
    killed: RunFolder

    def copy_of_killed(self, parent: Path) -> RunFolder:
        folder = self.case.folder(parent, "copy")
        shutil.copytree(self.killed.path, folder.path)
        return folder


@pytest.fixture(scope="module")
def done(flat_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    parent = tmp_path_factory.mktemp("done")
    case = Case(make_study(flat_gpt2, SOUND, "lora"), write_texts(parent / "t"), parent / "cache")
    folder, killed = case.folder(parent, "done"), case.folder(parent, "killed")
    assert case.child(folder) == 0
    assert case.child(killed, kill_at("run:after-validation", 2)) == KILLED
    assert [path.name for path in list_checkpoints(killed.checkpoints)] == [
        "step-00000006",
        "step-00000009",
    ]
    return Done(case, folder, killed)


def snapshot(folder: Path) -> dict[Path, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


# Once, by one


def test_a_finished_run_is_read_and_not_repeated(done: Done) -> None:
    before = snapshot(done.folder.path)
    result = done.case.execute(done.folder)
    assert result == done.folder.read_result()
    assert snapshot(done.folder.path) == before


def test_the_published_time_has_validation_and_checkpoints_but_not_scoring(done: Done) -> None:
    result = done.folder.read_result()
    assert result is not None and result.train_seconds and result.total_seconds
    scoring = sum(evaluation.seconds for evaluation in result.evaluations)
    published = result.train_and_validate_seconds
    assert published is not None and scoring > 0
    assert result.train_seconds < published < result.total_seconds - scoring


def test_a_second_process_on_a_run_is_turned_away_and_changes_nothing(
    done: Done, tmp_path: Path
) -> None:
    folder = done.case.folder(tmp_path, "contested")
    reached, go_on = tmp_path / "reached", tmp_path / "go-on"

    def wait(point: str, _stop: object) -> None:
        if point == "run:after-validation":
            reached.touch()
            wait_for(go_on)

    first = os.fork()
    if first == 0:
        os._exit(done.case.child(folder, wait))
    wait_for(reached)
    assert read_status(folder).status == "running"
    before = snapshot(folder.path)
    assert done.case.child(folder) == OWNED
    assert snapshot(folder.path) == before
    go_on.touch()
    assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 0
    assert_same_run(done.folder, folder)


def wait_for(path: Path) -> None:
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} did not come")


def test_a_glance_at_the_lock_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.claim():
        pass
    ready = tmp_path / "ready"

    def glance() -> None:
        with folder.claim():
            ready.touch()
            time.sleep(0.1)

    other = os.fork()
    if other == 0:
        os._exit(in_child(glance))
    wait_for(ready)
    with folder.claim():
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0


def test_a_killed_owner_does_not_keep_the_run(done: Done, tmp_path: Path) -> None:
    folder = done.copy_of_killed(tmp_path)
    assert read_status(folder).status == "interrupted"
    assert done.case.child(folder) == 0
    assert read_status(folder).status == "done"


# What goes wrong is kept as a row


def change_score(monkeypatch: pytest.MonkeyPatch, number: int, change: Callable) -> None:
    """Let `change` replace what the training batch `number` (from 0) returns."""
    score, calls = Scorer.sum_nats, iter(range(10**9))

    def changed(self: Scorer, batch: object) -> torch.Tensor:
        nats = score(self, batch)
        return change(nats) if next(calls) == number else nats

    monkeypatch.setattr(Scorer, "sum_nats", changed)


def with_infinite_gradient(nats: torch.Tensor) -> torch.Tensor:
    nats.register_hook(lambda gradient: gradient * float("inf"))
    return nats


NON_FINITE = {
    "nan-loss": lambda nats: nats * float("nan"),
    "infinite-loss": lambda nats: nats + float("inf"),
    "infinite-gradient": with_infinite_gradient,
}


@pytest.mark.parametrize("change", NON_FINITE.values(), ids=NON_FINITE)
@pytest.mark.parametrize("micro_batch", [4, 5])  # first and second of the third step
def test_no_optimizer_step_follows_a_value_that_is_not_finite(
    done: Done,
    micro_batch: int,
    change: Callable[[torch.Tensor], torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = done.case.folder(tmp_path, "diverging")
    change_score(monkeypatch, micro_batch, change)
    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: (steps.append(1), step(self)))
    with pytest.raises(DivergedError, match="step 3"):
        done.case.execute(folder)
    assert len(steps) == 2
    assert [record.step for record in read_records(folder.steps, StepRecord)] == [1, 2]
    failure = folder.read_result()
    assert failure is not None
    assert (failure.status, failure.best_epoch, failure.evaluations) == ("diverged", None, ())
    assert "step 3" in str(failure.reason)
    losses = [f"{record.loss:.4g}" for record in read_records(folder.steps, StepRecord)]
    assert f"Losses of the last steps before it: {', '.join(losses)}." in str(failure.reason)
    assert folder.failure.is_file() and not folder.result.exists()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_a_run_without_memory_is_a_row_that_says_so(
    done: Done, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = done.case.folder(tmp_path, "large")

    def refuse(nats: torch.Tensor) -> torch.Tensor:
        raise error("no memory")

    change_score(monkeypatch, 3, refuse)
    with pytest.raises(OutOfMemoryError, match=r"training\.micro_batch"):
        done.case.execute(folder)
    failure = folder.read_result()
    assert failure is not None and failure.status == "out-of-memory"


def test_a_defect_is_a_row_with_its_type_and_the_next_attempt_succeeds(
    done: Done, tmp_path: Path
) -> None:
    folder = done.case.folder(tmp_path, "defect")

    def fail(point: str, _stop: object) -> None:
        if point == "run:after-validation":
            raise ZeroDivisionError("of our own making")

    faults.handler = lambda point: fail(point, None)
    try:
        with pytest.raises(ZeroDivisionError):
            done.case.execute(folder)
    finally:
        faults.handler = None
    failure = folder.read_result()
    assert failure is not None
    assert (failure.status, failure.reason) == (
        "failed",
        "ZeroDivisionError: of our own making",
    )
    assert done.case.child(folder) == 0
    assert not folder.failure.exists()
    assert_same_run(done.folder, folder)


# Damage


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


DAMAGE = {
    "flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "zero-tailed": lambda path: path.write_bytes(path.read_bytes()[:-7] + bytes(7)),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_the_older_one_gives_the_same_result(
    done: Done, name: str, damage: Callable[[Path], object], tmp_path: Path
) -> None:
    folder = done.copy_of_killed(tmp_path)
    damage(folder.checkpoints / "step-00000009" / name)
    assert done.case.child(folder) == 0
    assert [path.name for path in (folder.path / "quarantine").iterdir()] == ["step-00000009"]
    assert_same_run(done.folder, folder)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_until_it_is_restarted(
    done: Done, tmp_path: Path
) -> None:
    folder = done.copy_of_killed(tmp_path)
    for checkpoint in list_checkpoints(folder.checkpoints):
        flip(checkpoint / "weights.safetensors")
    for _ in range(2):  # the first refusal moves nothing, so the second one is the same
        assert done.case.child(folder) == DAMAGED
        assert len(list_checkpoints(folder.checkpoints)) == 2
    failure = folder.read_result()
    assert failure is not None and "--restart" in str(failure.reason)
    assert done.case.child(folder, resuming=Resuming(restart=True)) == 0
    assert (folder.quarantine / "restart-1" / "checkpoints" / "step-00000009").is_dir()
    assert_same_run(done.folder, folder)


def test_a_torn_last_line_is_cut_off_before_the_next_one(done: Done, tmp_path: Path) -> None:
    folder = done.copy_of_killed(tmp_path)
    for path in (folder.steps, folder.epochs):
        with path.open("ab") as stream:
            stream.write(b'{"step": 10, "epo')
    assert done.case.child(folder) == 0
    assert_same_run(done.folder, folder)


def test_lines_after_the_checkpoint_are_written_once(done: Done, tmp_path: Path) -> None:
    folder = done.case.folder(tmp_path, "killed")
    assert done.case.child(folder, kill_at("run:after-step-line", 4)) == KILLED
    assert [s.step for s in read_records(folder.steps, StepRecord)] == [1, 2, 3, 4, 5]
    assert done.case.child(folder) == 0
    assert [s.step for s in read_records(folder.steps, StepRecord)] == list(range(1, 10))


def half_written(folder: RunFolder) -> list[Path]:
    return [path for path in folder.path.rglob(".*") if path.name != ".lock"]


@pytest.mark.parametrize("point", ["publish:before-rename", "write:before-rename"])
def test_nothing_half_written_by_a_killed_process_stays(
    done: Done, point: str, tmp_path: Path
) -> None:
    folder = done.case.folder(tmp_path, "killed")
    assert done.case.child(folder, kill_at(point, 2)) == KILLED
    assert half_written(folder)
    assert done.case.child(folder) == 0
    assert not half_written(folder)


# Environment


def changed_environment(**changes: Any) -> Callable[..., Fingerprint]:
    def take(device: torch.device, training: Training, **others: Any) -> Fingerprint:
        return take_fingerprint(device, training, **others).model_copy(update=changes)

    return take


def test_a_checkpoint_of_another_environment_is_refused_and_kept(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = done.copy_of_killed(tmp_path)
    before = {path.name for path in list_checkpoints(folder.checkpoints)}
    with monkeypatch.context() as patch:
        patch.setattr(setup, "take_fingerprint", changed_environment(threads=7))
        assert done.case.child(folder) == DRIFTED
    failure = folder.read_result()
    assert failure is not None
    assert "environment.threads: 1 then, 7 now" in str(failure.reason)
    assert "torch" not in str(failure.reason)  # only what differs
    assert {path.name for path in list_checkpoints(folder.checkpoints)} == before
    assert done.case.child(folder) == 0
    assert_same_run(done.folder, folder)


def test_a_run_without_a_checkpoint_starts_in_any_environment(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = done.case.folder(tmp_path, "early")
    assert done.case.child(folder, kill_at("run:after-step-line", 0)) == KILLED
    monkeypatch.setattr(setup, "take_fingerprint", changed_environment(threads=7))
    assert done.case.child(folder) == 0


# Files


def test_others_may_read_the_tensors_of_a_run(done: Done) -> None:
    tensors = [*done.folder.path.rglob("*.safetensors")]
    assert len(tensors) == 2 * 2 + 1  # two checkpoints and the best
    assert {oct(path.stat().st_mode & 0o777) for path in tensors} == {"0o644"}


def test_two_checkpoints_are_kept(done: Done) -> None:
    names = [path.name for path in list_checkpoints(done.folder.checkpoints)]
    assert names == ["step-00000006", "step-00000009"]


def test_a_baseline_is_scored_and_trains_nothing(flat_gpt2: Path, tmp_path: Path) -> None:
    case = Case(
        make_study(flat_gpt2, SOUND, "baseline"), write_texts(tmp_path / "t"), tmp_path / "c"
    )
    folder = case.folder(tmp_path, "baseline")
    result = case.execute(folder)
    assert [score.protocol for score in result.evaluations] == [
        "rows-text",
        "paper-padded",
        "blocks-32",
    ]
    assert (result.trainable_parameters, result.train_seconds, result.best_epoch) == (0, None, None)
    assert not any(path.exists() for path in (folder.steps, folder.checkpoints, folder.best))


def test_the_best_epoch_is_what_is_scored(
    done: Done, flat_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 0.5, 3.0, 0.5, 2.0, 0.5])  # of validation and of training rows by turns
    monkeypatch.setattr(training, "average_nats", lambda *_: next(losses))
    folder = done.case.folder(tmp_path, "best-first")
    result = done.case.execute(folder)
    assert result.best_epoch == 1
    network = load_base(flat_gpt2, device=CPU)
    load_adapter(network, folder.best)
    (benchmark,) = done.case.spec.benchmarks
    rows = done.case.reader.benchmark_rows(benchmark, "rows-text", done.case.spec.data.rows)
    scores = score_rows(
        make_scorer(network, "float32"), rows.corpus.tokens, rows.table, rows.padding, device=CPU
    )
    assert result.evaluations[0].sum_nats == scores.sums.sum_nats
    last = done.folder.read_result()
    assert last is not None and last.best_epoch == 3
    assert result.evaluations[0].sum_nats != last.evaluations[0].sum_nats
