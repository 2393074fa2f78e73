"""Progress while a study runs: a live table on a terminal, one line per event otherwise."""

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.live import Live
from rich.table import Table

from lorastudy.cli.console import make_console
from lorastudy.store.collect import RunOverview
from lorastudy.store.records import EpochRecord, StepRecord, ValidationRecord
from lorastudy.store.status import State
from lorastudy.study.progress import (
    DecisionTaken,
    EpochEnded,
    Event,
    Look,
    RunDisturbed,
    RunEnded,
    RunStarted,
    StepDone,
    Validated,
)
from lorastudy.units import write_clock, write_count, write_mib, write_portion

_FRAME_LINES = 6  # title, head, rules and the line below
_COLUMNS = ("status", "epoch", "step", "train", "valid", "tok/s", "left", "MiB")
_FEW_COLUMNS = ("status", "epoch", "valid", "left")  # if even arm and seed are long
_ANY_WIDTH = 1000  # to measure how wide a table would like to be
_COLORS = {
    "done": "green",
    "running": "bold cyan",
    "interrupted": "yellow",
    "missing": "dim",
    "waiting": "dim",
    "stopped": "dim",
    "failed": "bold red",
    "diverged": "bold red",
    "out-of-memory": "bold red",
    "damaged": "bold red",
}
_INTEREST: tuple[State, ...] = (
    "running",
    "failed",
    "diverged",
    "out-of-memory",
    "damaged",
    "interrupted",
    "waiting",
    "done",
    "stopped",
    "missing",
)


def make_status_table(
    overview: tuple[RunOverview, ...], title: str, *, width: int, most_rows: int | None = None
) -> Table:
    """One row per run: state, epoch, step, losses in nats per token, pace, time left, memory.

    A run is shown by its id, which commands accept and which is never shortened; on a narrow
    terminal by arm and seed, which `export` accepts. If there are more runs than `most_rows`, those
    in progress are shown first; the line below counts all runs.
    """
    shown = _most_interesting(overview, most_rows)
    caption = _count(overview, n_shown=len(shown))
    rates = _list_rates(overview)
    for has_id, columns in ((True, _COLUMNS), (False, _COLUMNS), (False, _FEW_COLUMNS)):
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        table.padding, table.pad_edge = (0, 1, 0, 0), False
        table.caption, table.caption_justify = caption, "left"
        for name in (*(("run",) if has_id else ("arm", "seed")), *(("rate",) if rates else ())):
            table.add_column(name, overflow="fold")  # only names give way, so no number is cut
        for name in columns:
            table.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
        for run in shown:
            names = (run.spec.run_id,) if has_id else (run.spec.arm.name, str(run.spec.seed))
            cells = _cells(run)
            table.add_row(
                *names,
                *((rates[run.spec.run_id],) if rates else ()),
                *(cells[name] for name in columns),
                style=_COLORS[run.status.status],
            )
        if make_console(_ANY_WIDTH).measure(table).maximum <= width:
            break
    return table


def _most_interesting(
    overview: tuple[RunOverview, ...], most_rows: int | None
) -> tuple[RunOverview, ...]:
    """At most `most_rows` runs in the study's order; running and failed ones take precedence."""
    if most_rows is None or len(overview) <= most_rows:
        return overview
    by_interest = sorted(
        enumerate(overview),
        key=lambda item: (
            _INTEREST.index(item[1].status.status),
            -item[0] if item[1].status.status == "done" else item[0],
        ),
    )
    return tuple(run for _, run in sorted(by_interest[:most_rows], key=lambda item: item[0]))


def _count(overview: tuple[RunOverview, ...], *, n_shown: int) -> str:
    counts = Counter(run.status.status for run in overview)
    parts = [f"{counts[state]} {state}" for state in _INTEREST if counts[state]]
    hidden = len(overview) - n_shown
    more = f"; {hidden} of them not shown" if hidden else ""
    return f"{write_count(len(overview), 'run')}: {', '.join(parts)}{more}"


