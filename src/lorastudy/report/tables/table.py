r"""One table model and its ways to paper and programs: Markdown, CSV, LaTeX, JSON and HTML.

A cell keeps what people read (text, detail) apart from what programs read (values): CSV
and JSON hold full-precision values in columns of their own, the others the rounded text.
Every format escapes everything: names and failure reasons are data, never markup.

    group      | wikitext-2                    |      columns with equal group share a head
    title      | rows-text v1  paper-padded v1 |
    cell       | **23.41** ± 0.05 (3) † [..]   |      emphasis, text, detail, mark, more
    notes      † lead not separated: ...
"""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from markupsafe import Markup, escape

Value = str | int | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `names` are its columns in CSV, as many as its cells have values."""

    title: str
    names: tuple[str, ...]
    align: Literal["left", "right", "wrap"] = "right"
    group: str = ""  # head above the title, shared with neighbours of the same group
    warning: str = ""  # what a reader must know about every number of the column


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry: `text` with `detail` in a lighter tone beside it, and `values` for CSV."""

    text: str
    values: tuple[Value, ...]
    detail: str = ""
    is_emphasised: bool = False
    mark: str = ""  # refers to a note of the table
    more: str = ""  # a second detail, left out where there is little room
    is_bad: bool = False  # stands where a number should be


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence below the table, led by the mark it explains."""

    mark: str
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Columns, rows of as many cells, and notes."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row) == len(self.columns)
            assert all(
                len(cell.values) == len(column.names)
                for cell, column in zip(row, self.columns, strict=True)
            )

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Heads from left to right, each with the number of columns it spans."""
        return tuple((g, len(list(cs))) for g, cs in groupby(self.columns, lambda c: c.group))


def render_markdown(table: Table) -> str:
    """A pipe table under a heading, notes below as a list."""
    titles = [_join(" · ", c.group, c.title, c.warning) for c in table.columns]
    lines = [
        f"## {_escape_markdown(table.title)}",
        "",
        _markdown_row([_escape_markdown(title) for title in titles]),
        _markdown_row(["--:" if c.align == "right" else ":--" for c in table.columns]),
        *(_markdown_row([_markdown_cell(cell) for cell in row]) for row in table.rows),
    ]
    if table.notes:
        lines += ["", *(f"- {_escape_markdown(_join(' ', n.mark, n.text))}" for n in table.notes)]
    return "\n".join(lines) + "\n"


