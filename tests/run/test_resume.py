"""A run that was killed or interrupted ends bitwise equal to one that was left alone.

Killed is a process that ends by `os._exit` at a named point: no handler, no flush, no unlock.
Dropout is on, in the model and in the adapter, so that a wrong random stream would show.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_runs import (
    KILLED,
    PAPER,
    SOUND,
    Case,
    assert_same_run,
    kill_at,
    make_study,
    stop_at,
    write_texts,
)

from lorastudy.store.checkpoints import list_checkpoints
from lorastudy.store.files import read_record, read_records
from lorastudy.store.folders import RunFolder
from lorastudy.store.records import StepRecord, TrainerState

SOURCE = Path(__file__).resolve().parents[2] / "src" / "lorastudy"
INTERRUPTED = 75
POINTS = (
    "train:after-forward",
    "train:after-backward",
    "train:after-optimizer",
    "run:after-step-line",
    "checkpoint:before-weights.safetensors",
    "checkpoint:before-optimizer.safetensors",
    "checkpoint:before-trainer.json",
    "checkpoint:before-manifest",
    "publish:before-rename",
    "publish:between-renames",
    "checkpoint:before-delete-old",
    "run:after-validation",
    "run:after-epoch-line",
    "append:before-line",
    "write:before-bytes",
    "write:before-rename",
)


@dataclass(frozen=True)
class Reference:
    """A run that nothing happened to, and the points it passed."""

    case: Case
    folder: RunFolder
    points: tuple[str, ...]
    is_thorough: bool


@pytest.fixture(
    scope="module",
    params=[(arm, name) for arm in ("lora", "full") for name in ("sound", "paper")],
    ids="-".join,
)
def reference(request, tiny_gpt2, tmp_path_factory) -> Reference:
    arm, name = request.param
    parent = tmp_path_factory.mktemp(f"{arm}-{name}")
    study = make_study(tiny_gpt2, {"sound": SOUND, "paper": PAPER}[name], arm)
    case = Case(study, write_texts(parent / "texts"), parent / "cache")
    folder = case.folder(parent, "reference")
    log = parent / "points"
    log.touch()
    assert case.child(folder, note_in(log)) == 0
    return Reference(case, folder, tuple(log.read_text().split()), arm == "lora")


def note_in(log: Path) -> Callable:
    def handler(point: str, _stop: object) -> None:
        with log.open("a") as stream:
            stream.write(f"{point}\n")

    return handler


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
    plain = {point for point in found if "*" not in point}
    filled = [p for p in POINTS if any(p.startswith(f.split("*")[0]) for f in found - plain)]
    assert plain | set(filled) == set(POINTS)
    assert len(found) >= 10


def test_a_run_passes_every_hook_point(reference) -> None:
    assert set(reference.points) == set(POINTS)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_resumes_to_the_same_result(reference, point, tmp_path) -> None:
    n_hits = reference.points.count(point)
    for nth in {n_hits // 2, n_hits - 1} if reference.is_thorough else {n_hits // 2}:
        folder = reference.case.folder(tmp_path, f"killed-{nth}")
        assert reference.case.child(folder, kill_at(point, nth)) == KILLED
        assert folder.read_result() is None
        assert reference.case.child(folder) == 0
        assert_same_run(reference.folder, folder)


TWICE = [
    ("checkpoint:before-delete-old", 0, "train:after-forward", 1),
    ("run:after-validation", 1, "run:after-validation", 0),
    ("publish:before-rename", 3, "publish:before-rename", 0),
    ("train:after-optimizer", 3, "checkpoint:before-trainer.json", 0),
    ("write:before-rename", 5, "write:before-rename", 4),
]


@pytest.mark.parametrize("kills", TWICE, ids=lambda kills: f"{kills[0]}-then-{kills[2]}")
def test_a_run_killed_again_while_it_resumes_ends_with_the_same_result(
    reference, kills, tmp_path
) -> None:
    folder = reference.case.folder(tmp_path, "killed-twice")
    for point, nth in (kills[:2], kills[2:]):
        assert reference.case.child(folder, kill_at(point, nth)) == KILLED
    assert reference.case.child(folder) == 0
    assert_same_run(reference.folder, folder)


def test_a_run_interrupted_after_every_optimizer_step_ends_with_the_same_result(
    reference, tmp_path
) -> None:
    n_steps = len(read_records(reference.folder.steps, StepRecord))
    folder = reference.case.folder(tmp_path, "stopped")
    for done in range(1, n_steps + 1):
        code = reference.case.child(folder, stop_at("run:after-step-line", 0))
        assert code == INTERRUPTED
        assert len(read_records(folder.steps, StepRecord)) == done
    assert reference.case.child(folder) == 0
    assert_same_run(reference.folder, folder)


def test_an_interrupt_within_an_epoch_leaves_a_checkpoint_of_that_step(reference, tmp_path) -> None:
    folder = reference.case.folder(tmp_path, "stopped")
    assert reference.case.child(folder, stop_at("train:after-forward", 0)) == INTERRUPTED
    (checkpoint,) = list_checkpoints(folder.checkpoints)
    state = read_record(checkpoint / "trainer.json", TrainerState)
    assert (state.step, state.ended_epoch) == (1, None)


@pytest.mark.parametrize("point", ["checkpoint:before-trainer.json", "run:after-validation"])
def test_an_interrupt_while_a_checkpoint_or_best_is_written_loses_nothing(
    reference, point, tmp_path
) -> None:
    folder = reference.case.folder(tmp_path, "stopped")
    assert reference.case.child(folder, stop_at(point, 1)) == INTERRUPTED
    assert reference.case.child(folder) == 0
    assert_same_run(reference.folder, folder)


def test_an_interrupt_while_scoring_keeps_the_scores_that_are_done(reference, tmp_path) -> None:
    folder = reference.case.folder(tmp_path, "stopped")
    last = reference.points.count("write:before-rename") - 1  # hashes and result follow the scores
    assert reference.case.child(folder, stop_at("write:before-rename", last - 3)) == INTERRUPTED
    before = {path: path.read_bytes() for path in folder.evaluations.iterdir()}
    assert len(before) == 2
    assert reference.case.child(folder) == 0
    assert before.items() < {p: p.read_bytes() for p in folder.evaluations.iterdir()}.items()
    assert_same_run(reference.folder, folder)
