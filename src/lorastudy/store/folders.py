"""File names in the folders of studies and runs, who owns a run, and how far it is.

STUDY_DIR/
  study.yaml  study.lock.json
  runs/<arm>-s<seed>-<hash8>/
    spec.json  manifest.json  steps.jsonl  epochs.jsonl  resumes.jsonl
    checkpoints/  best/  evaluations/
    result.json | failure.json      written last
  results.json  report/
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lorastudy.store.files import (
    read_last_record,
    read_last_records,
    read_record,
    remove_leftovers,
    storage_errors,
)
from lorastudy.store.leases import is_owned, own
from lorastudy.store.records import EpochRecord, Lease, Manifest, RunResult, Status, StepRecord

_LOG = "log.txt"
_RECENT_STEPS = 20  # optimizer steps whose mean says how fast a run is now

State = Status | Literal["missing", "running", "interrupted"]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder; only one process at a time writes in it."""

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
        """One `StepRecord` per line."""
        return self.path / "steps.jsonl"

    @property
    def epochs(self) -> Path:
        """One `EpochRecord` per line."""
        return self.path / "epochs.jsonl"

    @property
    def resumes(self) -> Path:
        """One `ResumeRecord` per line; missing if the run was never interrupted."""
        return self.path / "resumes.jsonl"

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
    def quarantine(self) -> Path:
        """Files that failed verification or that --restart set aside; never read again."""
        return self.path / "quarantine"

    @property
    def result(self) -> Path:
        """Written last; the run is finished if this file exists."""
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        """Written instead of `result` when the run could not finish."""
        return self.path / "failure.json"

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

    def measure_stored_bytes(self) -> int | None:
        """Bytes of the best epoch's weight files; None where there are none, as of a baseline."""
        sizes = [path.stat().st_size for path in self.best.glob("*.safetensors")]
        return sum(sizes) if sizes else None

    def read_result(self) -> RunResult | None:
        """The record of the finished or failed run; None while it is neither."""
        for path in (self.result, self.failure):
            if path.is_file():
                return read_record(path, RunResult)
        return None

    def read_status(self) -> "RunStatus":
        """How far the run is, according to its files."""
        result = self.read_result()
        status = self._status(result)
        steps = read_last_records(self.steps, StepRecord, _RECENT_STEPS)
        n_steps = self._n_steps() if steps and status == "running" else None
        return RunStatus(
            run_id=self.path.name,
            status=status,
            last_step=steps[-1] if steps else None,
            last_epoch=read_last_record(self.epochs, EpochRecord),
            reason=result.reason if result else None,
            seconds_left=_seconds_left(steps, n_steps) if n_steps else None,
        )

    def _n_steps(self) -> int | None:
        """Optimizer steps of the whole run; None while there is no manifest."""
        if not self.manifest.is_file():
            return None
        return read_record(self.manifest, Manifest).optimizer_steps

    def _status(self, result: RunResult | None) -> State:
        if self.is_owned():
            return "running"
        if result is not None:
            return result.status
        return "interrupted" if self.spec.exists() else "missing"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What `lorastudy status` shows about a run."""

    run_id: str
    status: State
    last_step: StepRecord | None
    last_epoch: EpochRecord | None
    reason: str | None
    seconds_left: float | None = None  # for its optimizer steps while it runs, at the latest pace


def _seconds_left(steps: tuple[StepRecord, ...], n_steps: int) -> float:
    pace = sum(step.seconds for step in steps) / len(steps)
    return pace * max(0, n_steps - steps[-1].step)


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
        """Digests and versions that every run must match."""
        return self.path / "study.lock.json"

    @property
    def places(self) -> Path:
        """Where inputs were found; hidden, since it is true only for one machine."""
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
