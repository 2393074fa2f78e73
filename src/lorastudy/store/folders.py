"""Names in the folder of a study and of a run, who owns a run, and how far it is.

STUDY_DIR/
  study.yaml  study.lock.json
  runs/<arm>-s<seed>-<hash8>/
    spec.json  manifest.json  steps.jsonl  epochs.jsonl
    checkpoints/  best/  evaluations/
    result.json | failure.json      written last
  results.json  report/
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from lorastudy.errors import OwnedError
from lorastudy.store.files import (
    read_last_record,
    read_record,
    remove_leftovers,
    storage_errors,
)
from lorastudy.store.records import EpochRecord, RunResult, Status, StepRecord

_CLAIM_SECONDS = 2.0  # `is_owned` in another process holds the lock for a moment

State = Status | Literal["missing", "running", "interrupted"]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder; one process at a time writes in it."""

    path: Path

    @property
    def spec(self) -> Path:
        """The resolved run."""
        return self.path / "spec.json"

    @property
    def manifest(self) -> Path:
        """Resolved modules, versions, device and digests."""
        return self.path / "manifest.json"

    @property
    def steps(self) -> Path:
        """One `StepRecord` a line."""
        return self.path / "steps.jsonl"

    @property
    def epochs(self) -> Path:
        """One `EpochRecord` a line."""
        return self.path / "epochs.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """PEFT folder or model folder of the best epoch."""
        return self.path / "best"

    @property
    def evaluations(self) -> Path:
        """One file for each benchmark and protocol."""
        return self.path / "evaluations"

    @property
    def result(self) -> Path:
        """Written last; the run is finished when it is there."""
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        """Written instead of `result` when the run could not finish."""
        return self.path / "failure.json"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Own the run while the block lasts; what a killed owner left half written is removed.

        Raises:
            OwnedError: Another process owns it (exit 73).
        """
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=_CLAIM_SECONDS, poll_interval=0.02)
        except Timeout:
            raise OwnedError(
                f"{self.path.name} is being executed by another process. "
                "Wait for it, or stop that process; `lorastudy status` shows how far it is."
            ) from None
        try:
            remove_leftovers(self.path)
            yield
        finally:
            lock.release()

    def is_owned(self) -> bool:
        """Whether some process owns the run now."""
        if not (self.path / ".lock").exists():
            return False
        try:
            with FileLock(self.path / ".lock", timeout=0):
                return False
        except Timeout:
            return True

    def read_result(self) -> RunResult | None:
        """The finished or failed run, or None while there is neither."""
        for path in (self.result, self.failure):
            if path.is_file():
                return read_record(path, RunResult)
        return None

    def read_status(self) -> "RunStatus":
        """How far the run is, from its files alone."""
        result = self.read_result()
        return RunStatus(
            run_id=self.path.name,
            status=self._status(result),
            last_step=read_last_record(self.steps, StepRecord),
            last_epoch=read_last_record(self.epochs, EpochRecord),
            reason=result.reason if result else None,
        )

    def _status(self, result: RunResult | None) -> State:
        if self.is_owned():
            return "running"
        if result is not None:
            return result.status
        return "interrupted" if self.spec.exists() else "missing"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What `lorastudy status` shows of a run."""

    run_id: str
    status: State
    last_step: StepRecord | None
    last_epoch: EpochRecord | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The folder of a whole study."""

    path: Path

    @property
    def study(self) -> Path:
        """The resolved study file."""
        return self.path / "study.yaml"

    @property
    def lock(self) -> Path:
        """Digests and versions that every run must find again."""
        return self.path / "study.lock.json"

    @property
    def places(self) -> Path:
        """Where inputs were found; hidden, since it is true of one machine only."""
        return self.path / ".places.json"

    @property
    def results(self) -> Path:
        """All runs, rebuilt from their folders."""
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.path / "report"

    def run(self, run_id: str) -> RunFolder:
        """The folder of one run."""
        return RunFolder(self.path / "runs" / run_id)