def render_csv(table: Table) -> str:
    """Values at full precision, one line a row; an absent value is an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([name for column in table.columns for name in column.names])
    for row in table.rows:
        writer.writerow([_csv_value(value) for cell in row for value in cell.values])
    return stream.getvalue()


def render_json(table: Table) -> str:
    """Rows as objects of the columns that CSV has; what is absent or not finite is null."""
    names = [name for column in table.columns for name in column.names]
    rows = [
        dict(zip(names, (_json_value(v) for cell in row for v in cell.values), strict=True))
        for row in table.rows
    ]
    content = {"title": table.title, "rows": rows, "notes": [n.text for n in table.notes]}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def render_latex(table: Table) -> str:
    r"""A `table*` float for the packages booktabs and graphicx (it is fitted to the line)."""
    spec = "".join({"left": "l", "right": "r", "wrap": "p{35mm}"}[c.align] for c in table.columns)
    rows = [_latex_row([_latex_cell(cell) for cell in row]) for row in table.rows]
    notes = [rf"\par {_escape_latex(_join(' ', n.mark, n.text))}" for n in table.notes]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs} and \\usepackage{graphicx}",
            r"\begin{table*}",
            rf"\caption{{{_escape_latex(table.title)}}}",
            r"\centering",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{spec}}}",
            r"\toprule",
            *_latex_heads(table),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            *([r"\par\smallskip\raggedright\footnotesize", *notes] if notes else []),
            r"\end{table*}",
            "",
        ]
    )


def render_html(table: Table) -> Markup:
    """A `figure` with a scrolling table, safe to place in a page; styled by the page.

    Neighbouring rows with the same first cell share it.
    """
    heads = Markup("").join(_html_heads(table))
    starts = [
        0 if row and place and row[0] == table.rows[place - 1][0] else 1
        for place, row in enumerate(table.rows)
    ]
    spans = [_span_from(starts, place) for place in range(len(starts))]
    rows = Markup("").join(
        _html_row(table.columns, row, span) for row, span in zip(table.rows, spans, strict=True)
    )
    notes = Markup("").join(
        Markup("<p>{}</p>").format(_join(" ", note.mark, note.text)) for note in table.notes
    )
    sortable = "" if 0 in starts or len(starts) < 3 else " sortable"
    return Markup(
        '<figure class="table"><figcaption>{}</figcaption>'
        '<div class="scroll" tabindex="0" role="region" aria-label="{}"><table class="grid{}">'
        '<thead>{}</thead><tbody>{}</tbody></table></div><div class="notes">{}</div></figure>'
    ).format(table.title, table.title, sortable, heads, rows, notes)


def _span_from(starts: Sequence[int], place: int) -> int:
    """Rows that the first cell of the row at `place` stands for; 0: one above stands for it."""
    if not starts[place]:
        return 0
    return next((n for n, start in enumerate(starts[place + 1 :], 1) if start), len(starts) - place)


def _join(separator: str, *parts: str) -> str:
    return separator.join(part for part in parts if part)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    text = _escape_markdown(cell.text)
    if cell.is_emphasised:
        text = f"**{text}**"
    return _join(" ", text, *map(_escape_markdown, (cell.detail, cell.mark, cell.more)))


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|~$&#])", r"\\\1", " ".join(text.split()))


def _csv_value(value: Value) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _json_value(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "–": "--",
    "—": "---",
    "·": r"$\cdot$",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    **{character: f"\\{character}" for character in "{}$&%#_"},
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _latex_row(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _latex_cell(cell: Cell) -> str:
    text = _escape_latex(cell.text)
    if cell.is_emphasised:
        text = rf"\textbf{{{text}}}"
    mark = rf"\textsuperscript{{{_escape_latex(cell.mark)}}}" if cell.mark else ""
    return _join(" ", text + mark, _escape_latex(cell.detail), _escape_latex(cell.more))


def _latex_heads(table: Table) -> list[str]:
    titles = [_escape_latex(_join(", ", c.title, c.warning)) for c in table.columns]
    if not any(group for group, _ in table.groups):
        return [_latex_row(titles)]
    heads, rules, first = [], [], 1
    for group, span in table.groups:
        heads.append(rf"\multicolumn{{{span}}}{{c}}{{{_escape_latex(group)}}}")
        if group:
            rules.append(rf"\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    return [_latex_row(heads), "".join(rules), _latex_row(titles)]


def _html_heads(table: Table) -> list[Markup]:
    rows = []
    if any(group for group, _ in table.groups):
        cells = [
            Markup('<th colspan="{}" scope="colgroup" class="group">{}</th>').format(span, group)
            if group
            else Markup('<td colspan="{}"></td>').format(span)
            for group, span in table.groups
        ]
        rows.append(Markup("<tr>{}</tr>").format(Markup("").join(cells)))
    titles = [
        Markup('<th scope="col" class="{}">{}{}</th>').format(
            c.align, c.title, _html_span("warning", c.warning)
        )
        for c in table.columns
    ]
    return [*rows, Markup("<tr>{}</tr>").format(Markup("").join(titles))]


def _html_row(columns: Sequence[Column], row: Sequence[Cell], span: int) -> Markup:
    cells = [
        _html_cell(column, cell, span if place == 0 else 1)
        for place, (column, cell) in enumerate(zip(columns, row, strict=True))
        if place or span
    ]
    return Markup('<tr class="{}">{}</tr>').format("" if span else "more", Markup("").join(cells))


def _html_cell(column: Column, cell: Cell, span: int) -> Markup:
    names = [column.align, "warned" if column.warning else "", "bad" if cell.is_bad else ""]
    value = cell.values[0]
    return Markup("<td{}{}{}>{}{}{}{}</td>").format(
        Markup(' class="{}"').format(_join(" ", *names)),
        Markup(' rowspan="{}"').format(span) if span > 1 else "",
        Markup(' data-value="{}"').format(value) if isinstance(value, (int, float)) else "",
        Markup("<strong>{}</strong>").format(cell.text) if cell.is_emphasised else cell.text,
        Markup("<sup>{}</sup>").format(cell.mark) if cell.mark else "",
        _html_span("detail", cell.detail),
        _html_span("detail", cell.more),
    )


def _html_span(name: str, text: str) -> Markup:
    return Markup(' <span class="{}">{}</span>').format(name, text) if text else escape("")
