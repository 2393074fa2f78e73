"""Tables on the terminal."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Literal

from rich.table import Table
from rich.text import Text

from lorastudy.analysis.decision import Decision
from lorastudy.analysis.findings import Findings
from lorastudy.cli.console import make_console
from lorastudy.cli.options import console_width
from lorastudy.report.page.headline import state_headline
from lorastudy.report.page.verdict import state_decision, write_ending
from lorastudy.report.tables.comparisons import build_reference_table
from lorastudy.report.tables.score_notes import warn_of_scores
from lorastudy.report.tables.table import Cell, Column, Note
from lorastudy.report.tables.table import Table as TableModel
from lorastudy.report.tables.table1 import build_table1
from lorastudy.report.wording import label_arm, list_placement

_WIDE = 100  # columns of a terminal, from which intervals fit into the table
_HEAD_WIDTH = 11  # columns of a title
_GAP = 2  # columns between two columns of a table
_DIFFERENCES = ("first", "difference", "low", "plain_low", "verdict")  # columns by first name
_COSTS = ("trainable parameters", "training seconds", "peak")  # columns by how their titles begin


def print_results(findings: Findings, *, with_padded: bool = False) -> None:
    """Table I on a terminal: scores of text, and what every arm costs.

    With `with_padded`, a second table of the scores that count padding as text. A table that is
    too wide goes on below, so that no number is cut.
    """
    console = make_console(max(console_width(), 80))
    text = [c for c in findings.comparisons if not c.key.scores_padding]
    padded = [c for c in findings.comparisons if c.key.scores_padding]
    shown = [text or padded, *([padded] if with_padded and text and padded else [])]
    warnings = warn_of_scores(findings.results)
    for comparisons in shown:
        model = build_table1(findings.restrict(comparisons))
        console.print(model.title, style="bold")
        for positions in _split_to_fit(model, console.width):
            console.print(_make_table(model, positions, console.width))
        for arm in findings.results.arms:
            if list_placement(findings, arm):
                console.print(label_arm(findings, arm), style="dim")
        for note in model.notes:
            if note.mark or note in warnings:
                console.print(f"{note.mark} {note.text}".strip(), style="dim")
    if padded and text and not with_padded:
        hint = "Scores that count padding as text are left out; --padded shows them."
        console.print(hint, style="dim")


def print_differences(findings: Findings) -> None:
    """Every arm minus the reference arm on a terminal, one table for each score of text."""
    console = make_console(max(console_width(), 80))
    text = [c for c in findings.comparisons if not c.key.scores_padding]
    notes: tuple[Note, ...] = ()
    for comparison in text or findings.comparisons:
        model = build_reference_table(findings.restrict([comparison]), with_plain=True)
        console.print(f"{comparison.key.benchmark}, {comparison.key.protocol_name}", style="bold")
        shown = [i for i, column in enumerate(model.columns) if column.names[0] in _DIFFERENCES]
        console.print(_make_table(model, shown, console.width))
        notes = model.notes
    for note in notes:
        console.print(f"{note.mark} {note.text}".strip(), style="dim")


def print_verdict(findings: Findings, folder: Path) -> None:
    """The verdict in three lines; none without scores."""
    for line in write_ending(findings, str(folder)):
        print(line)


def print_decision(decision: Decision, findings: Findings, folder: Path) -> None:
    """The headline, and below it every question of a reader with its answer."""
    print(state_headline(findings, decision.found.limits))
    for statement in state_decision(decision, findings, folder=str(folder)):
        print(f"\n{statement.question}")
        for sentence in statement.sentences:
            print(f"  {sentence}")
        if statement.command:
            print(f"  {statement.command}")


def _split_to_fit(model: TableModel, width: int) -> list[list[int]]:
    """Numbers of the columns shown, in as many tables as fit; each begins with the arm."""
    shown = [
        i
        for i, column in enumerate(model.columns)
        if i > 0 and (column.group or column.title.startswith(_COSTS))
    ]
    of_arm = _measure_width(model, 0, width)
    tables: list[list[int]] = []
    left = 0
    for position in shown:
        needed = _measure_width(model, position, width)
        if not tables or needed > left:
            tables.append([0])
            left = width - of_arm
        tables[-1].append(position)
        left -= needed
    return tables


def _measure_width(model: TableModel, position: int, width: int) -> int:
    """Characters that a column takes if nothing in it is folded, the gap included."""
    shown = [_show_at(row, position, width) for row in model.rows]
    lines = [line for text in shown for line in text.plain.splitlines()]
    return max(map(len, [*_wrap_title(model.columns[position]), *lines])) + _GAP


def _make_table(model: TableModel, positions: Sequence[int], width: int) -> Table:
    from rich.box import SIMPLE_HEAD

    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for position in positions:
        column = model.columns[position]
        justify: Literal["right", "left"] = "right" if column.align == "right" else "left"
        title = "\n".join(_wrap_title(column))
        table.add_column(Text(title), justify=justify, overflow="fold")
    for row in model.rows:
        table.add_row(*(_show_at(row, position, width) for position in positions))
    return table


def _wrap_title(column: Column) -> list[str]:
    parts = [part for part in (column.group, column.title, column.warning) if part]
    return [line for part in parts for line in wrap(part, _HEAD_WIDTH)]


def _show_at(row: Sequence[Cell], position: int, width: int) -> Text:
    return _show(row[position], is_narrow=width < _WIDE or position == 0)


def _show(cell: Cell, *, is_narrow: bool) -> Text:
    text = Text(cell.text, style="bold" if cell.is_emphasised else "")
    has_detail = cell.detail and not is_narrow
    detail = Text(f"\n{cell.detail}" if has_detail else "", style="dim")
    return Text.assemble(text, cell.mark, detail)
