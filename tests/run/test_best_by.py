"""Runs whose best weights are those with the most right answers on validation.

An own function calls about half of the answers right, whatever they are, so the share changes from
one validation to the next, and not as the loss does.
"""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lorastudy.errors import ConfigError, InputError, UserError
from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.files import read_record
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.locks import StudyLock
from lorastudy.store.places import Places
from lorastudy.store.records import RunResult
from lorastudy.store.validation import Validation
from lorastudy.study.check import check_study
from lorastudy.study.notes import list_texts, note_study
from lorastudy.study.start import lock_study
from support.chats import write_rows
from support.reference_runs import Reference, make_reference
from support.teams import execute_as_team
from support.tiny_runs import (
    ARMS,
    CPU,
    SOUND,
    Case,
    assert_same_run,
    kill_at,
    make_study,
)

PAIRS = [{"prompt": f"{n} and {n + 1} is", "completion": f" {2 * n + 1}."} for n in range(9)]
QUIZ = [{"question": f"{n} is", "choices": ["a", "bc"], "answer": n % 2} for n in range(4)]
JUDGE = "def judge(text, answer):\n    return sum(map(ord, text + answer)) % 2 == 0\n"
HOW: dict[str, Any] = {"generation": {"max_new_tokens": 6}, "function": "judge.py:judge"}
BEST_BY: dict[str, Any] = {"protocol": "own-function", **HOW}
TRAINING: dict[str, Any] = {
    **SOUND,
    "epochs": 6,
    "validate_every": 2,
    "schedule": {"shape": "constant"},
}


def make_data(**changes: Any) -> dict[str, Any]:
    source = {"path": "pairs.jsonl"}
    rows = {"cut": "lines", "length": 48}
    return {"train": source, "validation": source, "rows": rows, "best_by": BEST_BY, **changes}


def make_case(base: Path, parent: Path, training: dict[str, Any] = TRAINING) -> Case:
    texts = parent / "texts"
    texts.mkdir(parents=True)
    write_rows(texts / "pairs.jsonl", PAIRS)
    write_rows(texts / "quiz.jsonl", QUIZ)
    (texts / "judge.py").write_text(JUDGE)
    same = {"name": "same", "path": "pairs.jsonl", "protocols": ("own-function", "answers"), **HOW}
    arms = ({**ARMS["lora"], "learning_rates": (2e-2,)},)
    study = make_study(base, training, data=make_data(), arms=arms, benchmarks=(same,))
    return Case(study, texts, parent / "cache")


