"""Tables on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from rich.table import Table
from rich.text import Text

from lorastudy.analysis.findings import Findings
from lorastudy.cli.console import make_console
from lorastudy.cli.options import console_width
from lorastudy.config.models import Study
from lorastudy.report.tables.table import Cell, Column
from lorastudy.report.tables.table import Table as TableModel
from lorastudy.report.tables.table1 import build_table1
from lorastudy.units import write_mib

if TYPE_CHECKING:
    from lorastudy.study.check import StudyCheck

_WIDE = 100  # columns of a terminal that what is trained and what it costs fit into together
_FRAME = 3  # characters between two columns
_N_TRAINED = 4  # columns of Table I about what is trained; what it costs follows


def print_table(findings: Findings) -> None:
    """Table I in parts that fit a terminal: what is trained, each protocol, and costs."""
    model = build_table1(findings)
    console = make_console(max(console_width(), 80))
    console.print(model.title, style="bold")
    for title, positions in _sections(model.columns, is_narrow=console.width < _WIDE):
        for part in _split_to_fit(model, positions, console.width):
            console.print(_make_section(model, title, part, console.width))
    for note in model.notes:
        console.print(f"{note.mark} {note.text}".strip(), style="dim")


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


def _make_section(model: TableModel, title: str, positions: list[int], width: int) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", title_style="")
    shown = (0, *positions)
    for position, wide in zip(shown, _share_width(model, shown, width), strict=True):
        column = model.columns[position]
        justify: Literal["right", "left"] = "right" if column.align == "right" else "left"
        table.add_column(column.group or column.title, justify=justify, overflow="fold", width=wide)
    for row in model.rows:
        table.add_row(*(_show(row[position]) for position in shown))
    return table


def _share_width(model: TableModel, positions: Sequence[int], width: int) -> list[int]:
    """Characters of each column: what it needs, and from the left as much as it would like."""
    widths = [_needed_width(model, position) for position in positions]
    spare = width - 1 - sum(wide + _FRAME for wide in widths)
    for i, position in enumerate(positions):
        added = max(0, min(spare, max(map(len, _texts(model, position))) - widths[i]))
        widths[i] += added
        spare -= added
    return widths


def _show(cell: Cell) -> Text:
    text = Text(cell.text, style="bold" if cell.is_emphasised else "")
    detail = Text(f" {cell.detail}" if cell.detail else "", style="dim")
    return Text.assemble(text, detail, cell.mark)


def _split_to_fit(model: TableModel, positions: list[int], width: int) -> list[list[int]]:
    """Columns of one part, in as many tables as are needed to cut no number of any column."""
    tables: list[list[int]] = []
    left = 0
    for position in positions:
        needed = _needed_width(model, position) + _FRAME
        if not tables or needed > left:
            tables.append([])
            left = width - 1 - _needed_width(model, 0) - _FRAME
        tables[-1].append(position)
        left -= needed
    return tables


def _needed_width(model: TableModel, position: int) -> int:
    """The fewest characters that show the column; only texts may go on in the next line."""
    title, *cells = _texts(model, position)
    is_number = model.columns[position].align == "right"
    whole = [*title.split(), *(cells if is_number else " ".join(cells).split())]
    return max(map(len, whole), default=1)


def _texts(model: TableModel, position: int) -> list[str]:
    column = model.columns[position]
    return [column.group or column.title, *(_show(row[position]).plain for row in model.rows)]


def print_check(study: Study, checked: "StudyCheck") -> None:
    """What a study will do, for each arm."""
    console = make_console(max(console_width(), 100))
    base = checked.reader.base
    console.print(
        f"{study.name}: {checked.n_runs} runs on a {base.model_type} model of "
        f"{base.total_parameters:,} parameters",
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
    )
