r"""A table on paper and for programs: Markdown, LaTeX, CSV and JSON.

Every format escapes everything: names and failure reasons are data, never markup.
"""

import csv
import io
import json
import math
import re
from collections.abc import Sequence

from lorastudy.report.tables.table import Cell, Table, Value, join_known


def render_markdown(table: Table) -> str:
    """A pipe table under a heading, notes below as a list."""
    titles = [join_known(" · ", c.group, c.title, c.warning) for c in table.columns]
    lines = [
        f"## {_escape_markdown(table.title)}",
        "",
        _markdown_row([_escape_markdown(title) for title in titles]),
        _markdown_row(["--:" if c.align == "right" else ":--" for c in table.columns]),
        *(_markdown_row([_markdown_cell(cell) for cell in row]) for row in table.rows),
    ]
    if table.notes:
        lines += [
            "",
            *(f"- {_escape_markdown(join_known(' ', n.mark, n.text))}" for n in table.notes),
        ]
    return "\n".join(lines) + "\n"


def render_csv(table: Table) -> str:
    """Values at full precision, one line per row; an absent value is an empty field."""
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
    notes = [rf"\par {_escape_latex(join_known(' ', n.mark, n.text))}" for n in table.notes]
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


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    text = _escape_markdown(cell.text)
    if cell.is_emphasised:
        text = f"**{text}**"
    return join_known(" ", text, *map(_escape_markdown, (cell.detail, cell.mark)))


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
    return join_known(" ", text + mark, _escape_latex(cell.detail))


def _latex_heads(table: Table) -> list[str]:
    titles = [_escape_latex(join_known(", ", c.title, c.warning)) for c in table.columns]
    if not any(group for group, _ in table.groups):
        return [_latex_row(titles)]
    heads, rules, first = [], [], 1
    for group, span in table.groups:
        heads.append(rf"\multicolumn{{{span}}}{{c}}{{{_escape_latex(group)}}}")
        if group:
            rules.append(rf"\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    return [_latex_row(heads), "".join(rules), _latex_row(titles)]