def _list_rates(overview: tuple[RunOverview, ...]) -> dict[str, str]:
    """Learning rates by run id; empty if no arm has several."""
    rates = {run.spec.run_id: run.spec.learning_rate for run in overview}
    pairs = {(run.spec.arm.name, run.spec.learning_rate) for run in overview}
    if len(pairs) == len({arm for arm, _ in pairs}):
        return {}
    return {run_id: f"{rate:g}" if rate else "" for run_id, rate in rates.items()}


def _cells(run: RunOverview) -> dict[str, str]:
    """The text of each of `_COLUMNS`."""
    status = run.status
    step, validated = status.last_step, (status.last_epoch, status.last_validation)
    cells = dict.fromkeys(_COLUMNS, "")
    cells["status"] = status.status
    if lines := [line for line in validated if line]:
        cells["valid"] = f"{max(lines, key=lambda line: line.step).validation_loss:.3f}"
    if step:
        epochs, budget = run.spec.training.epochs, run.spec.training.budget
        cells["epoch"] = f"{step.epoch}/{epochs}" if epochs else str(step.epoch)
        cells["step"] = f"{step.step}/{budget.steps}" if budget else str(step.step)
        cells["train"] = f"{step.loss:.3f}"
        cells["tok/s"] = f"{_tokens_per_second(step):,.0f}" if step.seconds else ""
        peak = step.peak_memory_bytes
        cells["MiB"] = write_mib(peak) if peak else ""
    if status.seconds_left is not None:
        cells["left"] = write_clock(status.seconds_left)
    return cells


def _tokens_per_second(step: StepRecord) -> float:
    return step.n_tokens / step.seconds


def show_progress(folder: Path, looks: Iterable[Look]) -> None:
    """Show a study while it runs: a live table on a terminal, else one line per event."""
    if not sys.stdout.isatty():
        for look in looks:
            print_lines(look.events)
        return
    with Live(console=make_console(), auto_refresh=False) as live:
        console = live.console
        for look in looks:
            for event in look.events:
                if isinstance(event, RunDisturbed | DecisionTaken):
                    console.print(_line_of(event))
            most_rows = max(3, console.height - _FRAME_LINES)
            table = make_status_table(
                look.overview, str(folder), width=console.width, most_rows=most_rows
            )
            live.update(table, refresh=True)
        # the last table stays on the terminal and has every run
        live.vertical_overflow = "visible"
        live.update(
            make_status_table(look.overview, str(folder), width=console.width), refresh=True
        )


def print_lines(events: Iterable[Event]) -> None:
    """Print a line for each epoch that ended, and each run that changed state or is disturbed."""
    for event in events:
        if (line := _line_of(event)) is not None:
            print(line, flush=True)


def _write_validation(line: EpochRecord | ValidationRecord) -> str:
    right = line.validation_accuracy
    said = "" if right is None else f", {100 * right:.1f} % right"
    return f"{line.validation_loss:.4f} nats/token{said}"


def _line_of(event: Event) -> str | None:
    match event:
        case RunStarted():
            return f"{event.run_id}  running"
        case RunEnded():
            return f"{event.run_id}  {event.state}" + (f": {event.reason}" if event.reason else "")
        case Validated(validation=found):
            return (
                f"{event.run_id}  epoch {found.epoch}  step {found.step}  validation "
                f"{_write_validation(found)}"
            )
        case EpochEnded(epoch=epoch, seconds_left=left):
            return (
                f"{event.run_id}  epoch {epoch.epoch}  step {epoch.step}  train "
                f"{epoch.train_loss:.4f}  validation {_write_validation(epoch)}  "
                f"{epoch.train_seconds:.1f} s" + (f", {write_clock(left)} left" if left else "")
            )
        case RunDisturbed(waited_share=waited):
            return (
                f"{event.run_id}  other programs use the CPU: its threads had to wait "
                f"{write_portion(waited)} of the time. It takes longer and its timings are "
                "unreliable; its scores stay the same."
            )
        case DecisionTaken(what=what):
            from lorastudy.report.story import describe_decision  # slow to import

            return describe_decision(what)
        case StepDone():
            return None
