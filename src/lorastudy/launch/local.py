"""Execute runs on this machine, each in a fresh process or team of processes, a few at a time.

Every run has cores of its own, and GPUs if there are any, as far as there are enough of them. If
the platform has a fork server, torch and transformers are imported once, and every run is forked
from there in a few milliseconds, with a memory peak of its own.
"""

import atexit
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType

from lorastudy.config.spec import RunSpec
from lorastudy.errors import InterruptedRunError, OwnedError, StorageError
from lorastudy.interrupts import StopFlag, signals_blocked
from lorastudy.launch.assignment import Assignment, TeamOptions
from lorastudy.launch.torchrun import work_as_team
from lorastudy.store.folders import StudyFolder
from lorastudy.store.places import Places
from lorastudy.store.records import RunResult
from lorastudy.store.resuming import Resuming
from lorastudy.threads import let_crowded_threads_sleep, share_cores

_WORKER = "lorastudy.launch.worker"
_POLL_SECONDS = 0.2
_LOST = 255  # multiprocessing gives this code when the fork server, which has the real one, died
_HOW_LOST = "was lost: the fork server that had started it was killed, perhaps for lack of memory"


@dataclass
class LocalEngine:
    """Executes up to `jobs` runs at once, with cores and `gpus` divided among them."""

    folder: StudyFolder
    places: Places
    device: str
    jobs: int
    stop: StopFlag
    resuming: Resuming = field(default_factory=Resuming)
    gpus: tuple[str, ...] = ()  # as CUDA_VISIBLE_DEVICES names them; none: device is the CPU
    team: TeamOptions | None = None  # None: one process for each run
    threads: int | None = None  # of each process; None: its share of the cores
    _running: dict[str, "_Running"] = field(default_factory=dict)
    _refused: StorageError | None = None  # the last time the disk did not take a run's failure

    def execute(self, runs: Sequence[RunSpec]) -> Generator[None, None, None]:
        """Execute all of `runs`; a run that fails is left as a row and the others go on.

        Yields several times per second while runs are going on. When the iterator is closed, or
        an error ends it, every process is stopped at a checkpoint first.

        Raises:
            InterruptedRunError: A signal came; every process stopped at a checkpoint.
            StorageError: A run's failure could not be written, or the folder is gone.
        """
        try:
            yield from self._execute(runs)
        finally:  # nothing may leave a process behind
            self._terminate()
        if self._refused is not None:
            raise self._refused

    def _terminate(self) -> None:
        for run in self._running.values():
            run.process.terminate()
        for run in self._running.values():
            run.process.join()

    def _execute(self, runs: Sequence[RunSpec]) -> Iterator[None]:
        waiting = list(reversed(runs))
        specs = {run.run_id: run for run in runs}
        while waiting or self._running:
            while waiting and len(self._running) < self.jobs and not self.stop.requested:
                self._start(waiting.pop().run_id)
            self._reap(specs)
            yield
            if self.stop.requested:
                yield from self._stop_all(specs)
            time.sleep(_POLL_SECONDS)

    def _start(self, run_id: str) -> None:
        context = process_context()
        theirs, ours = context.Pipe(duplex=False)
        size = self.team.size if self.team else 1
        taken = {run.slot for run in self._running.values()}
        slot = next(slot for slot in count() if slot not in taken)
        gpus = share_gpus(self.gpus, slot, size)
        assignment = Assignment(
            folder=self.folder.path,
            run_id=run_id,
            places=self.places,
            device=self.device,
            threads=self.threads or share_cores(self.jobs * size),
            resuming=self.resuming,
            environment={"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {},
            team=self.team,
        )
        target = work_as_team if self.team else _work
        process = context.Process(target=target, args=(assignment, theirs), name=run_id)
        start_process(process)
        theirs.close()
        self._running[run_id] = _Running(process, ours, slot)

    def _reap(self, specs: dict[str, RunSpec]) -> None:
        for run_id, run in list(self._running.items()):
            if run.process.exitcode is None:
                continue
            run.process.join()
            run.pipe.close()
            del self._running[run_id]
            self._record_death(specs[run_id], run.process.exitcode)

    def _record_death(self, spec: RunSpec, exit_code: int) -> None:
        """A process that was killed could not write its own failure."""
        run = self.folder.run(spec.run_id)
        if not self.folder.path.is_dir():
            self._refused = StorageError(f"{self.folder.path} was deleted during its runs.")
            return
        if exit_code in (0, 73, 75) or run.read_outcome(spec) is not None or self.stop.requested:
            return
        how = (
            f"was killed by {signal.Signals(-exit_code).name}, perhaps for lack of memory"
            if exit_code < 0
            else _HOW_LOST
            if exit_code == _LOST
            else f"ended with exit code {exit_code}"
        )
        failure = RunResult.of(
            spec,
            status="failed",
            reason=f"its process {how}. See {run.path.name}/log.txt; run the study again to retry.",
            exit_code=exit_code if exit_code > 0 else 128 - exit_code,
        )
        try:
            with suppress(OwnedError), run.claim():  # another command may have taken the run over
                if run.read_outcome(spec) is None:
                    run.write_failure(failure)
        except StorageError as error:
            self._refused = error  # the other runs go on

    def _stop_all(self, specs: dict[str, RunSpec]) -> Iterator[None]:
        if self._running:
            print("Stopping; writing a checkpoint ...", file=sys.stderr, flush=True)
        for run in self._running.values():
            run.process.terminate()
        while self._running:
            self._reap(specs)
            yield
            time.sleep(_POLL_SECONDS)
        raise InterruptedRunError(
            f"interrupted; finished work is kept in {self.folder.path}. "
            "Run the same command again to continue."
        )


@dataclass(frozen=True, slots=True)
class _Running:
    process: BaseProcess
    pipe: Connection  # closes when this process dies
    slot: int  # among the runs going on: decides on its GPUs


def share_gpus(gpus: Sequence[str], slot: int, size: int) -> tuple[str, ...]:
    """The `size` GPUs of the run in `slot`; if none are left, GPUs are used again."""
    if not gpus:
        return ()
    n_slots = max(1, len(gpus) // size)
    begin = slot % n_slots * size
    return tuple(gpus[begin : begin + size])


def visible_gpus(device: str) -> tuple[str, ...]:
    """The GPUs that runs on `device` may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else map(str, range(torch.cuda.device_count()))
    return tuple(names)[: torch.cuda.device_count()]


@cache
def process_context() -> (
    multiprocessing.context.ForkServerContext | multiprocessing.context.SpawnContext
):
    """A fork server if there is one, else fresh interpreters."""
    let_crowded_threads_sleep()
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    atexit.register(_end_fork_server)  # before there is one that a signal could leave behind
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_WORKER])
    return context


@contextmanager
def without_main() -> Iterator[None]:
    """While the block lasts, new processes do not import this one's main module.

    They would otherwise carry out a script that conducts a study, line by line, once more.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def warm_up() -> None:
    """Start the fork server's imports now, while this process continues with other work.

    The server and its forks have the signals of `interrupts` blocked. Ctrl-C and many schedulers
    send a signal to all processes of a command: the server, which has nothing to save, leaves
    answering to this process, and a fork answers as soon as its `StopFlag` listens.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        process_context()
        from multiprocessing import forkserver, resource_tracker

        resource_tracker.ensure_running()  # before: starting it unblocks signals
        with without_main(), signals_blocked():
            forkserver.ensure_running()


def start_process(process: BaseProcess) -> None:
    """Start a process of `process_context`."""
    warm_up()
    with without_main():
        process.start()


def _end_fork_server() -> None:
    """Leave no fork server behind: while it imports, it does not notice that this process ended."""
    from multiprocessing import forkserver

    pid = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _work(assignment: Assignment, parent: Connection) -> None:
    from lorastudy.launch.worker import work

    work(assignment, parent)
