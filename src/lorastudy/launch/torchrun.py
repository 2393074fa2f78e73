"""One run over several processes: torchrun starts them, and they find each other.

Every process is `lorastudy run-one DIR RUN_ID --strategy ...`, as on a cluster, where a person
starts torchrun on every node. A process reads its standard input only to notice when it closes,
because this process closed it or died. The team then stops at a checkpoint.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lorastudy.interrupts import StopFlag
from lorastudy.launch.assignment import Assignment, TeamOptions
from lorastudy.launch.command import STOP_SECONDS, run_arguments
from lorastudy.store.folders import StudyFolder

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

EXIT_CODE_FILE = "LORASTUDY_EXIT_CODE_FILE"  # variable that names the file
_POLL_SECONDS = 0.1


def torchrun_command(
    folder: Path, run_id: str, team: TeamOptions, extra: tuple[str, ...]
) -> tuple[str, ...]:
    """The command line of one run on this machine; a port is found by torchrun."""
    return (
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(team.size), "-m", "lorastudy"),
        *run_arguments(folder, run_id, ("--strategy", team.strategy, *extra)),
    )


def execute_by_torchrun(
    command: tuple[str, ...], stop: StopFlag, environment: dict[str, str]
) -> int:
    """Exit code of a run that torchrun executes, as reported by its first process.

    torchrun itself only returns 0 or 1; it is 1 if that process could not report anything.
    """
    with tempfile.TemporaryDirectory() as scratch:
        said = Path(scratch) / "exit-code"
        variables = {
            EXIT_CODE_FILE: str(said),
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(STOP_SECONDS),
            **environment,
        }
        started = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            env={**os.environ, **variables},
            start_new_session=True,  # Ctrl-C reaches only this process, which passes it on
        )
        assert started.stdin is not None
        while started.poll() is None:
            if stop.requested:
                started.stdin.close()  # calling it again has no effect
            time.sleep(_POLL_SECONDS)
        started.stdin.close()
        return int(said.read_text()) if said.exists() else started.returncode


def say_exit_code(code: int) -> None:
    """Write the exit code of a team's first process where its starter looks for it."""
    path = os.environ.get(EXIT_CODE_FILE)
    if path is not None and os.environ.get("RANK", "0") == "0":
        Path(path).write_text(str(code))


def work_as_team(assignment: Assignment, parent: "Connection") -> None:
    """Entry point of a process that has torchrun execute a run; see `launch/worker.work`."""
    from lorastudy.launch.worker import leave_with, write_to_log

    stop = StopFlag()
    stop.listen()
    stop.follow(parent.recv)
    folder, run_id, resuming = assignment.folder, assignment.run_id, assignment.resuming
    write_to_log(StudyFolder(folder).run(run_id))
    flags = {"--restart": resuming.restart, "--allow-drift": resuming.allow_drift}
    extra = (
        *("--device", assignment.device, "--threads", str(assignment.threads)),
        *(flag for flag, is_on in flags.items() if is_on),
    )
    assert assignment.team is not None
    command = torchrun_command(folder, run_id, assignment.team, extra)
    leave_with(execute_by_torchrun(command, stop, assignment.environment))
