"""Verify a study's folder: every hash, every record, every line.

Every file is looked at, and each damaged one is one sentence: what is wrong, and what to do.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from lorastudy.config.spec import RunSpec
from lorastudy.errors import StorageError
from lorastudy.store.checkpoints import find_damage, list_checkpoints
from lorastudy.store.collect import collect_results
from lorastudy.store.decisions import read_decisions
from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.files import read_record
from lorastudy.store.folders import RESTORE, RunFolder, StudyFolder
from lorastudy.store.hashes import HASHES, Change, read_hashes
from lorastudy.store.lines import read_records
from lorastudy.store.locks import read_lock
from lorastudy.store.records import (
    EpochRecord,
    Manifest,
    ResumeRecord,
    RunResult,
    StepRecord,
    StudyResults,
    ValidationRecord,
)
from lorastudy.store.sample_records import SamplesRecord
from lorastudy.store.weights import find_weight_changes

_Line = TypeVar("_Line", bound=BaseModel)
_Found = dict[Path, str]  # what is wrong with each file that was looked at; "" where nothing is
_UNUSED = "It will not be used: a resumed run sets it aside and continues from an older one."


@dataclass(frozen=True, slots=True)
class FolderCheck:
    """What was checked, and what is wrong with it, one sentence for each file."""

    n_files: int
    damage: tuple[str, ...]


def check_folder(study: StudyFolder) -> FolderCheck:
    """Read every file of a known form under `study`; nothing is changed."""
    found = {study.lock: _check_lock(study)}
    lost = _problem_of(lambda: read_decisions(study))  # also where there is no such file
    if study.decisions.exists() or lost not in ("", found[study.lock]):
        found[study.decisions] = lost
    found |= _check_records({study.results: StudyResults})
    if found.get(study.results) == "" and not found.get(study.decisions):
        found[study.results] = _compare_results(study)
    for path in sorted((study.path / "runs").glob("*")):
        if path.is_dir() and not path.name.startswith("."):
            found |= _check_run(RunFolder(path))
    found |= _find_lost_runs(study)
    return FolderCheck(len(found), tuple(text for text in found.values() if text))


def _problem_of(read: Callable[[], object]) -> str:
    """Why something cannot be read; empty if it can."""
    try:
        read()
    except StorageError as error:
        return str(error)
    return ""


def _check_lock(study: StudyFolder) -> str:
    if not study.lock.exists():
        is_started = (study.path / "runs").exists()
        return f"{study.lock} is missing. Restore it from a copy." if is_started else ""
    return _problem_of(lambda: read_lock(study))


def _compare_results(study: StudyFolder) -> str:
    """How `results.json` differs from the results of the finished runs."""
    now = {run.run_id: run for run in collect_results(study).runs if run.status == "done"}
    stored = read_record(study.results, StudyResults).runs
    differing = [
        run.run_id
        for run in stored
        if run.status == "done" and _dump(run) != _dump(now.get(run.run_id, run))
    ]
    if not differing:
        return ""
    return (
        f"{study.results} says something else about {', '.join(differing)} than the results of "
        f"these runs. Make it again:  lorastudy report {study.path}"
    )


def _find_lost_runs(study: StudyFolder) -> _Found:
    """Runs that `results.json` has, and whose folders are gone."""
    if _check_records({study.results: StudyResults}).get(study.results) != "":
        return {}
    stored = read_record(study.results, StudyResults).runs
    folders = [study.run(run.run_id).path for run in stored]
    return {
        path: f"{path} is gone, and {study.results} has this run. Restore the folder from a copy, "
        f"or execute the run again:  lorastudy run {study.path}"
        for path in folders
        if not path.is_dir()
    }


def _dump(run: RunResult) -> str:
    return run.model_dump_json()


def _check_run(run: RunFolder) -> _Found:
    if run.is_closed:
        return {run.path: f"{run.path}: {_problem_of(run.read_result)}"}
    # what cannot be read, or belongs to another run
    found = _check_records(
        {
            run.spec: RunSpec,
            run.manifest: Manifest,
            **{path: DocumentSums for path in sorted(run.evaluations.glob("[!.]*.json"))},
            run.samples: SamplesRecord,
            run.result: RunResult,
            run.failure: RunResult,
        },
        run_id=run.path.name,
    )
    found |= _check_lines(run.steps, StepRecord, lambda line: line.step)
    found |= _check_lines(run.epochs, EpochRecord, lambda line: line.epoch)
    found |= _check_lines(run.validations, ValidationRecord)
    found |= _check_lines(run.resumes, ResumeRecord)
    # what can be read, and is not what was written
    _add(found, run, _list_changes(run))
    for folder in list_checkpoints(run.checkpoints):
        damage = find_damage(folder)
        found[folder] = "" if not damage else f"{'; '.join(damage)}. {_UNUSED}"
    return found


def _list_changes(run: RunFolder) -> Iterable[Change]:
    yield from find_weight_changes(run)
    yield from run.find_record_changes()


def _add(found: _Found, run: RunFolder, changes: Iterable[Change]) -> None:
    """Add `changes`, unless a record says more itself; count every file that hashes name."""
    for folder in (run.path, run.best):
        if (folder / HASHES).exists():
            found.setdefault(folder / HASHES, "")
            found |= {folder / name: "" for name in _names(folder) if folder / name not in found}
    for change in changes:
        path = run.path / change.name
        found[path] = found.get(path) or f"{run.path}/{change}. {RESTORE}"


def _names(folder: Path) -> Iterable[str]:
    try:
        return read_hashes(folder)
    except StorageError:
        return ()


def _check_records(records: Mapping[Path, type[BaseModel]], run_id: str | None = None) -> _Found:
    return {p: _check_record(p, kind, run_id) for p, kind in records.items() if p.exists()}


def _check_record(path: Path, kind: type[BaseModel], run_id: str | None) -> str:
    try:
        owner = getattr(read_record(path, kind), "run_id", run_id)
    except StorageError as error:
        return str(error)
    return "" if run_id in (None, owner) else f"{path} is that of {owner}. {RESTORE}"


def _check_lines(
    path: Path, kind: type[_Line], number_of: Callable[[_Line], int] | None = None
) -> _Found:
    """Whether the lines of `path` can be read and, where they have numbers, are 1, 2, 3, ..."""
    if not path.exists():
        return {}
    try:
        records = read_records(path, kind)
    except StorageError as error:
        return {path: str(error)}
    if number_of is None or [number_of(r) for r in records] == list(range(1, len(records) + 1)):
        return {path: ""}
    return {path: f"{path} does not have each of the lines 1, 2, 3, ... exactly once. {RESTORE}"}
