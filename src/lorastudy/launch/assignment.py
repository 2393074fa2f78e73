"""What a process that executes one run is given."""

from dataclasses import dataclass, field
from pathlib import Path

from lorastudy.store.places import Places
from lorastudy.store.records import Strategy
from lorastudy.store.resuming import Resuming


@dataclass(frozen=True, slots=True)
class TeamOptions:
    """How many processes train one run together, and how they share it."""

    size: int
    strategy: Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One run of a study and the part of this machine that it may use."""

    folder: Path  # of the study
    run_id: str
    places: Places
    device: str
    threads: int
    resuming: Resuming
    environment: dict[str, str] = field(default_factory=dict)  # set before any device is touched
    team: TeamOptions | None = None  # None: one process
