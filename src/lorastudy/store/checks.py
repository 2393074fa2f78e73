"""Verify a study's folder: every hash, every record, every line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from lorastudy.errors import StorageError
from lorastudy.spec import RunSpec
from lorastudy.store.checkpoints import find_damage, list_checkpoints
from lorastudy.store.files import read_record, read_records
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.records import (
    DocumentScores,
    EpochRecord,
    Manifest,
    RunResult,
    StepRecord,
    StudyLock,
    StudyResults,
)


@dataclass(frozen=True, slots=True)
class FolderCheck:
    """What was looked at, and what is wrong with it, one sentence each."""

    n_files: int
    damage: tuple[str, ...]


def check_folder(study: StudyFolder) -> FolderCheck:
    """Read everything under `study` that has a known form; nothing is changed."""
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
        (run.spec, RunSpec),
        (run.manifest, Manifest),
        (run.result, RunResult),
        (run.failure, RunResult),
        *((path, DocumentScores) for path in sorted(run.evaluations.glob("*.json"))),
    ]
    for path, kind in records:
        yield from _check_record(path, kind)
    for path, line_kind in ((run.steps, StepRecord), (run.epochs, EpochRecord)):
        yield from _check_lines(path, line_kind)
    for folder in list_checkpoints(run.checkpoints):
        yield from find_damage(folder) or [""]


def _check_record(path: Path, kind: type[BaseModel]) -> Iterator[str]:
    if not path.exists():
        return
    try:
        read_record(path, kind)
        yield ""
    except StorageError as error:
        yield str(error)


def _check_lines(path: Path, kind: type[StepRecord] | type[EpochRecord]) -> Iterator[str]:
    if not path.exists():
        return
    try:
        read_records(path, kind)
        yield ""
    except (ValidationError, ValueError) as error:
        yield f"{path} holds a line that is no {kind.__name__} ({str(error).splitlines()[0]})"
