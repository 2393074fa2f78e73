"""File names in the folders of studies and runs, who owns a run, and how it ended.

STUDY_DIR/
  study.yaml  study.lock.json  decisions.jsonl
  runs/<arm>-s<seed>-<hash8>/
    spec.json  manifest.json  steps.jsonl  epochs.jsonl  validations.jsonl  resumes.jsonl
    checkpoints/  best/  evaluations/
    SHA256SUMS  result.json | failure.json      written last
  results.json  report/
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lorastudy.config.spec import RunSpec
from lorastudy.errors import StorageError
from lorastudy.store.files import read_record, remove_leftovers, storage_errors, write_record
from lorastudy.store.folder_records import Lease
from lorastudy.store.hashes import HASHES, MISSING, Change, find_changes, read_hashes
from lorastudy.store.leases import is_owned, own
from lorastudy.store.records import RunResult
from lorastudy.store.written import WRITTEN, find_rewritten, note_one, note_written

_LOG = "log.txt"
_NO_ACCESS = os.strerror(errno.EACCES)
BEST = "best/"  # what weights begin with in SHA256SUMS
RESTORE = "Restore it from a copy, or train this run again with --restart."


class Inside:
    """A file or folder of a known name, as a path from the folder that has it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "RunFolder | StudyFolder", kind: type) -> Path:
        """Its path in `folder`."""
        return folder.path / self._name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder; only one process at a time writes in it."""

    path: Path

    spec = Inside("spec.json")  # the resolved run
    manifest = Inside("manifest.json")  # resolved modules, versions, device and digests
    steps = Inside("steps.jsonl")  # one `StepRecord` per line
    epochs = Inside("epochs.jsonl")  # one `EpochRecord` per line
    # one `ValidationRecord` per line; missing if the run validates only after epochs
    validations = Inside("validations.jsonl")
    # one `ResumeRecord` per line; missing if the run was never interrupted
    resumes = Inside("resumes.jsonl")
    checkpoints = Inside("checkpoints")  # folder of checkpoints
    best = Inside("best")  # PEFT folder or model folder of the best epoch
    evaluations = Inside("evaluations")  # one file for each benchmark and protocol
    # what the model wrote after the study's prompts; missing if it has none
    samples = Inside("samples.json")
    # files that failed verification or that --restart set aside; never read again
    quarantine = Inside("quarantine")
    result = Inside("result.json")  # written last; the run is finished if this file exists
    failure = Inside("failure.json")  # written instead of `result` when the run could not finish

    @property
    def explanation(self) -> Path:
        """What `lorastudy explain` found in `best`: derived, so it may be deleted."""
        return self.path.parent.parent / "explanations" / f"{self.path.name}.json"

    @contextmanager
    def claim(self) -> Iterator[Lease | None]:
        """Own the run while the block lasts; half-written files of a killed owner are removed.

        Gives the lease of an owner that ended without returning it, if there was one.

        Raises:
            OwnedError: Another process owns it (exit 73).
        """
        with own(self.path) as abandoned:
            remove_leftovers(self.path)
            yield abandoned

    def is_owned(self) -> bool:
        """Whether some process owns the run now."""
        return is_owned(self.path)

    def set_aside(self) -> None:
        """Move everything that the run wrote to quarantine/restart-N/, so that it starts again."""
        with storage_errors(self.path):
            self.quarantine.mkdir(exist_ok=True)
            number = 1 + sum(1 for _ in self.quarantine.glob("restart-*"))
            aside = self.quarantine / f"restart-{number}"
            aside.mkdir()
            for path in sorted(self.path.iterdir()):
                if path.name not in (_LOG, self.quarantine.name) and path.name[0] != ".":
                    path.rename(aside / path.name)
            self.explanation.unlink(missing_ok=True)

    def note_written(self) -> None:
        """Note how far the run's records are written, so that a later change to them shows.

        Raises:
            StorageError: The disk refused the write.
        """
        note_written(self.path, self.list_records())

    def write_failure(self, failure: RunResult) -> None:
        """Write why the run could not finish.

        Raises:
            StorageError: The disk refused the write.
        """
        self.reopen()  # a note of an earlier failure would not match this one
        write_record(self.failure, failure)
        note_one(self.path, self.failure.name)

    def reopen(self) -> None:
        """Delete how an earlier attempt ended: its failure, or hashes without a result.

        Raises:
            StorageError: The folder cannot be written.
        """
        with storage_errors(self.failure):
            self.failure.unlink(missing_ok=True)
            (self.path / HASHES).unlink(missing_ok=True)
        note_one(self.path, self.failure.name)

    def refuse_rewritten(self) -> None:
        """Check the lines and scores from which a resumed run continues.

        Missing ones are written again. The manifest is compared elsewhere.

        Raises:
            StorageError: Some of them were changed.
        """
        changes = [
            change
            for change in find_rewritten(self.path)
            if change.problem != MISSING and change.name != self.manifest.name
        ]
        if changes:
            raise StorageError(f"{'; '.join(map(str, changes))}. {RESTORE}")

    @property
    def is_verifiable(self) -> bool:
        """Whether the version that finished the run wrote hashes of its files; early ones did not.

        A run with `written.json` is of a version that did: if it has no hashes, they were deleted.
        """
        return (self.path / HASHES).exists() or (self.path / WRITTEN).exists()

    def find_record_changes(self) -> list[Change]:
        """What differs from the records that the finished run wrote; `best/` is not read.

        Of an unfinished run, what differs from the records as they were last noted. Early versions
        wrote neither hashes nor notes.
        """
        if not self.result.exists():
            return find_rewritten(self.path) + self._find_lost_result()
        if not self.is_verifiable:
            return []
        changes = find_changes(self.path, lambda name: not name.startswith(BEST))
        known = {change.name for change in changes}
        if HASHES in known:
            return changes
        listed = read_hashes(self.path)
        found = (path.relative_to(self.path).as_posix() for path in self.list_records())
        return changes + [
            Change(name, f"is not in {HASHES}") for name in found if name not in listed
        ]

    def _find_lost_result(self) -> list[Change]:
        try:
            is_lost = self.is_verifiable and self.result.name in read_hashes(self.path)
        except StorageError:
            is_lost = False
        return [Change(self.result.name, f"is missing, and {HASHES} names it")] if is_lost else []

    def list_records(self) -> list[Path]:
        """Every record that the run has now, except notes and hashes of the others."""
        lines = (self.steps, self.epochs, self.validations, self.resumes)
        scores = sorted(self.evaluations.glob("[!.]*.json"))
        records = (self.spec, self.manifest, *lines, *scores, self.result, self.failure)
        return [path for path in records if path.is_file()]

    @property
    def is_closed(self) -> bool:
        """Whether the folder is there, and its permissions let this user not look into it."""
        return self.path.is_dir() and not os.access(self.path, os.R_OK | os.X_OK)

    def read_result(self) -> RunResult | None:
        """The record of the finished or failed run; None while it is neither.

        Raises:
            StorageError: One of the finished run's records is not what was written, or the folder
                cannot be looked into.
        """
        if self.is_closed:
            raise StorageError(f"its folder cannot be read: {_NO_ACCESS}. Change its permissions.")
        path = self.result if self.result.exists() else self.failure
        if not path.exists():
            return None
        changes = self.find_record_changes()
        if path == self.failure:  # which itself says what is wrong with the other records
            changes = [change for change in changes if change.name == path.name]
        if changes:
            raise StorageError(f"{'; '.join(map(str, changes))}. {RESTORE}")
        result = read_record(path, RunResult)
        if result.run_id != self.path.name:
            raise StorageError(f"{path.name} is that of {result.run_id}. {RESTORE}")
        return result

    def read_outcome(self, spec: RunSpec) -> RunResult | None:
        """As `read_result`, but a run whose records were changed is a row that says so."""
        try:
            return self.read_result()
        except StorageError as error:
            return RunResult.of(
                spec,
                status="damaged",
                reason=self.shorten(error),
                exit_code=error.exit_code,
            )

    def shorten(self, error: StorageError) -> str:
        """The message with file names as they are in the run's folder, wherever that lies."""
        return str(error).replace(f"{self.path}/", "")


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The folder of a whole study."""

    path: Path

    study = Inside("study.yaml")  # the resolved study file
    lock = Inside("study.lock.json")  # digests and versions that every run must match
    # one `Decision` per line, if the study runs until its question is decided
    decisions = Inside("decisions.jsonl")
    # where inputs were found; hidden, since it is true only for one machine
    places = Inside(".places.json")
    results = Inside("results.json")  # all runs, rebuilt from their folders
    report = Inside("report")  # folder of the report

    def run(self, run_id: str) -> RunFolder:
        """The folder of one run."""
        return RunFolder(self.path / "runs" / run_id)
