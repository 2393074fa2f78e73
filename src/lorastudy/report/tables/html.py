"""A table as HTML, safe to place in a page; styled by the page."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from lorastudy.report.tables.table import Cell, Column, Table, join_known


def render_html(table: Table) -> Markup:
    """A `figure` with a scrolling table, safe to place in a page; styled by the page.

    Neighbouring rows with the same first cell share it.
    """
    heads = Markup("").join(_html_heads(table))
    starts = [
        0 if row and position and row[0] == table.rows[position - 1][0] else 1
        for position, row in enumerate(table.rows)
    ]
    spans = [_span_from(starts, position) for position in range(len(starts))]
    rows = Markup("").join(
        _html_row(table.columns, row, span) for row, span in zip(table.rows, spans, strict=True)
    )
    notes = Markup("").join(
        Markup("<p>{}</p>").format(join_known(" ", note.mark, note.text)) for note in table.notes
    )
    sortable = "" if 0 in starts or len(starts) < 3 else " sortable"
    return Markup(
        '<figure class="table"><figcaption>{}</figcaption>'
        '<div class="scroll" tabindex="0" role="region" aria-label="{}"><table class="grid{}">'
        '<thead>{}</thead><tbody>{}</tbody></table></div><div class="notes">{}</div></figure>'
    ).format(table.title, table.title, sortable, heads, rows, notes)


def _span_from(starts: Sequence[int], position: int) -> int:
    """Rows that the first cell of the row at `position` stands for; 0: one above stands for it."""
    if not starts[position]:
        return 0
    below = enumerate(starts[position + 1 :], 1)
    return next((n for n, start in below if start), len(starts) - position)


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
        _html_cell(column, cell, span if position == 0 else 1)
        for position, (column, cell) in enumerate(zip(columns, row, strict=True))
        if position or span
    ]
    return Markup('<tr class="{}">{}</tr>').format("" if span else "more", Markup("").join(cells))


def _html_cell(column: Column, cell: Cell, span: int) -> Markup:
    names = [column.align, "warned" if column.warning else "", "bad" if cell.is_bad else ""]
    value = cell.values[0]
    return Markup("<td{}{}{}{}>{}{}{}</td>").format(
        Markup(' class="{}"').format(join_known(" ", *names)),
        Markup(' rowspan="{}"').format(span) if span > 1 else "",
        Markup(' data-value="{}"').format(value) if isinstance(value, (int, float)) else "",
        Markup(' title="{}"').format(cell.hint) if cell.hint else "",
        Markup("<strong>{}</strong>").format(cell.text) if cell.is_emphasised else cell.text,
        Markup("<sup>{}</sup>").format(cell.mark) if cell.mark else "",
        _html_span("detail", cell.detail),
    )


def _html_span(name: str, text: str) -> Markup:
    return Markup(' <span class="{}">{}</span>').format(name, text) if text else escape("")
