"""What is read is what was written: records of finished runs, lines of unfinished ones, weights."""

import json
import shutil
from pathlib import Path

import pytest

from lorastudy.errors import StorageError
from lorastudy.store import hashes
from lorastudy.store.collect import collect_results, write_results
from lorastudy.store.files import write_record, write_text
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.hashes import write_hashes
from lorastudy.store.lines import append_record
from lorastudy.store.records import ResumeRecord
from lorastudy.store.status import read_status
from lorastudy.store.weights import refuse_changed_weights
from lorastudy.store.written import note_written
from support.command_line import call

FINISHED = Path(__file__).resolve().parents[1] / "support" / "finished_study" / "study"
RUN = "full-s0-ceea6056"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return shutil.copytree(FINISHED, tmp_path / "study")


def change_a_number(path: Path) -> None:
    text = path.read_text()
    place = text.index('"perplexity": ') + len('"perplexity": ')
    path.write_text(text[:place] + "9" + text[place + 1 :])


def cut_a_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


DAMAGE = {
    "result.json": change_a_number,
    "evaluations/licences--rows-text.json": lambda path: path.write_text(""),
    "evaluations/python-reference--rows-text.json": Path.unlink,
    "steps.jsonl": cut_a_line,
    "manifest.json": lambda path: path.write_text(path.read_text().replace("3.1", "3.2")),
    "SHA256SUMS": cut_a_line,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_run_with_a_changed_record_is_damaged_by_name_and_the_others_are_as_they_were(
    study: Path, name: str
) -> None:
    before = {run.run_id: run for run in collect_results(StudyFolder(study)).runs}
    DAMAGE[name](study / "runs" / RUN / name)
    after = {run.run_id: run for run in collect_results(StudyFolder(study)).runs}
    found = after.pop(RUN)
    assert found.status == "damaged" and not found.evaluations and not found.epochs
    named = "result.json" if name == "SHA256SUMS" else name
    assert str(found.reason).startswith(named) or "SHA256SUMS" in str(found.reason)
    assert after == {run_id: run for run_id, run in before.items() if run_id != RUN}


@pytest.mark.parametrize("name", DAMAGE)
def test_table_and_status_name_the_changed_record(study: Path, name: str) -> None:
    DAMAGE[name](study / "runs" / RUN / name)
    table, status = call("table", study, "--format", "md"), call("status", study, "--json")
    assert table.code == status.code == 0
    (said,) = (r for r in json.loads(status.out)["runs"] if r["run_id"] == RUN)
    assert said["status"] == "damaged" and said["reason"] in table.out
    assert sum(RUN in line for line in table.err.splitlines()) == 1


def test_fsck_names_every_damaged_file_on_a_line_of_its_own(study: Path) -> None:
    before = call("fsck", study).err
    for name, damage in DAMAGE.items():
        if name != "SHA256SUMS":
            damage(study / "runs" / RUN / name)
    (study / "runs" / "full-s1-4c5458df" / "result.json").unlink()
    answer = call("fsck", study)
    lines = answer.err.removeprefix("lorastudy: ").splitlines()
    found = [line for line in lines if line not in before]
    assert answer.code == 74
    assert len(found) == len(DAMAGE) and all(". " in line for line in found)
    for name in DAMAGE:
        assert name == "SHA256SUMS" or sum(f"{RUN}/{name} " in line for line in found) == 1
    assert sum("full-s1-4c5458df/result.json is missing" in line for line in found) == 1


def test_fsck_finds_results_that_are_not_those_of_the_runs(study: Path) -> None:
    assert call("report", study).code == 0
    change_a_number(study / "results.json")
    answer = call("fsck", study)
    assert answer.code == 74 and "results.json says something else" in answer.err


def test_fsck_counts_a_run_whose_folder_is_gone(study: Path) -> None:
    write_results(StudyFolder(study))
    gone = f"{study / 'runs' / RUN} is gone"
    assert gone not in call("fsck", study).err
    shutil.rmtree(study / "runs" / RUN)
    answer = call("fsck", study)
    assert answer.code == 74 and sum(gone in line for line in answer.err.splitlines()) == 1
    write_results(StudyFolder(study))  # which says that this run is missing
    assert gone not in call("fsck", study).err


def test_a_run_that_was_exchanged_for_another_is_damaged(study: Path) -> None:
    other = study / "runs" / "full-s1-4c5458df"
    shutil.rmtree(other)
    shutil.copytree(study / "runs" / RUN, other)
    found = next(r for r in collect_results(StudyFolder(study)).runs if r.run_id == other.name)
    assert found.status == "damaged" and RUN in str(found.reason)


def test_runs_without_hashes_are_read_and_said_to_be_unverified(study: Path) -> None:
    before = call("table", study, "--format", "md")
    (study / "runs" / RUN / "SHA256SUMS").unlink()
    after = call("table", study, "--format", "md")
    assert after.out == before.out and "not verified" not in before.err
    assert len(after.err.splitlines()) == 1 and "not verified" in after.err and RUN in after.err


def test_hashes_that_were_deleted_are_missed_where_records_are_noted(study: Path) -> None:
    run = StudyFolder(study).run(RUN)
    note_written(run.path, run.list_records())  # as every run of today has it
    said = f"{RUN}/SHA256SUMS is missing"
    assert said not in call("fsck", study).err
    (run.path / "SHA256SUMS").unlink()
    assert said in call("fsck", study).err
    found = next(r for r in collect_results(StudyFolder(study)).runs if r.run_id == RUN)
    assert found.status == "damaged"


def test_a_file_that_did_not_change_is_hashed_once(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def count(path: Path) -> str:
        hashed.append(path)
        return "0" * 64

    monkeypatch.setattr(hashes, "_SETTLED_NS", -(10**18))
    monkeypatch.setattr(hashes, "hash_file", count)
    run = StudyFolder(study).run(RUN)
    first, n_files = run.find_record_changes(), len(hashed)
    assert run.find_record_changes() == first and len(hashed) == len(set(hashed)) == n_files > 5


@pytest.fixture
def unfinished(tmp_path: Path) -> RunFolder:
    """A run with two lines and one score, noted; a third line came after the note."""
    run = RunFolder(tmp_path / "lora-s0-01234567")
    run.evaluations.mkdir(parents=True)
    for step in (1, 2):
        append_record(run.resumes, ResumeRecord(step=step))
    write_text(run.evaluations / "tale.json", "{}")
    run.note_written()
    append_record(run.resumes, ResumeRecord(step=3))
    return run


def test_lines_after_the_note_are_no_damage(unfinished: RunFolder) -> None:
    unfinished.refuse_rewritten()


@pytest.mark.parametrize("name", ["resumes.jsonl", "evaluations/tale.json", "written.json"])
@pytest.mark.parametrize("change", ["flip", "cut"])
def test_a_noted_record_that_was_changed_is_not_gone_on_from(
    unfinished: RunFolder, name: str, change: str
) -> None:
    path = unfinished.path / name
    raw = path.read_bytes()
    place = raw.index(b":") + 1 if name != "evaluations/tale.json" else 0
    path.write_bytes(raw[:place] if change == "cut" else raw[:place] + b"7" + raw[place + 1 :])
    with pytest.raises(StorageError, match=name):
        unfinished.refuse_rewritten()


def test_zeros_in_place_of_weights_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "full-s0-01234567")
    weights = run.best / "model.safetensors"
    write_text(weights, "weights")
    write_hashes(run.best)
    refuse_changed_weights(run)
    weights.write_bytes(bytes(7))
    with pytest.raises(StorageError, match=r"best/model\.safetensors is not"):
        refuse_changed_weights(run)


def test_a_finished_run_whose_weights_are_gone_is_damaged_and_not_unfinished(study: Path) -> None:
    run = StudyFolder(study).run(RUN)
    write_text(run.best / "model.safetensors", "weights")
    write_hashes(run.path)
    shutil.rmtree(run.best)
    answer = call("export", study, RUN, "--to", study / "new")
    assert answer.code == 74 and "best/ is missing" in answer.err


def test_weights_and_hashes_of_another_run_are_refused(study: Path) -> None:
    run, other = (StudyFolder(study).run(name) for name in (RUN, "full-s1-4c5458df"))
    shutil.rmtree(run.best)
    shutil.copytree(other.best, run.best)
    write_text(run.best / "model.safetensors", "weights")
    write_hashes(run.best)
    with pytest.raises(StorageError, match=r"best/model\.safetensors is not"):
        refuse_changed_weights(run)


def test_a_failure_whose_reason_was_changed_is_not_repeated(study: Path) -> None:
    run = StudyFolder(study).run("lora-2-s1-6f1c05e1")
    failure = run.read_result()
    assert failure is not None
    run.write_failure(failure)
    write_record(run.failure, failure.model_copy(update={"reason": "nobody knows"}))
    status = read_status(run)
    assert status.status == "damaged" and "failure.json" in str(status.reason)
