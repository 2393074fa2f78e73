"""What a process that tries an arm is told, and what it finds."""

from dataclasses import dataclass

from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec
from lorastudy.run.probe import ProbedSeconds
from lorastudy.store.locks import ProbedArm
from lorastudy.store.places import Places


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a process that tries an arm is told."""

    study: Study
    run: RunSpec
    places: Places
    device: str
    is_timed: bool = False


@dataclass(frozen=True, slots=True)
class TriedArm:
    """What trying an arm found."""

    probed: ProbedArm
    seconds: ProbedSeconds | None = None  # None: it was not timed, or it does not fit
