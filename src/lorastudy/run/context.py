"""One run and everything around it that its steps need."""

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
    """What is executed, where it is kept, what it reads, and who takes part."""

    spec: RunSpec
    folder: RunFolder
    reader: Reader
    device: torch.device  # of this member
    stop: StopFlag = field(default_factory=StopFlag)
    resuming: Resuming = field(default_factory=Resuming)
    team: Team = ALONE
