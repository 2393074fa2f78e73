"""Progress while a study runs: a live table on a terminal, one line an event otherwise.

Both read the run folders and nothing else, so `lorastudy status` in another terminal, or on
another machine with the same file system, shows the same.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from lorastudy.store.collect import RunOverview, read_overview
from lorastudy.store.folders import RunStatus, StudyFolder

_REFRESH_SECONDS = 1.0
_COLORS = {
    "done": "green",
    "running": "bold cyan",
    "interrupted": "yellow",
    "missing": "dim",
    "failed": "bold red",
    "diverged": "bold red",
    "out-of-memory": "bold red",
}


def make_status_table(overview: tuple[RunOverview, ...], title: str) -> Table:
    """One row a run: state, epoch, step, losses in nats a token, tokens a second.

    Run ids are never cut short, however narrow the terminal: they are what commands take.
    """
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    longest = max((len(run.status.run_id) for run in overview), default=0)
    table.add_column("run", no_wrap=True, min_width=longest)
    table.add_column("status", no_wrap=True)
    for name in ("epoch", "step", "train", "validation", "tokens/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in overview:
        table.add_row(*_cells(run.status), style=_COLORS[run.status.status])
    return table


def _cells(status: RunStatus) -> tuple[str, ...]:
    step, epoch = status.last_step, status.last_epoch
    return (
        status.run_id,
        status.status,
        str(step.epoch) if step else "",
        str(step.step) if step else "",
        f"{step.loss:.4f}" if step else "",
        f"{epoch.validation_loss:.4f}" if epoch else "",
        f"{step.n_tokens / step.seconds:,.0f}" if step and step.seconds else "",
    )


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
    epoch = status.last_epoch
    assert epoch is not None
    return (
        f"{status.run_id}  epoch {epoch.epoch}  step {epoch.step}  "
        f"train {epoch.train_loss:.4f}  validation {epoch.validation_loss:.4f} nats/token  "
        f"{epoch.train_seconds:.1f} s"
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

    def refresh(self) -> None:
        """Refresh now."""
        if self._live is None:
            self._lines.look()
        else:
            self._live.update(make_status_table(read_overview(self._folder), "runs"), refresh=True)


@contextmanager
def watch_study(folder: StudyFolder) -> Iterator[Watcher]:
    """A watcher that suits standard output."""
    if not sys.stdout.isatty():
        watcher = Watcher(folder, None)
        watcher.refresh()
        yield watcher
        watcher.refresh()
        return
    with Live(console=Console(), auto_refresh=False) as live:
        watcher = Watcher(folder, live)
        yield watcher
        watcher.refresh()