@pytest.fixture(scope="module")
def reference(flat_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    parent = tmp_path_factory.mktemp("best-by")
    return make_reference(make_case(flat_gpt2, parent), parent)


def test_the_best_weights_are_those_with_the_most_right_answers(reference: Reference) -> None:
    """The benchmark asks the best weights the same items, so its share is that of validation."""
    result = reference.result
    found = result.validations_by_step
    chosen = found[result.best_step or 0]
    accuracies = [each.accuracy or 0.0 for each in found.values()]
    assert chosen.accuracy == max(accuracies)
    ties = [each.loss for each in found.values() if each.accuracy == chosen.accuracy]
    assert chosen.loss == min(ties)
    # or the test would not see what chooses
    assert chosen.loss > min(each.loss for each in found.values())
    assert len(set(accuracies)) > 2
    by_answers, by_loss = result.evaluations
    assert by_answers.accuracy == chosen.accuracy
    assert by_loss.cross_entropy == pytest.approx(chosen.loss, abs=1e-6)
    stored = read_record(reference.folder.evaluations / "same--own-function.json", DocumentSums)
    assert {bool(item.right) for item in stored.items} == {True, False}


def test_a_run_killed_at_any_validation_resumes_to_the_same_bits(
    reference: Reference, tmp_path: Path
) -> None:
    for point in ("run:after-validation", "publish:between-renames", "run:after-epoch-line"):
        folder = reference.case.folder(tmp_path, point)
        nth = reference.points.count(point) // 2
        assert reference.case.child(folder, kill_at(point, nth)) != 0
        assert reference.case.child(folder) == 0
        assert_same_run(reference.folder, folder)


def test_two_processes_find_the_right_answers_that_one_finds(
    reference: Reference, tmp_path: Path
) -> None:
    together = reference.case.folder(tmp_path, "together")
    assert execute_as_team(reference.case, together, 2, "ddp") == [0, 0]
    assert_close_validations(together, reference.result)


def assert_close_validations(folder: RunFolder, expected: RunResult) -> None:
    result = folder.read_result()
    assert result is not None
    assert (result.best_step, result.optimizer_steps, result.planned_steps) == (
        expected.best_step,
        expected.optimizer_steps,
        expected.planned_steps,
    )
    found, known = result.validations_by_step, expected.validations_by_step
    assert [each.accuracy for each in found.values()] == [e.accuracy for e in known.values()]
    losses = {step: each.loss for step, each in known.items()}
    assert result.validation_losses == pytest.approx(losses, abs=1e-4)


def test_all_comforts_together_come_to_the_same_in_a_team_and_in_the_reference(
    flat_gpt2: Path, tmp_path: Path
) -> None:
    """A mixture of rows with answers, a held-out part, frequent validation, and an early stop."""
    base = tmp_path / "base"
    shutil.copytree(flat_gpt2, base)
    config = json.loads((base / "config.json").read_text())
    still = {key: 0.0 if key.endswith("pdrop") else value for key, value in config.items()}
    (base / "config.json").write_text(json.dumps(still))
    training = {**TRAINING, "early_stopping": {"patience": 3, "min_delta": 0.01}}
    others = [{"prompt": f"{n} less {n} is", "completion": " 0."} for n in range(5)]
    parts = ({"path": "pairs.jsonl", "weight": 2.0}, {"path": "others.jsonl", "weight": 1.0})
    data = make_data(train={"mixture": parts}, validation={"from_train": 0.3, "seed": 2})

    def make(implementation: str, name: str) -> Case:
        how = {**training, "implementation": implementation}
        arms = ({**ARMS["lora"], "dropout": 0.0},)
        study = make_study(base, how, data=data, arms=arms, benchmarks=())
        return Case(study, write_inputs(tmp_path / name), tmp_path / "cache")

    def write_inputs(texts: Path) -> Path:
        texts.mkdir()
        write_rows(texts / "pairs.jsonl", PAIRS)
        write_rows(texts / "others.jsonl", others)
        (texts / "judge.py").write_text(JUDGE)
        return texts

    alone, fast = make("reference", "of-reference"), make("fast", "of-fast")
    expected = alone.execute(alone.folder(tmp_path, "alone"))
    assert expected.planned_steps is not None  # it stopped early
    together = fast.folder(tmp_path, "together")
    assert execute_as_team(fast, together, 2, "fsdp2") == [0, 0]
    assert_close_validations(together, expected)


def test_check_names_what_decides_and_the_lock_refuses_another_judge(
    reference: Reference, tmp_path: Path
) -> None:
    places = reference.case.reader.places
    base = reference.case.reader.base.folder

    def look(**changes: Any) -> tuple[str, StudyLock]:
        study = make_study(
            base, TRAINING, data=make_data(best_by={**BEST_BY, **changes}), benchmarks=()
        )
        checked = check_study(study, Places(places.base, cache=places.cache), CPU)
        said = "\n".join((*note_study(study, checked), *list_texts(checked.lock)))
        return said, checked.lock

    said, lock = look()
    assert "right answers to validation rows decide (own-function, data.best_by)" in said
    assert "answers of data.best_by are judged by code: judge.py:judge" in said
    assert "data.best_by: 9 " in said
    folder = StudyFolder(tmp_path)
    lock_study(lock, folder)
    lock_study(look()[1], folder)
    judge = places.base / "judge.py"
    judge.write_text(f"{JUDGE}# changed\n")
    try:
        with pytest.raises(InputError, match=r": data\.best_by differ from study.lock.json"):
            lock_study(look()[1], folder)
    finally:
        judge.write_text(JUDGE)
    choice = {"protocol": "choice", "items": {"path": "quiz.jsonl"}}
    said, _ = look(**choice, function=None, generation=None)
    assert "right answers to data.best_by.items decide (choice" in said


@pytest.mark.parametrize(
    ("best_by", "error", "says"),
    [
        ({"protocol": "choice"}, ConfigError, "data.validation holds prompts and completions"),
        (
            {"protocol": "exact-match", "items": {"path": "quiz.jsonl"}},
            ConfigError,
            "data.best_by.items holds questions with choices",
        ),
        (
            {"protocol": "exact-match", "generation": {"max_new_tokens": 60}},
            UserError,
            "line 1: the prompt has .* max_new_tokens 60",
        ),
        (
            {**BEST_BY, "function": "judge.py:none"},
            ConfigError,
            "'judge.py:none' cannot be loaded",
        ),
        ({"protocol": "choice", "items": {"path": "gone.jsonl"}}, UserError, "data.best_by.items"),
    ],
)
def test_items_that_cannot_be_asked_are_refused_before_training(
    best_by: dict[str, Any], error: type[Exception], says: str, reference: Reference
) -> None:
    places = reference.case.reader.places
    data = make_data(best_by=best_by)
    study = make_study(reference.case.reader.base.folder, TRAINING, data=data, benchmarks=())
    with pytest.raises(error, match=says):
        check_study(study, Places(places.base, cache=places.cache), CPU)


@pytest.mark.parametrize(
    ("best_by", "says"),
    [
        (
            {"protocol": "answers"},
            "best_by\n  protocol: answers does not say which",
        ),
        (
            {"protocol": "lm-eval-task"},
            "best_by\n  protocol: lm-eval-task does not say which",
        ),
        ({"protocol": "choice", "generation": {}}, "best_by\n  generation: applies to"),
        ({"protocol": "own-function"}, "best_by\n  function: is required"),
        ({"protocol": "choice", "function": "a.py:b"}, "best_by\n  function: applies to"),
    ],
)
def test_keys_that_the_task_does_not_use_are_mistakes(
    best_by: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says):
        make_study(tmp_path, TRAINING, data=make_data(best_by=best_by))


def test_better_is_an_order_in_which_answers_come_before_losses() -> None:
    found = [Validation(loss, share) for share in (0.0, 0.5, 1.0) for loss in (1.0, 2.0)]
    for one, other in itertools.product(found, found):
        assert one.improves_on(other, 0.0) is (one.rank < other.rank)
    assert Validation(2.0, 0.4).improves_on(Validation(1.0, 0.3), 0.05)
    # a rise by no more than min_delta is none, and the loss decides
    assert not Validation(2.0, 0.4).improves_on(Validation(1.0, 0.3), 0.1)
    assert Validation(0.9, 0.4).improves_on(Validation(1.0, 0.3), 0.1)
    assert not Validation(0.9, 0.2).improves_on(Validation(1.0, 0.3), 0.2)
