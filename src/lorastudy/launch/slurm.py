"""Hand runs to Slurm through submitit: one array task per run, requeued when it is preempted.

There is no state here except submitit's own records of its jobs. A task only starts
`lorastudy run-one`, and the run's folder has everything else.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorastudy.launch.command import INTERRUPTED, RunProcess

if TYPE_CHECKING:
    import submitit
    from submitit.helpers import DelayedSubmission


@dataclass(frozen=True, slots=True)
class SlurmOptions:
    """The options of a cluster; None leaves its default."""

    minutes: int = 240
    partition: str | None = None
    gpus: int = 0
    cpus: int = 2
    memory_gb: int | None = None
    at_once: int = 16  # most tasks of the array at the same time


class RunTask:
    """One run as a job."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = RunProcess(command)

    def __call__(self) -> int:
        """The exit code of the run: 0, or 75 if it was interrupted at a checkpoint.

        Raises:
            RuntimeError: The run failed, so that the job does not look finished.
        """
        code = self._process.execute()
        if code not in (0, INTERRUPTED):
            raise RuntimeError(f"{' '.join(self._process.command)} ended with exit code {code}")
        return code

    def checkpoint(self) -> "DelayedSubmission":
        """Called by submitit before it requeues: stop at a checkpoint, and continue later."""
        from submitit.helpers import DelayedSubmission

        self._process.stop()
        return DelayedSubmission(RunTask(self._process.command))


def sbatch_command(command: Sequence[str], name: str, options: SlurmOptions) -> list[str]:
    """A command line that hands `command` to Slurm's own program, as one job called `name`."""
    wishes = {
        "--job-name": name,
        "--time": options.minutes,
        "--cpus-per-task": options.cpus,
        "--gpus-per-node": options.gpus or None,
        "--partition": options.partition,
        "--mem": f"{options.memory_gb}G" if options.memory_gb else None,
    }
    given = [f"{key}={value}" for key, value in wishes.items() if value is not None]
    return ["sbatch", *given, "--ntasks=1", f"--wrap={shlex.join(command)}"]


def submit_runs(
    commands: Sequence[Sequence[str]], logs: Path, options: SlurmOptions, *, cluster: str = "slurm"
) -> "list[submitit.Job[int]]":
    """Submit one task for each command.

    Args:
        commands: See `run_command`.
        logs: Folder of submitit's files; on the shared file system.
        options: Time, partition and resources of every task.
        cluster: "slurm", or "local" for processes of this machine.

    Raises:
        ImportError: The package submitit is not installed.
    """
    import submitit

    executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
    executor.update_parameters(
        name="lorastudy",
        timeout_min=options.minutes,
        cpus_per_task=options.cpus,
        gpus_per_node=options.gpus,
        tasks_per_node=1,
        slurm_array_parallelism=options.at_once,
    )
    if options.partition is not None:
        executor.update_parameters(slurm_partition=options.partition)
    if options.memory_gb is not None:
        executor.update_parameters(mem_gb=options.memory_gb)
    return list(executor.submit_array([RunTask(command) for command in commands]))
