"""Tables on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table

from lorastudy.analysis.findings import Findings
from lorastudy.cli.options import console_width
from lorastudy.config.models import Study
from lorastudy.report.tables.table import Cell, Column
from lorastudy.report.tables.table import Table as TableModel
from lorastudy.report.tables.table1 import build_table1
from lorastudy.units import write_mib

if TYPE_CHECKING:
    from lorastudy.study.check import StudyCheck

_WIDE = 100  # columns of a terminal that what is trained and what it costs fit into together
_N_TRAINED = 4  # columns of Table I about what is trained; what it costs follows


def print_table(findings: Findings) -> None:
    """Table I in parts that fit a terminal: what is trained, each protocol, and costs."""
    model = build_table1(findings)
    console = Console(width=max(console_width(), 80), highlight=False)
    console.print(model.title, style="bold")
    for title, positions in _sections(model.columns, is_narrow=console.width < _WIDE):
        console.print(_make_section(model, title, positions))
    for note in model.notes:
        console.print(f"{note.mark} {note.text}".strip(), markup=False, style="dim")


def _sections(columns: Sequence[Column], *, is_narrow: bool) -> list[tuple[str, list[int]]]:
    """Titles and column numbers of the parts; every part begins with column 0, the arm."""
    others = [i for i, c in enumerate(columns) if i and not c.group]
    protocols = dict.fromkeys((c.title, c.warning) for c in columns if c.group)
    scores = [
        (
            f"perplexity, {title}" + (f" ({warning})" if warning else ""),
            [i for i, c in enumerate(columns) if c.group and c.title == title],
        )
        for title, warning in protocols
    ]
    if is_narrow:
        trained, costs = others[:_N_TRAINED], others[_N_TRAINED:]
        return [*scores, ("what is trained", trained), ("what it costs", costs)]
    return [*scores, ("what is trained, and what it costs", others)]


def _make_section(model: TableModel, title: str, positions: list[int]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", title_style="")
    for position in (0, *positions):
        column = model.columns[position]
        justify: Literal["right", "left"] = "right" if column.align == "right" else "left"
        table.add_column(column.group or column.title, justify=justify)
    for row in model.rows:
        table.add_row(*(_show(row[position]) for position in (0, *positions)))
    return table


def _show(cell: Cell) -> str:
    from rich.markup import escape

    text = escape(cell.text)
    if cell.is_emphasised:
        text = f"[bold]{text}[/bold]"
    detail = f" [dim]{escape(cell.detail)}[/dim]" if cell.detail else ""
    return f"{text}{detail}{escape(cell.mark)}"


def print_check(study: Study, checked: "StudyCheck") -> None:
    """What a study will do, for each arm."""
    console = Console(width=max(console_width(), 100), highlight=False)
    base = checked.reader.base
    console.print(
        f"{study.name}: {checked.n_runs} runs on a {base.model_type} model of "
        f"{base.total_parameters:,} parameters",
        markup=False,
    )
    table = Table()
    table.add_column("arm")
    for name in ("modules", "trainable", "steps", "warm-up", "predicted peak MiB", "fits"):
        table.add_column(name, justify="right")
    for arm in checked.arms:
        fits = arm.peak.total <= checked.available_bytes
        table.add_row(
            arm.spec.arm.name,
            str(len(arm.placement.targets)),
            f"{arm.trainable_parameters:,}",
            f"{arm.layout.plan.n_steps:,}" if arm.trains else "0",
            f"{arm.layout.schedule.n_warmup:,}" if arm.trains else "0",
            write_mib(arm.peak.total),
            "yes" if fits else "no",
        )
    console.print(table)
    layout = checked.arms[0].layout
    share = layout.table.n_scored.sum() / (layout.table.n_rows * (study.data.rows.length - 1))
    console.print(
        f"{layout.table.n_rows:,} training rows; text is {share:.1%} of what rows padded to "
        f"{study.data.rows.length} tokens would score. "
        f"{write_mib(checked.available_bytes)} MiB are available.",
        markup=False,
    )
