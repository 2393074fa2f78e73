"""One run with everything that the other shapes need, read without torch and weights."""

from dataclasses import dataclass

from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec
from lorastudy.errors import ConfigError
from lorastudy.store.collect import read_study
from lorastudy.store.files import read_record
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.lines import read_records
from lorastudy.store.rates import list_runs
from lorastudy.store.records import Manifest, RunResult, StepRecord
from lorastudy.store.weights import measure_stored_bytes


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run that ended, with the spec it followed and what its manifest resolved to."""

    study: Study
    spec: RunSpec
    folder: RunFolder
    result: RunResult
    manifest: Manifest | None  # None: it failed before there was one, or its records are damaged

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """One record per optimizer step; none for a baseline, or where records are damaged."""
        if self.result.status == "damaged":
            return ()
        return read_records(self.folder.steps, StepRecord)

    @property
    def ended_at(self) -> float:
        """Seconds since 1970 when the result was written: its file's time."""
        path = self.folder.result if self.folder.result.exists() else self.folder.failure
        return path.stat().st_mtime

    @property
    def weight_bytes(self) -> int:
        """Bytes of the best epoch's weight files; 0 for a baseline."""
        return measure_stored_bytes(self.folder) or 0


def read_runs(folder: StudyFolder) -> tuple[StoredRun, ...]:
    """Every run of the study that ended, finished or failed, in the study's order.

    Raises:
        ConfigError: The folder is not that of a study, or none of its runs has ended.
    """
    study = read_study(folder)
    found = tuple(
        run
        for spec in list_runs(study, folder)
        if (run := read_run(study, spec, folder.run(spec.run_id))) is not None
    )
    if not found:
        raise ConfigError(
            f"{folder.path} has no run that ended yet. Run it first:  lorastudy run {folder.path}"
        )
    return found


def read_run(study: Study, spec: RunSpec, folder: RunFolder) -> StoredRun | None:
    """The run in `folder`; None if it has no result yet."""
    result = folder.read_outcome(spec)
    if result is None:
        return None
    is_known = folder.manifest.is_file() and result.status != "damaged"
    manifest = read_record(folder.manifest, Manifest) if is_known else None
    return StoredRun(study, spec, folder, result, manifest)
