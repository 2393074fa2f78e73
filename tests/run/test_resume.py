"""A run that was interrupted ends bitwise equal to one that was left alone.

Dropout is on, in the model and in the adapter, so that a wrong random stream would show.
Kills are in tests/reliability/test_killed_runs.py.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorastudy.store.checkpoints import list_checkpoints
from lorastudy.store.files import read_record
from lorastudy.store.lines import read_records
from lorastudy.store.records import EpochRecord, ResumeRecord, StepRecord
from lorastudy.store.training_state import TrainerState
from support.reference_runs import Reference, make_reference
from support.tiny_runs import (
    PAPER,
    POINTS,
    SOUND,
    Case,
    assert_same_run,
    make_study,
    stop_at,
    write_texts,
)

SOURCE = Path(__file__).resolve().parents[2] / "src" / "lorastudy"
INTERRUPTED = 75


@pytest.fixture(
    scope="module",
    params=[(arm, name) for arm in ("lora", "full") for name in ("sound", "paper")],
    ids="-".join,
)
def reference(
    request: pytest.FixtureRequest, flat_gpt2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    arm, name = request.param
    parent = tmp_path_factory.mktemp(f"{arm}-{name}")
    study = make_study(flat_gpt2, {"sound": SOUND, "paper": PAPER}[name], arm)
    case = Case(study, write_texts(parent / "texts"), parent / "cache")
    return make_reference(case, parent)


def points_in_source() -> Iterator[str]:
    """What is given to `faults.hit` anywhere, with `*` for what an f-string fills in."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "faults.hit":
                (argument,) = node.args
                parts = getattr(argument, "values", [argument])
                yield "".join(p.value if isinstance(p, ast.Constant) else "*" for p in parts)


def test_every_hook_point_of_the_source_is_one_to_be_killed_at() -> None:
    found = set(points_in_source())
    found = {point for point in found if not point.startswith("probe:")}  # before any run
    plain = {point for point in found if "*" not in point}
    filled = [p for p in POINTS if any(p.startswith(f.split("*")[0]) for f in found - plain)]
    assert plain | set(filled) == set(POINTS)
    assert len(found) >= 10


def test_a_run_interrupted_after_every_optimizer_step_ends_with_the_same_result(
    reference: Reference, tmp_path: Path
) -> None:
    """After each interruption every file of lines ends with a torn one, as after a crash."""
    n_steps = len(read_records(reference.folder.steps, StepRecord))
    folder = reference.case.folder(tmp_path, "stopped")
    for done in range(1, n_steps + 1):
        code = reference.case.child(folder, stop_at("run:after-step-line", 0))
        assert code == INTERRUPTED
        assert len(read_records(folder.steps, StepRecord)) == done
        for path in (folder.steps, folder.epochs, folder.resumes):
            if path.exists():
                path.write_bytes(path.read_bytes() + b'{"step": ')
    assert reference.case.child(folder) == 0
    assert_same_run(reference.folder, folder)
    resumed_after = [record.step for record in read_records(folder.resumes, ResumeRecord)]
    assert resumed_after == list(range(1, n_steps + 1))
    assert not reference.folder.resumes.exists()


def test_a_run_that_waits_after_an_epoch_until_it_is_asked_to_go_on_ends_with_the_same_result(
    reference: Reference, tmp_path: Path
) -> None:
    folder = reference.case.folder(tmp_path, "paused")
    for _ in range(2):  # asked again for the same epoch, it trains nothing
        assert reference.case.child(folder, until_epoch=2) == INTERRUPTED
        assert len(read_records(folder.epochs, EpochRecord)) == 2
    assert not folder.result.exists() and not folder.failure.exists()
    assert reference.case.child(folder) == 0
    assert_same_run(reference.folder, folder)


def test_an_interrupt_within_an_epoch_leaves_a_checkpoint_of_that_step(
    reference: Reference, tmp_path: Path
) -> None:
    folder = reference.case.folder(tmp_path, "stopped")
    assert reference.case.child(folder, stop_at("train:after-forward", 0)) == INTERRUPTED
    (checkpoint,) = list_checkpoints(folder.checkpoints)
    state = read_record(checkpoint / "trainer.json", TrainerState)
    assert (state.step, state.ended_epoch) == (1, None)


@pytest.mark.parametrize("point", ["checkpoint:before-trainer.json", "run:after-validation"])
def test_an_interrupt_while_a_checkpoint_or_best_is_written_loses_nothing(
    reference: Reference, point: str, tmp_path: Path
) -> None:
    folder = reference.case.folder(tmp_path, "stopped")
    assert reference.case.child(folder, stop_at(point, 1)) == INTERRUPTED
    assert reference.case.child(folder) == 0
    assert_same_run(reference.folder, folder)


def test_an_interrupt_while_scoring_keeps_the_scores_that_are_done(
    reference: Reference, tmp_path: Path
) -> None:
    folder = reference.case.folder(tmp_path, "stopped")
    # a note follows each score; hashes and the result follow all of them
    last = reference.points.count("write:before-rename") - 1
    assert reference.case.child(folder, stop_at("write:before-rename", last - 5)) == INTERRUPTED
    before = {path: path.read_bytes() for path in folder.evaluations.iterdir()}
    assert len(before) == 2
    assert reference.case.child(folder) == 0
    assert before.items() < {p: p.read_bytes() for p in folder.evaluations.iterdir()}.items()
    assert_same_run(reference.folder, folder)
