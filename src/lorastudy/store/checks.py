"""Verify a study's folder: every hash, every record, every line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from lorastudy.config.spec import RunSpec
from lorastudy.errors import StorageError
from lorastudy.store.checkpoints import find_damage, list_checkpoints
from lorastudy.store.files import read_record, read_records
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.hashes import find_changes
from lorastudy.store.records import (
    DocumentSums,
    EpochRecord,
    Manifest,
    RunResult,
    StepRecord,
    StudyLock,
    StudyResults,
)


@dataclass(frozen=True, slots=True)
class FolderCheck:
    """What was checked, and what is wrong with it, one sentence each."""

    n_files: int
    damage: tuple[str, ...]


def check_folder(study: StudyFolder) -> FolderCheck:
    """Read every file of a known form under `study`; nothing is changed."""
    findings = list(_check_study(study))
    for path in sorted((study.path / "runs").glob("*")):
        if path.is_dir() and not path.name.startswith("."):
            findings += _check_run(RunFolder(path))
    return FolderCheck(len(findings), tuple(text for text in findings if text))


def _check_study(study: StudyFolder) -> Iterator[str]:
    for path, kind in ((study.lock, StudyLock), (study.results, StudyResults)):
        yield from _check_record(path, kind)


def _check_run(run: RunFolder) -> Iterator[str]:
    records: list[tuple[Path, type[BaseModel]]] = [
        (run.manifest, Manifest),
        (run.result, RunResult),
        (run.failure, RunResult),
        *((path, DocumentSums) for path in sorted(run.evaluations.glob("*.json"))),
    ]
    yield from _check_spec(run)
    for path, kind in records:
        yield from _check_record(path, kind)
    yield from _check_numbers(run.steps, _numbers_of(run.steps, StepRecord))
    yield from _check_numbers(run.epochs, _numbers_of(run.epochs, EpochRecord))
    for folder in list_checkpoints(run.checkpoints):
        yield from find_damage(folder) or [""]
    if run.best.is_dir():
        yield from find_changes(run.best) or [""]
    if run.result.exists():
        yield from find_changes(run.path) or [""]


def _check_spec(run: RunFolder) -> Iterator[str]:
    if not run.spec.exists():
        return
    try:
        run_id = read_record(run.spec, RunSpec).run_id
        yield "" if run_id == run.path.name else f"{run.spec} is that of {run_id}"
    except StorageError as error:
        yield str(error)


def _check_record(path: Path, kind: type[BaseModel]) -> Iterator[str]:
    if not path.exists():
        return
    try:
        read_record(path, kind)
        yield ""
    except StorageError as error:
        yield str(error)


def _numbers_of(
    path: Path, kind: type[StepRecord] | type[EpochRecord]
) -> Sequence[int] | StorageError | None:
    """What its lines are numbered by, why they cannot be read, or None without a file."""
    if not path.exists():
        return None
    try:
        records = read_records(path, kind)
    except StorageError as error:
        return error
    return [r.step if isinstance(r, StepRecord) else r.epoch for r in records]


def _check_numbers(path: Path, found: Sequence[int] | StorageError | None) -> Iterator[str]:
    if found is None:
        return
    if isinstance(found, StorageError):
        yield str(found)
    elif list(found) != list(range(1, len(found) + 1)):
        yield f"{path} does not have each of the lines 1, 2, 3, ... exactly once"
    else:
        yield ""
