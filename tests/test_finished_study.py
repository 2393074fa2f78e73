"""A study folder of version 0.1.0 is read as it was: tests/support/finished_study/README.md."""

import json
import shutil
from pathlib import Path

import pytest

from lorastudy.config.spec import RunSpec, expand_study
from lorastudy.errors import ConfigError
from lorastudy.store.collect import read_own_file, read_study, write_extension
from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.folders import StudyFolder
from lorastudy.store.lines import read_records
from lorastudy.store.records import EpochRecord, Manifest, ResumeRecord, StepRecord
from lorastudy.study.open import open_study
from lorastudy.study.start import start_study
from support.command_line import call, stamps

HERE = Path(__file__).resolve().parent / "support" / "finished_study"
EXPECTED = HERE / "expected"
TABLE_FORMATS = {"md": "md", "csv": "csv", "latex": "tex"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder, since reports are written into it."""
    return shutil.copytree(HERE / "study", tmp_path_factory.mktemp("finished") / "study")


@pytest.fixture(scope="module")
def report(study: Path) -> Path:
    """The folder of the report that today's code makes of it."""
    answer = call("report", study)
    assert answer.code == 0, answer.err
    return study / "report"


def test_the_study_file_still_means_the_same_runs(study: Path) -> None:
    specs = expand_study(read_own_file(StudyFolder(study)))
    assert {spec.run_id for spec in specs} == {path.name for path in (study / "runs").iterdir()}
    for spec in specs:
        stored = (study / "runs" / spec.run_id / "spec.json").read_text()
        assert RunSpec.model_validate_json(stored) == spec


@pytest.fixture
def own_file(study: Path, tmp_path: Path) -> Path:
    """The file that the study was started with, of a time when no file said `rounding`."""
    return shutil.copy(study / "study.yaml", tmp_path / "mine.yaml")


def test_its_file_goes_on_in_its_folder_and_rounds_up_elsewhere(
    own_file: Path, study: Path, tmp_path: Path
) -> None:
    here = open_study(str(own_file), out=study)
    start_study(here.study, here.folder)
    assert here.study == read_study(here.folder)
    assert len(here.notes) == 1 and "rounds up (training.schedule.rounding)" in here.notes[0]
    elsewhere = open_study(str(own_file), out=tmp_path / "new")
    assert (elsewhere.study.training.schedule.rounding, elsewhere.notes) == ("up", ())
    another = open_study(str(own_file), out=study, overrides=["training.epochs=3"])
    assert (another.study.training.schedule.rounding, another.notes) == ("up", ())


def test_its_file_with_another_seed_is_an_extension(
    own_file: Path, study: Path, tmp_path: Path
) -> None:
    folder = StudyFolder(shutil.copytree(study, tmp_path / "study"))
    grown = open_study(str(own_file), out=folder.path, overrides=["seeds=[0, 1, 2]"]).study
    write_extension(folder, read_study(folder), grown)
    assert read_study(folder) == grown
    assert "rounding: down" in folder.study.read_text()
    known = {path.name for path in (folder.path / "runs").iterdir()}
    assert known < {spec.run_id for spec in expand_study(grown)}


def test_its_file_with_the_other_rounding_is_another_study(own_file: Path, study: Path) -> None:
    asked = open_study(str(own_file), out=study, overrides=["training.schedule.rounding=up"])
    with pytest.raises(ConfigError, match=r'schedule\.rounding: "down" -> "up"'):
        start_study(asked.study, asked.folder)


def test_without_its_lock_it_is_still_of_its_time(study: Path, tmp_path: Path) -> None:
    folder = StudyFolder(shutil.copytree(study, tmp_path / "study"))
    folder.lock.unlink()
    assert read_study(folder) == read_study(StudyFolder(study))


def test_every_record_is_read(study: Path) -> None:
    n_lines = n_scores = 0
    for path in (study / "runs").iterdir():
        run = StudyFolder(study).run(path.name)
        Manifest.model_validate_json(run.manifest.read_bytes())
        assert run.read_result() is not None
        for file, kind in ((run.steps, StepRecord), (run.epochs, EpochRecord)):
            if file.exists():
                records = read_records(file, kind)
                assert len(records) == len(file.read_text().splitlines())
                n_lines += len(records)
        for file in run.evaluations.glob("*.json"):
            scores = DocumentSums.model_validate_json(file.read_bytes())
            assert len(scores.nats) == scores.evaluation.n_documents
            n_scores += 1
    (resumed,) = (study / "runs").glob("*/resumes.jsonl")
    assert [record.step for record in read_records(resumed, ResumeRecord)] == [23]
    assert (n_lines, n_scores) == (3 * 24 + 13 + 3 * 2 + 1, 4 * 4)


def test_status_is_what_it_was(study: Path) -> None:
    answer = call("status", study, "--json")
    assert json.loads(answer.out) == json.loads((EXPECTED / "status.json").read_text())


def test_results_are_what_they_were(report: Path) -> None:
    expected = json.loads((EXPECTED / "results.json").read_text())
    assert json.loads((report.parent / "results.json").read_text()) == expected


def test_a_finished_run_is_not_executed_again(study: Path) -> None:
    before = stamps(study / "runs")
    answer = call("run-one", study, "lora-2-s0-1de585c7", "--json")
    assert answer.code == 0 and json.loads(answer.out)["status"] == "done"
    assert stamps(study / "runs") == before


@pytest.mark.parametrize("name", sorted(path.name for path in (EXPECTED / "report").iterdir()))
def test_a_table_has_the_bytes_that_it_had(name: str, report: Path) -> None:
    assert (report / name).read_bytes() == (EXPECTED / "report" / name).read_bytes()


def test_no_table_is_missing_and_none_is_new(report: Path) -> None:
    kinds = {".md", ".csv", ".tex", ".json"}
    names = {path.name for path in report.iterdir() if path.suffix in kinds}
    assert names == {path.name for path in (EXPECTED / "report").iterdir()}


@pytest.mark.parametrize("kind", TABLE_FORMATS)
def test_the_printed_table_has_the_bytes_that_it_had(kind: str, study: Path) -> None:
    expected = (EXPECTED / "report" / f"table1.{TABLE_FORMATS[kind]}").read_text()
    assert call("table", study, "--format", kind).out == expected
