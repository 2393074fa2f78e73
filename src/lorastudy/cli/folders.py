"""`status`, `table`, `report`, `run-one`, `extend`, `fsck`: on a study's folder."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from lorastudy.cli import options
from lorastudy.cli.completion import complete_runs
from lorastudy.cli.options import (
    AllowDrift,
    AsJson,
    Device,
    Mirror,
    Offline,
    Restart,
    StudyDir,
)
from lorastudy.errors import ConfigError, StorageError
from lorastudy.store.collect import RunOverview, read_overview, write_results
from lorastudy.store.folders import StudyFolder
from lorastudy.store.records import Strategy
from lorastudy.store.resuming import Resuming

_UNCUT_COLUMNS = 200  # for a file or a pipe, which has no width


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("status")(status)
    app.command("table")(table)
    app.command("report")(report)
    app.command("run-one")(run_one)
    app.command("extend")(extend)
    app.command("fsck")(fsck)


def status(
    folder: StudyDir,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until all is done.")] = False,
) -> None:
    """Show what is done, running, failed and missing."""
    study = StudyFolder(folder)
    if as_json and watch:
        raise ConfigError("--watch shows a table for people; leave it out with --json.")
    if as_json:
        options.print_json({"runs": [_describe(run) for run in read_overview(study)]})
        return
    from rich.console import Console

    from lorastudy.cli.live import make_status_table, watch_study

    overview = read_overview(study)
    if not watch:
        width = Console().width if sys.stdout.isatty() else _UNCUT_COLUMNS
        console = Console(width=width, highlight=False)
        console.print(make_status_table(overview, str(folder), width=width))
        for line in (f"{r.spec.run_id}: {r.status.reason}" for r in overview if r.status.reason):
            console.print(line, markup=False, soft_wrap=True)
        return
    with watch_study(study) as watcher:
        while any(r.status.status in ("running", "missing") for r in read_overview(study)):
            watcher.look()
            time.sleep(0.5)


def _describe(run: RunOverview) -> dict[str, object]:
    state = run.status
    return {
        "run_id": state.run_id,
        "arm": run.spec.arm.name,
        "seed": run.spec.seed,
        "learning_rate": run.spec.learning_rate,
        "status": state.status,
        "epoch": state.last_epoch.epoch if state.last_epoch else None,
        "step": state.last_step.step if state.last_step else None,
        "reason": state.reason,
        "seconds_left": state.seconds_left,
        "peak_memory_bytes": state.last_step.peak_memory_bytes if state.last_step else None,
    }


def table(
    folder: StudyDir,
    format: Annotated[
        Literal["md", "csv", "latex", "json"] | None,
        typer.Option(help="For other programs; without it, a table for the terminal."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the results: perplexities, parameters, seconds, memory."""
    if as_json:
        format = "json"
    from lorastudy.analysis.findings import read_findings

    findings = read_findings(folder, with_bootstrap=False)
    if format is None:
        from lorastudy.cli.show import print_table

        print_table(findings)
        return
    from lorastudy.report.build import render_table

    print(render_table(findings, format), end="")


def report(folder: StudyDir, as_json: AsJson = False) -> None:
    """Rebuild results.json, tables, figures and the page from the run folders."""
    from lorastudy.analysis.findings import make_findings
    from lorastudy.report.build import write_report

    results = write_results(StudyFolder(folder))
    page = write_report(make_findings(results, folder), folder)
    if as_json:
        options.print_json({"report": page})
    else:
        print(f"Report: {page}")


def run_one(
    folder: StudyDir,
    run_id: Annotated[
        str,
        typer.Argument(
            help="As `status` lists it.", metavar="RUN_ID", autocompletion=complete_runs
        ),
    ],
    *,
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: all.")] = 0,
    while_input_is_open: Annotated[
        bool,
        typer.Option(
            "--while-input-is-open",
            help="Stop at a checkpoint when standard input closes: its starter has died.",
        ),
    ] = False,
    allow_drift: AllowDrift = False,
    as_json: AsJson = False,
    restart: Restart = False,
    strategy: Annotated[
        Strategy | None,
        typer.Option(help="How the processes that torchrun started share the run."),
    ] = None,
) -> None:
    """Execute one run in this process: what every engine starts; safe to start twice.

    Under torchrun all of its processes execute the run together.

    Examples:  lorastudy run-one studies/demo full-s0-19a782ff
    torchrun --nproc-per-node 8 -m lorastudy run-one DIR RUN_ID --strategy fsdp2
    """
    options.check_device(device)
    options.check_mirror(mirror)
    study = StudyFolder(folder)
    from lorastudy.cli.choice import find_run

    find_run(study, run_id)
    places = options.stored_places(study, mirror, offline)
    from lorastudy.interrupts import StopFlag
    from lorastudy.launch.worker import execute_by_id

    stop = StopFlag()
    stop.listen()
    if while_input_is_open:
        stop.follow(lambda: os.read(0, 1))
    result = execute_by_id(
        study,
        run_id,
        places,
        device=device,
        threads=threads,
        stop=stop,
        resuming=Resuming(restart=restart, allow_drift=allow_drift),
        strategy=strategy,
    )
    if result is None:  # this process is not the team's first
        return
    if as_json:
        print(result.model_dump_json(indent=1))
    else:
        print(f"{run_id}  {result.status}")


def extend(
    folder: StudyDir,
    arm: Annotated[
        list[Path] | None, typer.Option(help="YAML file with one arm or a list (repeatable).")
    ] = None,
    seeds: Annotated[int, typer.Option(min=0, help="How many more seeds.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Add arms or seeds to a study; `lorastudy run DIR` then executes only what is new."""
    from lorastudy.config.spec import expand_study
    from lorastudy.config.study_file import extend_study
    from lorastudy.store.collect import read_study, write_extension

    study = StudyFolder(folder)
    before = read_study(study)
    texts = [(str(path), _read_text(path)) for path in arm or []]
    after = extend_study(before, texts, n_seeds=seeds)
    known = {run.run_id for run in expand_study(before)}
    added = [run.run_id for run in expand_study(after) if run.run_id not in known]
    write_extension(study, before, after)
    if as_json:
        options.print_json({"added": added})
    else:
        print(f"{len(added)} runs were added. Execute them:  lorastudy run {folder}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--arm {path}: {error}. Give a YAML file with an arm.") from error


def fsck(folder: StudyDir, as_json: AsJson = False) -> None:
    """Verify every hash and record in the folder; exit 74 if anything is damaged."""
    from lorastudy.store.checks import check_folder

    read_overview(StudyFolder(folder))  # refuses what is no study folder
    found = check_folder(StudyFolder(folder))
    if as_json:
        options.print_json({"n_checked": found.n_files, "damage": found.damage})
    else:
        print(f"{found.n_files} records and checkpoints looked at, {len(found.damage)} damaged.")
    if found.damage:
        raise StorageError("\n".join(found.damage))
