"""One run, and everything that its steps need."""

from dataclasses import dataclass, field

import torch

from lorastudy.config.spec import RunSpec
from lorastudy.interrupts import StopFlag
from lorastudy.machine.team import ALONE, Team
from lorastudy.run.inputs import Reader
from lorastudy.store.folders import RunFolder
from lorastudy.store.resuming import Resuming


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The run to execute, its folder, what it reads, and the processes that take part."""

    spec: RunSpec
    folder: RunFolder
    reader: Reader
    device: torch.device  # of this member
    stop: StopFlag = field(default_factory=StopFlag)
    resuming: Resuming = field(default_factory=Resuming)
    team: Team = ALONE
    until_epoch: int | None = None  # after which it stops until it is asked to go on; None: none
