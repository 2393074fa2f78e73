"""Run a study's runs as Ray tasks, on a cluster or on this machine.

Ray places the tasks and gives each its GPUs; the folder of the study, on a file system that
all nodes share, is the only state. A driver that was killed can therefore simply be started again:
finished runs are not repeated, and the others continue from their checkpoints.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import ray

from lorastudy.launch.command import INTERRUPTED, RunProcess

_POLL_SECONDS = 1.0
_LOST_NODE_RETRIES = 3  # Ray starts the task again elsewhere when its node or worker dies


@dataclass(frozen=True, slots=True)
class RayOptions:
    """What every run needs from the cluster."""

    address: str | None = None  # None: a cluster of only this machine
    cpus: float = 1.0
    gpus: float = 0.0


def execute_on_ray(
    commands: Mapping[str, Sequence[str]], options: RayOptions
) -> Iterator[dict[str, int]]:
    """Execute all runs; yields, about once per second, the exit codes of those that ended.

    Args:
        commands: Run ids with their command lines; see `run_command`.
        options: Where, and the resources of one run.
    """
    ray.init(address=options.address, ignore_reinit_error=True, log_to_driver=False)
    task = ray.remote(num_cpus=options.cpus, num_gpus=options.gpus, max_retries=_LOST_NODE_RETRIES)(
        _execute
    )
    waiting = {task.remote(tuple(command)): run_id for run_id, command in commands.items()}
    try:
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=_POLL_SECONDS)
            yield {waiting.pop(reference): _exit_code(reference) for reference in done}
    finally:
        ray.shutdown()


def _execute(command: tuple[str, ...]) -> int:
    return RunProcess(command).execute()


def _exit_code(reference: "ray.ObjectRef[int]") -> int:
    try:
        return int(ray.get(reference))
    except ray.exceptions.RayError:  # its node was lost too often; the run's folder has the rest
        return INTERRUPTED
