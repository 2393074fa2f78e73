"""What happens in the folders of a study's runs, as events: the only source of all progress.

The command line and the Python API follow a study through this module, which reads only the run
folders. It can therefore also follow a study that another process executes, or another machine
with the same file system.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from lorastudy.store.collect import RunOverview, read_overview
from lorastudy.store.decisions import Entry
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.lines import ReadUntil, find_end, read_new_records
from lorastudy.store.records import EpochRecord, StepRecord, ValidationRecord
from lorastudy.store.status import State

_Line = TypeVar("_Line", bound=BaseModel)
_LOOK_SECONDS = 1.0
_IDLE_SECONDS = 10.0  # longer than from the end of one run to the start of the next
_DISTURBED = 0.2  # of the time that threads were ready to run, from which waiting is reported
_READY_SECONDS = 5.0  # that are looked at before it is


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A process began to execute a run, or to continue it."""

    run_id: str
    arm: str
    seed: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """An optimizer step was taken; each number of step is reported once."""

    run_id: str
    arm: str
    seed: int
    step: StepRecord


@dataclass(frozen=True, slots=True)
class RunDisturbed:
    """Other work uses the cores on which a run trains; reported once for each run."""

    run_id: str
    arm: str
    seed: int
    waited_share: float  # of the time in which its threads were ready to run


@dataclass(frozen=True, slots=True)
class Validated:
    """A run was validated within an epoch."""

    run_id: str
    arm: str
    seed: int
    validation: ValidationRecord


@dataclass(frozen=True, slots=True)
class EpochEnded:
    """An epoch was trained and validated."""

    run_id: str
    arm: str
    seed: int
    epoch: EpochRecord
    seconds_left: float | None  # of the run's optimizer steps, at its latest pace


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run finished, failed, or stopped before its end."""

    run_id: str
    arm: str
    seed: int
    state: State  # "done" if it finished; see `lorastudy status` for the others
    reason: str | None  # why it did not finish


@dataclass(frozen=True, slots=True)
class DecisionTaken:
    """A study that runs until its question is decided took a decision."""

    what: Entry


Event = RunStarted | StepDone | RunDisturbed | Validated | EpochEnded | RunEnded | DecisionTaken


@dataclass(frozen=True, slots=True)
class Look:
    """All runs as they are now, and what happened since the last look."""

    overview: tuple[RunOverview, ...]
    events: tuple[Event, ...]


@dataclass
class Progress:
    """Follows a study with repeated looks; events before the first look are not reported."""

    folder: StudyFolder
    _runs: dict[str, "_FollowedRun"] = field(default_factory=dict)
    _next_look: float = 0.0

    def is_due(self) -> bool:
        """Whether it is time for another look."""
        return time.monotonic() >= self._next_look

    def look(self) -> Look:
        """Read the folders of all runs.

        Raises:
            ConfigError: The folder is not that of a study (any more).
        """
        overview = read_overview(self.folder)
        events = [event for run in overview for event in self._follow(run)]
        self._next_look = time.monotonic() + _LOOK_SECONDS
        return Look(overview, tuple(events))

    def _follow(self, run: RunOverview) -> Iterator[Event]:
        run_id = run.spec.run_id
        if run_id in self._runs:
            yield from self._runs[run_id].advance(run)
        else:
            self._runs[run_id] = _FollowedRun(self.folder.run(run_id), run)


def follow_study(folder: StudyFolder) -> Iterator[Look]:
    """Looks at a study that others execute, about one per second.

    Ends when no run is left to do, or when none has been running for a while.
    """
    progress, last_running = Progress(folder), time.monotonic()
    while True:
        look = progress.look()
        yield look
        states = {run.status.status for run in look.overview}
        if "running" in states:
            last_running = time.monotonic()
        elif "missing" not in states or time.monotonic() - last_running >= _IDLE_SECONDS:
            return
        time.sleep(_LOOK_SECONDS)


@dataclass
class _NewLines(Generic[_Line]):
    """The lines of a growing file that were not read before; a resumed run repeats numbers."""

    path: Path
    kind: type[_Line]
    number_of: Callable[[_Line], int]
    highest: int  # number that was read
    _until: ReadUntil = field(init=False)

    def __post_init__(self) -> None:
        self._until = find_end(self.path)

    def read(self) -> list[_Line]:
        lines, self._until = read_new_records(self.path, self.kind, self._until)
        new = [line for line in lines if self.number_of(line) > self.highest]
        self.highest = max([self.highest, *map(self.number_of, new)])
        return new


class _FollowedRun:
    """How much of one run has been reported."""

    def __init__(self, folder: RunFolder, run: RunOverview) -> None:
        status = run.status
        self._folder = folder
        self._state, self._written_at = status.status, _written_at(folder)
        step = status.last_step.step if status.last_step else 0
        epoch = status.last_epoch.epoch if status.last_epoch else 0
        validated = status.last_validation.step if status.last_validation else 0
        self._steps = _NewLines(folder.steps, StepRecord, lambda line: line.step, step)
        self._epochs = _NewLines(folder.epochs, EpochRecord, lambda line: line.epoch, epoch)
        self._validations = _NewLines(
            folder.validations, ValidationRecord, lambda line: line.step, validated
        )
        self._ready_seconds = self._waited_seconds = 0.0  # of its threads, in steps seen here
        self._is_disturbed = False

    def advance(self, run: RunOverview) -> Iterator[Event]:
        """What is new, in the order in which it happened."""
        names = (run.spec.run_id, run.spec.arm.name, run.spec.seed)
        state, before = run.status.status, self._state
        written_at, written_before = _written_at(self._folder), self._written_at
        self._state, self._written_at = state, written_at
        if state == before != "running" and written_at == written_before:
            return
        if before != "running":  # it may have started and ended since
            yield RunStarted(*names)
        # sorting keeps a validation, and an epoch, after the step that they follow
        left = run.status.seconds_left
        steps = self._steps.read()
        new: list[StepDone | Validated | EpochEnded] = [StepDone(*names, step) for step in steps]
        new += [Validated(*names, validation) for validation in self._validations.read()]
        new += [EpochEnded(*names, epoch, left) for epoch in self._epochs.read()]
        yield from sorted(new, key=_step_of)
        if (waited := self._find_disturbance(steps)) is not None:
            yield RunDisturbed(*names, waited)
        if state != "running":
            yield RunEnded(*names, state, run.status.reason)

    def _find_disturbance(self, steps: list[StepRecord]) -> float | None:
        """The share of their time for which threads waited, when it first is a large one."""
        self._waited_seconds += sum(step.waited_seconds or 0.0 for step in steps)
        self._ready_seconds += sum(
            (step.ran_seconds or 0.0) + (step.waited_seconds or 0.0) for step in steps
        )
        if self._is_disturbed or self._ready_seconds < _READY_SECONDS:
            return None
        waited = self._waited_seconds / self._ready_seconds
        self._is_disturbed = waited > _DISTURBED
        return waited if self._is_disturbed else None


def _step_of(event: StepDone | Validated | EpochEnded) -> int:
    match event:
        case StepDone():
            return event.step.step
        case Validated():
            return event.validation.step
        case EpochEnded():
            return event.epoch.step


def _written_at(folder: RunFolder) -> int | None:
    """When the run's result or failure was written, in nanoseconds; None if there is none.

    A run that failed and is tried again may fail again between two looks.
    """
    for path in (folder.result, folder.failure):
        with suppress(FileNotFoundError, NotADirectoryError):
            return path.stat().st_mtime_ns
    return None
