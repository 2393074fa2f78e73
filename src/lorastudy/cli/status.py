"""`status`: which runs are done, running, failed or missing."""

import sys
from typing import Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.options import AsJson, StudyDir
from lorastudy.errors import ConfigError
from lorastudy.store.collect import RunOverview, read_overview, read_study
from lorastudy.store.folders import StudyFolder
from lorastudy.store.rates import list_to_come
from lorastudy.units import write_count

_UNCUT_COLUMNS = 200  # for a file or a pipe, which has no width


def status(
    folder: StudyDir,
    as_json: AsJson = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Refresh until nothing is running.")
    ] = False,
) -> None:
    """Show which runs are done, running, failed or missing."""
    study = StudyFolder(folder)
    options.say_doubts(study)
    if as_json and watch:
        raise ConfigError("--watch shows a table for people; it cannot be combined with --json.")
    if as_json:
        options.print_json({"runs": [_describe(run) for run in read_overview(study)]})
    elif watch:
        from lorastudy.cli.live import show_progress
        from lorastudy.study.progress import follow_study

        show_progress(folder, follow_study(study))
    else:
        _print_status(read_overview(study), title=str(folder))
        _print_what_follows(study)


def _print_status(overview: tuple[RunOverview, ...], *, title: str) -> None:
    from lorastudy.cli.console import make_console
    from lorastudy.cli.live import make_status_table

    width = make_console().width if sys.stdout.isatty() else _UNCUT_COLUMNS
    console = make_console(width)
    console.print(make_status_table(overview, title, width=width))
    for line in (f"{r.spec.run_id}: {r.status.reason}" for r in overview if r.status.reason):
        console.print(line, soft_wrap=True)


def _print_what_follows(folder: StudyFolder) -> None:
    """Runs that are not listed, since the learning rates of their arms are not chosen yet."""
    to_come = list_to_come(read_study(folder), folder)
    if arms := list(dict.fromkeys(run.arm.name for run in to_come)):
        more = write_count(len(to_come), "more run")
        print(f"{more} will follow when tuning has chosen rates: {', '.join(arms)}")


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
