"""Runs that validate within epochs, stop early, and train on a mixture of which a part is held out.

One tiny study does all of it. Its learning rate is so high that it overfits within an epoch.
"""

from pathlib import Path
from typing import Any

import pytest

from lorastudy.errors import ConfigError, InputError
from lorastudy.store.checkpoints import list_checkpoints
from lorastudy.store.lines import read_records
from lorastudy.store.places import Places
from lorastudy.store.records import StepRecord, ValidationRecord
from lorastudy.study.check import check_study
from lorastudy.study.notes import list_texts
from support.reference_runs import Reference, make_reference
from support.teams import execute_as_team
from support.tiny_runs import (
    ARMS,
    CPU,
    SOUND,
    Case,
    assert_same_run,
    best_tensors,
    kill_at,
    make_study,
    write_texts,
)

MIXTURE = (
    {"path": "train.txt", "weight": 3.0},
    {"path": "validation.txt", "weight": 1.0},
    {"path": "gone.txt", "weight": 0.0},
)
DATA: dict[str, Any] = {
    "train": {"mixture": MIXTURE},
    "validation": {"from_train": 0.25, "seed": 1},
    "rows": {"cut": "lines", "length": 48},
}
TRAINING: dict[str, Any] = {
    **SOUND,
    "epochs": 6,
    "validate_every": 2,
    "early_stopping": {"patience": 2, "min_delta": 0.01},
    "schedule": {"shape": "constant"},
}
PHASES = (
    "train:after-optimizer",
    "run:after-step-line",
    "checkpoint:before-manifest",
    "run:after-validation",
    "publish:between-renames",
    "run:after-epoch-line",
)


def make_case(base: Path, parent: Path, training: dict[str, Any]) -> Case:
    arms = ({**ARMS["lora"], "learning_rates": (5e-2,)},)
    study = make_study(base, training, data=DATA, arms=arms)
    return Case(study, write_texts(parent / "texts"), parent / "cache")


