"""How far a run is, according to the files in its folder."""

from dataclasses import dataclass, replace
from typing import Literal

from lorastudy.errors import StorageError
from lorastudy.store.decisions import Ask
from lorastudy.store.files import read_record
from lorastudy.store.folders import RunFolder
from lorastudy.store.lines import read_last_record, read_last_records
from lorastudy.store.records import (
    EpochRecord,
    Manifest,
    RunResult,
    Status,
    StepRecord,
    ValidationRecord,
)

_RECENT_STEPS = 20  # optimizer steps whose mean says how fast a run is now

# "waiting": for a decision on whether it goes on
State = Status | Literal["missing", "running", "interrupted", "waiting"]


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What `lorastudy status` shows about a run."""

    run_id: str
    status: State
    last_step: StepRecord | None
    last_epoch: EpochRecord | None
    reason: str | None
    last_validation: ValidationRecord | None = None  # within an epoch
    seconds_left: float | None = None  # for its optimizer steps while it runs, at the latest pace


def read_status(run: RunFolder) -> RunStatus:
    """How far `run` is; damage to its files is a status too."""
    try:
        return _read_status(run)
    except StorageError as error:
        return RunStatus(run.path.name, "damaged", None, None, run.shorten(error))


def read_paused_status(ask: Ask, run: RunFolder) -> RunStatus:
    """How far a run is that a decision stopped, or that waits for one."""
    status = read_status(run)
    if status.status not in ("interrupted", "missing"):
        return status  # it runs at this moment, or is damaged
    state: State = "waiting" if ask.stopped is None else "stopped"
    return replace(status, status=state, reason=ask.reason)


def _read_status(run: RunFolder) -> RunStatus:
    result = run.read_result()
    state = _find_state(run, result)
    steps = read_last_records(run.steps, StepRecord, _RECENT_STEPS)
    n_steps = _count_steps(run) if steps and state == "running" else None
    return RunStatus(
        run_id=run.path.name,
        status=state,
        last_step=steps[-1] if steps else None,
        last_epoch=read_last_record(run.epochs, EpochRecord),
        reason=result.reason if result else None,
        last_validation=read_last_record(run.validations, ValidationRecord),
        seconds_left=_seconds_left(steps, n_steps) if n_steps else None,
    )


def _find_state(run: RunFolder, result: RunResult | None) -> State:
    if run.is_owned():
        return "running"
    if result is not None:
        return result.status
    return "interrupted" if run.spec.exists() else "missing"


def _count_steps(run: RunFolder) -> int | None:
    """Optimizer steps of the whole run; None while there is no manifest."""
    if not run.manifest.is_file():
        return None
    return read_record(run.manifest, Manifest).optimizer_steps


def _seconds_left(steps: tuple[StepRecord, ...], n_steps: int) -> float:
    pace = sum(step.seconds for step in steps) / len(steps)
    return pace * max(0, n_steps - steps[-1].step)
