"""Progress while a study runs: a live table on a terminal, one line an event otherwise.

Both read the run folders and nothing else, so `lorastudy status` in another terminal, or on
another machine with the same file system, shows the same.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from lorastudy.store.collect import RunOverview, read_overview
from lorastudy.store.folders import RunStatus, State, StudyFolder
from lorastudy.store.records import StepRecord
from lorastudy.units import write_clock, write_mib

_REFRESH_SECONDS = 1.0
_FRAME_LINES = 6  # title, head, rules and the line below
_COLUMNS = ("status", "epoch", "step", "train", "valid", "tok/s", "left", "MiB")
_FEW_COLUMNS = ("status", "epoch", "valid", "left")  # where even arm and seed are long
_ANY_WIDTH = 1000  # to see how wide a table would like to be
_COLORS = {
    "done": "green",
    "running": "bold cyan",
    "interrupted": "yellow",
    "missing": "dim",
    "failed": "bold red",
    "diverged": "bold red",
    "out-of-memory": "bold red",
}
_INTEREST: tuple[State, ...] = (
    "running",
    "failed",
    "diverged",
    "out-of-memory",
    "interrupted",
    "done",
    "missing",
)


def make_status_table(
    overview: tuple[RunOverview, ...], title: str, *, width: int, most_rows: int | None = None
) -> Table:
    """One row a run: state, epoch, step, losses in nats a token, pace, time left, memory.

    A run goes by its id, which commands take and which is never cut short; on a narrow terminal
    by arm and seed, which `export` takes. Of more runs than `most_rows` those are shown that
    something happens with; the line below counts all.
    """
    shown = _most_interesting(overview, most_rows)
    caption = _count(overview, n_shown=len(shown))
    rates = _list_rates(overview)
    for has_id, columns in ((True, _COLUMNS), (False, _COLUMNS), (False, _FEW_COLUMNS)):
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        table.padding, table.pad_edge = (0, 1, 0, 0), False
        table.caption, table.caption_justify = caption, "left"
        for name in (*(("run",) if has_id else ("arm", "seed")), *(("rate",) if rates else ())):
            table.add_column(name, no_wrap=True)
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
        if Console(width=_ANY_WIDTH).measure(table).maximum <= width:
            break
    return table


def _most_interesting(
    overview: tuple[RunOverview, ...], most_rows: int | None
) -> tuple[RunOverview, ...]:
    """At most `most_rows` runs, in the study's order: what runs or failed first, then the last."""
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
    return f"{len(overview)} runs: {', '.join(parts)}{more}"


def _list_rates(overview: tuple[RunOverview, ...]) -> dict[str, str]:
    """Learning rates by run id; none where no arm has several."""
    rates = {run.spec.run_id: run.spec.learning_rate for run in overview}
    pairs = {(run.spec.arm.name, run.spec.learning_rate) for run in overview}
    if len(pairs) == len({arm for arm, _ in pairs}):
        return {}
    return {run_id: f"{rate:g}" if rate else "" for run_id, rate in rates.items()}


def _cells(run: RunOverview) -> dict[str, str]:
    """What stands in each of `_COLUMNS`."""
    status = run.status
    step, epoch = status.last_step, status.last_epoch
    cells = dict.fromkeys(_COLUMNS, "")
    cells["status"] = status.status
    if epoch:
        cells["valid"] = f"{epoch.validation_loss:.3f}"
    if step:
        cells["epoch"] = f"{step.epoch}/{run.spec.training.epochs}"
        cells["step"] = str(step.step)
        cells["train"] = f"{step.loss:.3f}"
        cells["tok/s"] = f"{_tokens_per_second(step):,.0f}" if step.seconds else ""
        peak = step.peak_memory_bytes
        cells["MiB"] = write_mib(peak) if peak else ""
    if status.seconds_left is not None:
        cells["left"] = write_clock(status.seconds_left)
    return cells


def _tokens_per_second(step: StepRecord) -> float:
    return step.n_tokens / step.seconds


@dataclass
class LineProgress:
    """Prints what is new in the run folders since the last look."""

    folder: StudyFolder
    _seen: dict[str, tuple[str, int]] = field(default_factory=dict)

    def look(self) -> None:
        """Print one line for every epoch that ended and every run whose state changed."""
        for run in read_overview(self.folder):
            status = run.status
            epoch = status.last_epoch.epoch if status.last_epoch else 0
            before = self._seen.setdefault(status.run_id, (status.status, epoch))
            if epoch > before[1]:
                print(_epoch_line(status), flush=True)
            if status.status != before[0]:
                reason = f": {status.reason}" if status.reason else ""
                print(f"{status.run_id}  {status.status}{reason}", flush=True)
            self._seen[status.run_id] = (status.status, epoch)


def _epoch_line(status: RunStatus) -> str:
    epoch, left = status.last_epoch, status.seconds_left
    assert epoch is not None
    return (
        f"{status.run_id}  epoch {epoch.epoch}  step {epoch.step}  "
        f"train {epoch.train_loss:.4f}  validation {epoch.validation_loss:.4f} nats/token  "
        f"{epoch.train_seconds:.1f} s" + (f", {write_clock(left)} left" if left else "")
    )


class Watcher:
    """Shows progress, at most once a second."""

    def __init__(self, folder: StudyFolder, live: Live | None) -> None:
        self._folder, self._live = folder, live
        self._lines = LineProgress(folder)
        self._next = 0.0

    def look(self) -> None:
        """Refresh if the last time is long enough ago."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _REFRESH_SECONDS
        self.refresh()

    def refresh(self, *, is_last: bool = False) -> None:
        """Refresh now; the last table stays on the terminal and has every run."""
        if self._live is None:
            self._lines.look()
            return
        console = self._live.console
        table = make_status_table(
            read_overview(self._folder),
            str(self._folder.path),
            width=console.width,
            most_rows=None if is_last else max(3, console.height - _FRAME_LINES),
        )
        if is_last:
            self._live.vertical_overflow = "visible"
        self._live.update(table, refresh=True)


@contextmanager
def watch_study(folder: StudyFolder) -> Iterator[Watcher]:
    """A watcher that suits standard output."""
    if not sys.stdout.isatty():
        watcher = Watcher(folder, None)
        watcher.refresh()
        yield watcher
        watcher.refresh()
        return
    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        watcher = Watcher(folder, live)
        yield watcher
        watcher.refresh(is_last=True)
