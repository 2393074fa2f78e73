"""Teams made of forks of the test process: nothing is imported again, torchrun stays away."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch.distributed as dist

from lorastudy import faults
from lorastudy.interrupts import StopFlag
from lorastudy.machine.team import Team, join_team
from lorastudy.model.base import quieten_libraries
from lorastudy.run.execute import execute_run, join_run
from lorastudy.store.folders import RunFolder
from lorastudy.store.records import Strategy
from lorastudy.store.resuming import Resuming
from support.tiny_runs import Case, start_child, wait_for_child

Handler = Callable[[str, StopFlag], None]


@dataclass(frozen=True)
class Rendezvous:
    """Where members meet: torchrun's agent would hold the store, here the test does."""

    store: dist.TCPStore
    size: int

    def enter(self, member: int) -> None:
        os.environ |= {
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(self.store.port),
            "WORLD_SIZE": str(self.size),
            "RANK": str(member),
            "LOCAL_RANK": str(member),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }


def as_team(
    size: int, strategy: Strategy, work: Callable[[Team], object], seconds: int = 60
) -> list[int]:
    """Exit codes of `size` members that do `work` together."""
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    meeting = Rendezvous(store, size)

    def carry_out(member: int) -> None:
        import signal

        signal.alarm(seconds)  # a hang ends as a failure
        meeting.enter(member)
        with join_team(strategy) as team:
            work(team)

    members = [start_child(lambda m=member: carry_out(m)) for member in range(size)]
    return [wait_for_child(process) for process in members]


def execute_as_team(
    case: Case,
    folder: RunFolder,
    size: int,
    strategy: Strategy,
    *,
    handlers: dict[int, Handler] | None = None,
    resuming: Resuming | None = None,
) -> list[int]:
    """Exit codes of the members that execute a run; `handlers` by member, as in `Case.child`."""

    def work(team: Team) -> None:
        quieten_libraries()
        stop = StopFlag(agree=team.any)
        handler = (handlers or {}).get(team.member)
        faults.handler = None if handler is None else lambda point: handler(point, stop)
        execute = execute_run if team.is_first else join_run
        execute(case.context(folder, stop=stop, resuming=resuming, team=team))

    return as_team(size, strategy, work)
