"""One run as a child process, for the engines that start runs by a command line.

The child is `lorastudy run-one DIR RUN_ID`, which may be started any number of times: a finished
run stays finished, and an interrupted run continues from its checkpoint. The child reads its
standard input only to notice when it closes. If the process that started it dies in any way, the
child stops at a checkpoint and releases the run.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

FOLLOWS_INPUT = "--while-input-is-open"  # the run stops when whoever started it has died
OWNED, INTERRUPTED = 73, 75
STOP_SECONDS = 120  # for a checkpoint after a signal
_OWNED_WAIT_SECONDS = 5.0


class RunProcess:
    """A run being executed by a child of this process."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)
        self._child: subprocess.Popen[bytes] | None = None

    def execute(self, *, owned_seconds: float = 600.0) -> int:
        """Start the run and return its exit code.

        If another process owns the run (73), this waits: an owner that lost its parent releases
        the run at its next checkpoint.
        """
        deadline = time.monotonic() + owned_seconds
        while True:
            with subprocess.Popen(self.command, stdin=subprocess.PIPE) as self._child:
                code = self._child.wait()
            if code != OWNED or time.monotonic() > deadline:
                return code
            time.sleep(_OWNED_WAIT_SECONDS)

    def stop(self) -> None:
        """Have the run stop at a checkpoint, and wait for that, at most `STOP_SECONDS`.

        A signal's handler may call this while `execute` waits. The exit code of the child is left
        to `execute`, since one thread cannot enter `Popen.wait` twice.
        """
        if self._child is None or self._child.returncode is not None:
            return
        self._child.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while not _has_ended(self._child.pid) and time.monotonic() < deadline:
            time.sleep(0.05)


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def run_arguments(folder: Path, run_id: str, extra: Sequence[str]) -> tuple[str, ...]:
    """The arguments of `lorastudy` that execute one run, whichever engine starts it."""
    return ("run-one", str(folder.resolve()), run_id, FOLLOWS_INPUT, *extra)


def run_command(folder: Path, run_id: str, extra: Sequence[str] = ()) -> tuple[str, ...]:
    """The command line of one run, in one process."""
    return (sys.executable, "-m", "lorastudy", *run_arguments(folder, run_id, extra))


def ray_command(
    command: Sequence[str], *, address: str | None, cpus: float, gpus: float
) -> list[str]:
    """A command line that hands `command` to Ray's own program; no address: this machine's Ray."""
    where = ["--address", address] if address else []
    needs = ["--entrypoint-num-cpus", f"{cpus:g}", "--entrypoint-num-gpus", f"{gpus:g}"]
    return ["ray", "job", "submit", "--no-wait", *where, *needs, "--", *command]
