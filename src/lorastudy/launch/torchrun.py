"""One run over several processes: torchrun starts them, and they find each other.

Every process is `lorastudy run-one DIR RUN_ID --strategy ...`, as on a cluster, where a
person starts torchrun on every node. It reads its standard input only to see it close: that
asks the team for a checkpoint, whether it was this process that closed it or its death.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from lorastudy.interrupts import StopFlag
from lorastudy.launch.command import INTERRUPTED, STOP_SECONDS, run_arguments
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.records import Strategy
from lorastudy.store.resuming import Resuming

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class TeamOptions:
    """How many processes train one run together, and how they share it."""

    size: int
    strategy: Strategy


def torchrun_command(
    folder: Path, run_id: str, team: TeamOptions, extra: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The command line of one run on this machine; a port is found by torchrun."""
    return (
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(team.size), "-m", "lorastudy"),
        *run_arguments(folder, run_id, ("--strategy", team.strategy, *extra)),
    )


def execute_by_torchrun(
    run: RunFolder, command: tuple[str, ...], stop: StopFlag, environment: dict[str, str]
) -> int:
    """Exit code of a run that torchrun executes: its own code is 1 whatever a process says."""
    started = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        env={**os.environ, **environment, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(STOP_SECONDS)},
        start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
    )
    assert started.stdin is not None
    while started.poll() is None:
        if stop.requested and not started.stdin.closed:
            started.stdin.close()
        time.sleep(_POLL_SECONDS)
    started.stdin.close()
    if started.returncode == 0:
        return 0
    result = run.read_result()
    if result is not None and result.exit_code is not None:
        return result.exit_code
    return INTERRUPTED if stop.requested else 1


def work_as_team(
    folder: Path,
    run_id: str,
    device: str,
    threads: int,
    resuming: Resuming,
    parent: Connection,
    team: TeamOptions,
    environment: dict[str, str],
) -> None:
    """Entry point of a process that has torchrun execute a run; see `launch/worker.work`."""
    from lorastudy.launch.worker import leave_with, write_to_log

    stop = StopFlag()
    stop.listen()
    stop.follow(parent.recv)
    run = StudyFolder(folder).run(run_id)
    write_to_log(run)
    flags = {"--restart": resuming.restart, "--allow-drift": resuming.allow_drift}
    extra = ("--device", device, "--threads", str(threads), *(f for f, on in flags.items() if on))
    command = torchrun_command(folder, run_id, team, extra)
    leave_with(execute_by_torchrun(run, command, stop, environment))
