"""Try every arm before the study starts, each in a process of its own.

A study whose last arm would run out of memory after a night stops here within a minute. The
micro-batch is frozen and never lowered, because it decides how sums are rounded: with another
micro-batch it would be another study. `lorastudy check --probe` also measures time.
"""

import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec
from lorastudy.errors import OutOfMemoryError, UserError
from lorastudy.launch import local
from lorastudy.launch.attempt import Attempt, TriedArm
from lorastudy.store.folders import StudyFolder
from lorastudy.store.locks import ProbedArm, StudyLock
from lorastudy.store.places import Places
from lorastudy.units import write_mib


def time_study(
    study: Study, runs: Iterable[RunSpec], places: Places, device: str
) -> dict[str, TriedArm]:
    """By arm: peak memory, and the seconds of a run's parts. `runs` has one for each arm.

    Nothing is written but temporary files, and the study needs no folder.

    Raises:
        UserError: An arm cannot be trained; a lack of memory is no error.
    """
    return {
        run.arm.name: _try_in_process(Attempt(study, run, places, device, is_timed=True))
        for run in runs
    }


def probe_study(
    lock: StudyLock,
    study: Study,
    runs: Sequence[RunSpec],
    folder: StudyFolder,
    *,
    places: Places,
    device: str,
) -> StudyLock:
    """`lock` with the micro-batch and the measured peak of every arm of `runs` in it.

    Arms that it already names are not tried again.

    Raises:
        OutOfMemoryError: An arm does not fit (exit 7); the message says what each arm needs.
    """
    known = {arm.arm: arm for arm in lock.probed}
    for run in runs:
        if run.arm.name not in known:
            known[run.arm.name] = _try_in_process(Attempt(study, run, places, device)).probed
    short = [arm for arm in known.values() if not arm.fits]
    if short:
        raise OutOfMemoryError(_describe(short, list(known.values()), runs[0], folder))
    micro_batch = runs[0].training.micro_batch
    return lock.model_copy(update={"probed": tuple(known.values()), "micro_batch": micro_batch})


def _try_in_process(attempt: Attempt) -> TriedArm:
    context = local.process_context()
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(attempt, theirs), name=f"probe-{attempt.run.run_id}"
    )
    local.start_process(process)
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:  # killed: on a machine without memory left, by the system
        answer = TriedArm(ProbedArm(arm=attempt.run.arm.name, fits=False, peak_memory_bytes={}))
    except BaseException:  # a signal came; there is nothing to keep
        process.kill()
        raise
    finally:
        process.join()
        ours.close()
    if isinstance(answer, UserError):
        raise answer
    assert isinstance(answer, TriedArm)
    return answer


def _work(attempt: Attempt, parent: Connection) -> None:
    from lorastudy.launch.worker import try_arm

    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    parent.send(try_arm(attempt))


def _end_with(parent: Connection) -> None:
    """End this process when the one that started it has ended, and nobody waits for an answer."""
    with suppress(EOFError, OSError):
        parent.recv()
    os._exit(1)


def _describe(
    short: list[ProbedArm], arms: list[ProbedArm], run: RunSpec, folder: StudyFolder
) -> str:
    lower = max(1, run.training.micro_batch // 2)
    lines = "\n".join(f"  {arm.arm}: {_peak(arm)}" for arm in arms)
    return (
        f"{', '.join(arm.arm for arm in short)} would run out of memory with "
        f"training.micro_batch {run.training.micro_batch}. Peaks that were measured:\n{lines}\n"
        "Free memory and run the same command, or give all arms a smaller one in a new folder:\n"
        f"  lorastudy run {folder.study} --out {folder.path}-micro-batch-{lower} "
        f"--set training.micro_batch={lower}"
    )


def _peak(arm: ProbedArm) -> str:
    peaks = ", ".join(f"{kind} {write_mib(n)} MiB" for kind, n in arm.peak_memory_bytes.items())
    return f"{'fits' if arm.fits else 'does not fit'}{f' ({peaks})' if peaks else ''}"
