"""`run-one`: execute one run in this process, as every engine does."""

import os
from typing import Annotated

import typer

from lorastudy.cli.completion import complete_runs
from lorastudy.cli.options import AllowDrift, AsJson, Device, Mirror, Offline, Restart, StudyDir
from lorastudy.interrupts import StopFlag
from lorastudy.store.folders import StudyFolder
from lorastudy.store.records import Strategy
from lorastudy.store.resuming import Resuming
from lorastudy.study.open import stored_places
from lorastudy.threads import refuse_threads

RunId = Annotated[
    str,
    typer.Argument(help="As `status` lists it.", metavar="RUN_ID", autocompletion=complete_runs),
]
WhileInputIsOpen = Annotated[
    bool,
    typer.Option(
        "--while-input-is-open",
        help="Stop at a checkpoint when standard input closes, since the starter has died.",
    ),
]
SharedBy = Annotated[
    Strategy | None,
    typer.Option(help="How the processes that torchrun started share the run."),
]


def run_one(
    folder: StudyDir,
    run_id: RunId,
    *,
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: all.")] = 0,
    while_input_is_open: WhileInputIsOpen = False,
    allow_drift: AllowDrift = False,
    as_json: AsJson = False,
    restart: Restart = False,
    strategy: SharedBy = None,
) -> None:
    """Execute one run in this process; every engine starts this command. Safe to start twice.

    Under torchrun all of its processes execute the run together:
    torchrun --nproc-per-node 8 -m lorastudy run-one DIR RUN_ID --strategy fsdp2
    """
    refuse_threads(threads)
    study = StudyFolder(folder)
    from lorastudy.analysis.choice import find_run

    find_run(study, run_id)
    from lorastudy.launch.worker import execute_by_id

    result = execute_by_id(
        *(study, run_id, stored_places(study, mirror, offline=offline)),
        device=device,
        threads=threads,
        stop=_listen(while_input_is_open=while_input_is_open),
        resuming=Resuming(restart=restart, allow_drift=allow_drift),
        strategy=strategy,
    )
    if result is not None:  # this process is the team's first
        print(result.model_dump_json(indent=1) if as_json else f"{run_id}  {result.status}")


def _listen(*, while_input_is_open: bool) -> StopFlag:
    """A flag that signals set and, if asked for, the end of standard input."""
    stop = StopFlag()
    stop.listen()
    if while_input_is_open:
        stop.follow(lambda: os.read(0, 1))
    return stop
