"""What every engine executes for one run; it is safe to start it twice and to kill it.

The fork server imports this module, so that its libraries are loaded once for all runs.
"""

import os
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NoReturn

import torch

from lorastudy.errors import UserError, is_out_of_memory, redact_secrets, show_names
from lorastudy.interrupts import StopFlag
from lorastudy.launch.assignment import Assignment
from lorastudy.launch.attempt import Attempt, TriedArm
from lorastudy.machine.environment import choose_device
from lorastudy.machine.memory import measure_peak_memory
from lorastudy.machine.team import device_of_member, join_team
from lorastudy.machine.waiting import sleep_beside_others
from lorastudy.model.base import prepare_process
from lorastudy.run.context import RunContext
from lorastudy.run.drift import has_progress
from lorastudy.run.execute import execute_run, join_run
from lorastudy.run.probe import probe_arm, time_arm
from lorastudy.run.readers import open_reader
from lorastudy.store.collect import read_study
from lorastudy.store.files import read_record
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.locks import ProbedArm
from lorastudy.store.places import Places
from lorastudy.store.rates import find_pause, list_paused, list_runs
from lorastudy.store.records import Manifest, RunResult, Strategy
from lorastudy.store.resuming import Resuming
from lorastudy.threads import share_cores

_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2  # descriptors, which libraries in C write to as well


def execute_by_id(
    folder: StudyFolder,
    run_id: str,
    places: Places,
    *,
    device: str,
    threads: int,
    stop: StopFlag,
    resuming: Resuming = Resuming(),  # noqa: B008  frozen
    strategy: Strategy | None = None,
) -> RunResult | None:
    """Execute the run `run_id` of a study in this process, or as a member of a team of torchrun.

    Returns its result, and None for the members of a team that write nothing.

    Raises:
        UserError: See `execute_run`; also if the study does not have this run.
    """
    prepare_process()
    torch.set_num_threads(_threads_of(folder.run(run_id)) or threads or share_cores(1))
    study = read_study(folder)
    specs = {spec.run_id: spec for spec in list_runs(study, folder)}
    if run_id not in specs:
        if reasons := [a.reason for a in list_paused(study, folder) if a.spec.run_id == run_id]:
            raise UserError(f"{run_id} {reasons[0]}. `lorastudy run {folder.path}` decides on it.")
        raise UserError(f"{folder.path} has no run {run_id!r}. It has: {show_names(specs)}.")
    if not study.is_planned(specs[run_id].arm):
        raise UserError(
            f"{run_id}: it is not planned yet what training.budget means for this arm. "
            f"`lorastudy run {folder.path}` plans it."
        )
    reader = open_reader(study, places)
    with join_team(strategy) as team:
        stop.agree = team.any
        context = RunContext(
            spec=specs[run_id],
            folder=folder.run(run_id),
            reader=reader,
            device=device_of_member(team, choose_device(device)),
            stop=stop,
            resuming=resuming,
            team=team,
            until_epoch=find_pause(study, folder, run_id),
        )
        if team.is_first:
            return execute_run(context)
        join_run(context)
        return None


def try_arm(attempt: Attempt) -> TriedArm | UserError:
    """What trying an arm in this process found, or the error that stopped it."""
    began = time.perf_counter()
    prepare_process()
    torch.set_num_threads(share_cores(1))
    where, fits, seconds = choose_device(attempt.device), True, None
    try:
        reader = open_reader(attempt.study, attempt.places)
        with sleep_beside_others():
            if attempt.is_timed:
                peak, seconds = time_arm(attempt.run, reader, where, began=began)
            else:
                peak = probe_arm(attempt.run, reader, where)
    except UserError as error:
        return error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        fits, peak = False, measure_peak_memory(where)
    probed = ProbedArm(arm=attempt.run.arm.name, fits=fits, peak_memory_bytes=peak)
    return TriedArm(probed, seconds)


def _threads_of(run: RunFolder) -> int:
    """Number of threads with which a run was started; with others, sums round differently."""
    if not run.manifest.is_file() or not has_progress(run):
        return 0
    return read_record(run.manifest, Manifest).environment.threads


def work(assignment: Assignment, parent: Connection) -> None:
    """Entry point of a fresh process; its output goes to log.txt, and its exit code is ours."""
    stop = StopFlag()
    stop.listen()
    stop.follow(parent.recv)  # the pipe closes when the parent dies, however it dies
    study = StudyFolder(assignment.folder)
    with suppress(FileExistsError, NotADirectoryError):  # which `execute_by_id` says in a sentence
        write_to_log(study.run(assignment.run_id))
    os.environ |= assignment.environment
    code = 1
    try:
        execute_by_id(
            study,
            assignment.run_id,
            assignment.places,
            device=assignment.device,
            threads=assignment.threads,
            stop=stop,
            resuming=assignment.resuming,
        )
        code = 0
    except UserError as error:
        code = error.exit_code
        _log(f"{type(error).__name__}: {redact_secrets(str(error))}")
    except Exception:
        _log(redact_secrets(traceback.format_exc()))
    leave_with(code)


def _log(text: str) -> None:
    with suppress(OSError):  # the log is on the disk that may be full; the exit code says so too
        print(text, file=sys.stderr, flush=True)


def write_to_log(run: RunFolder) -> None:
    """From here on, everything that this process and its children print goes to log.txt."""
    log = run.path / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), _STANDARD_OUTPUT)
        os.dup2(stream.fileno(), _STANDARD_ERROR)


def leave_with(code: int) -> NoReturn:
    """End this process at once, so that no library can delay a finished run."""
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(code)