@pytest.fixture(scope="module")
def reference(flat_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    parent = tmp_path_factory.mktemp("comforts")
    return make_reference(make_case(flat_gpt2, parent, TRAINING), parent)


def test_a_run_validates_within_epochs_and_stops_early(reference: Reference) -> None:
    result, lines = reference.result, read_records(reference.folder.validations, ValidationRecord)
    ends = [epoch.step for epoch in result.epochs]
    assert result.validations == lines
    assert result.optimizer_steps == len(read_records(reference.folder.steps, StepRecord))
    assert result.planned_steps == 18 > result.optimizer_steps
    within = [step for step in range(2, result.optimizer_steps + 1, 2) if step not in ends]
    assert [line.step for line in lines] == within
    assert {line.step: line.epoch for line in lines} == {
        step: 1 + sum(end < step for end in ends) for step in within
    }
    losses = list(result.validation_losses.values())
    assert min(losses) not in losses[-2:]
    assert result.validation_losses[result.best_step or 0] == min(losses)
    # or the tests below would not see which weights are kept: the best are those within an epoch,
    # and the epoch after it is better than all epochs before
    assert result.best_step in within
    assert result.epochs[-1].validation_loss == min(e.validation_loss for e in result.epochs)


def test_the_best_weights_are_those_within_the_epoch(
    reference: Reference, flat_gpt2: Path, tmp_path: Path
) -> None:
    """A run that is cut off at the best step has the same weights; the schedule is constant."""
    best = reference.result.best_step or 0
    until = {**TRAINING, "validate_every": best, "early_stopping": None}
    case = make_case(flat_gpt2, tmp_path, until)
    folder = case.folder(tmp_path, "until")
    case.child(folder, kill_at("train:after-optimizer", best))
    tensors, others = best_tensors(folder), best_tensors(reference.folder)
    assert tensors.keys() == others.keys() and tensors
    assert all(tensor.equal(others[name]) for name, tensor in tensors.items())


def test_validating_and_stopping_change_no_step(
    reference: Reference, flat_gpt2: Path, tmp_path: Path
) -> None:
    plain = {k: v for k, v in TRAINING.items() if k not in ("validate_every", "early_stopping")}
    case = make_case(flat_gpt2, tmp_path, plain)
    folder = case.folder(tmp_path, "plain")
    assert case.child(folder) == 0
    whole, part = (
        [(s.step, s.loss, s.learning_rate) for s in read_records(f.steps, StepRecord)]
        for f in (folder, reference.folder)
    )
    assert len(whole) == 18 and part == whole[: len(part)]


def test_a_run_killed_at_any_point_resumes_to_the_same_bits(
    reference: Reference, tmp_path: Path
) -> None:
    for point in PHASES:
        n_hits = reference.points.count(point)
        # the last validation of the run is the one that stops it
        for nth in {n_hits // 2, n_hits - 1} if point.startswith("run:") else {n_hits // 2}:
            folder = reference.case.folder(tmp_path, f"{point}.{nth}")
            assert reference.case.child(folder, kill_at(point, nth)) != 0
            assert reference.case.child(folder) == 0
            assert_same_run(reference.folder, folder)


def test_validations_after_an_older_checkpoint_are_repeated(
    reference: Reference, tmp_path: Path
) -> None:
    folder = reference.case.folder(tmp_path, "damaged")
    assert reference.case.child(folder, kill_at("run:after-epoch-line", 2)) != 0
    assert len(read_records(folder.validations, ValidationRecord)) == 2
    newest = list_checkpoints(folder.checkpoints)[-1]
    (newest / "weights.safetensors").write_bytes(b"")
    assert reference.case.child(folder) == 0
    assert_same_run(reference.folder, folder)


def test_two_processes_validate_and_stop_as_one_does(flat_gpt2: Path, tmp_path: Path) -> None:
    """They stop while the loss still falls, since it falls by less than 1.5 nats."""
    stopping = {"patience": 2, "min_delta": 1.5}
    case = make_case(flat_gpt2, tmp_path, {**TRAINING, "early_stopping": stopping})
    alone, together = case.folder(tmp_path, "alone"), case.folder(tmp_path, "together")
    expected = case.execute(alone)
    assert execute_as_team(case, together, 2, "ddp") == [0, 0]
    result = together.read_result()
    assert result is not None
    assert list(expected.validation_losses) == [2, 3, 4]  # its best step is its last one
    assert result.validation_losses == pytest.approx(expected.validation_losses, abs=1e-5)
    assert (result.best_step, result.optimizer_steps) == (4, 4)


def test_check_says_what_is_mixed_and_held_out(reference: Reference) -> None:
    texts, cache = reference.case.reader.places.base, reference.case.reader.places.cache
    study = make_study(
        reference.case.reader.base.folder, TRAINING, data=DATA, arms=(ARMS["lora"], ARMS["full"])
    )
    lock = check_study(study, Places(texts, offline=True, cache=cache), CPU).lock
    lines = "\n".join(list_texts(lock))
    # 11 and 3 documents, of which round(14 / 4) are held out
    assert lock.held_out is not None and lock.held_out.n_held_out == 4
    assert "validation, 4 of the 14 documents of data.train, chosen by seed 1" in lines
    assert sum(part.n_drawn for part in lock.mixture) == 10 == sum(p.n_rows for p in lock.mixture)
    assert [part.share for part in lock.mixture] == [0.75, 0.25]
    assert "train, train.txt: 8 rows per epoch (75.0 %)" in lines
    assert all(part.documents == 0 for part in lock.overlap if part.benchmark is None)


@pytest.mark.parametrize(
    ("data", "training", "error", "says"),
    [
        ({}, {"validate_every": 18}, ConfigError, "validate_every: 18 .* a run has 18"),
        ({}, {"early_stopping": {"patience": 12}}, ConfigError, "patience: 12 can stop no run"),
        ({"validation": {"from_train": 0.01}}, {}, InputError, "leaves none for validation"),
        (
            {"train": {"mixture": ({**MIXTURE[0], "weight": 1000.0}, MIXTURE[1])}},
            {},
            ConfigError,
            "weight of validation.txt is so small",
        ),
    ],
)
def test_what_only_the_data_shows_to_be_wrong_is_refused_before_training(
    data: dict[str, Any],
    training: dict[str, Any],
    error: type[Exception],
    says: str,
    reference: Reference,
) -> None:
    texts, cache = reference.case.reader.places.base, reference.case.reader.places.cache
    study = make_study(
        reference.case.reader.base.folder, {**TRAINING, **training}, data={**DATA, **data}
    )
    with pytest.raises(error, match=says):
        check_study(study, Places(texts, offline=True, cache=cache), CPU)
