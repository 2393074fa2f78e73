"""`decisions.jsonl`: a line that was changed, moved or deleted shows; runs follow from it."""

from pathlib import Path

import pytest

from lorastudy.errors import StorageError
from lorastudy.store.checks import check_folder
from lorastudy.store.decisions import Plan, Seeds, append_decision, read_decisions
from lorastudy.store.folders import StudyFolder
from lorastudy.store.locks import StudyLock, read_lock, write_lock

PLAN = Plan(question="full-or-lora", most_seeds=10)


def write_three(folder: Path) -> StudyFolder:
    study = StudyFolder(folder)
    append_decision(study, PLAN)
    append_decision(
        study, Seeds(arms=("full", "lora"), n_seeds=2), Seeds(arms=("full",), n_seeds=3)
    )
    return study


def test_decisions_are_read_as_they_were_written(tmp_path: Path) -> None:
    study = write_three(tmp_path)
    assert [entry.kind for entry in read_decisions(study)] == ["plan", "seeds", "seeds"]
    assert read_decisions(study)[0] == PLAN
    assert read_decisions(StudyFolder(tmp_path / "other")) == ()


@pytest.mark.parametrize("damage", ["cut", "empty", "delete", "folder"])
def test_decisions_that_are_lost_show_in_the_lock(tmp_path: Path, damage: str) -> None:
    study = StudyFolder(tmp_path)
    write_lock(study, StudyLock(base_digest="", tokenizer_digest="", corpora={}))
    assert read_decisions(write_three(tmp_path)) and read_lock(study).n_decisions == 3
    lines = study.decisions.read_text().splitlines(keepends=True)
    study.decisions.unlink()
    if damage in ("cut", "empty"):
        study.decisions.write_text("".join(lines[:2] if damage == "cut" else []))
    elif damage == "folder":
        study.decisions.mkdir()
    with pytest.raises(StorageError, match=f"has {2 * (damage == 'cut')} of the 3 decisions"):
        read_decisions(study)
    assert any("of the 3 decisions" in said for said in check_folder(study).damage)


@pytest.mark.parametrize("damage", ["change", "delete", "swap"])
def test_a_line_that_was_changed_deleted_or_moved_is_refused(tmp_path: Path, damage: str) -> None:
    study = write_three(tmp_path)
    lines = study.decisions.read_text().splitlines(keepends=True)
    changed = {
        "change": [lines[0], lines[1].replace('"n_seeds":2', '"n_seeds":4'), lines[2]],
        "delete": [lines[0], lines[2]],
        "swap": [lines[1], lines[0], lines[2]],
    }
    study.decisions.write_text("".join(changed[damage]))
    with pytest.raises(StorageError, match=r"line \d is not what was written"):
        read_decisions(study)
    assert "decisions.jsonl" in " ".join(check_folder(study).damage)
