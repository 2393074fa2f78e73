"""Which arms are worth their cost, as a table."""

from collections.abc import Sequence

from lorastudy.analysis.fronts import Front, Standing
from lorastudy.report.numerals import ABSENT
from lorastudy.report.tables.table import (
    SCORE_COLUMNS,
    Cell,
    Column,
    Note,
    Table,
    score_cells,
    text_cell,
)

HOW = (
    "Front: no arm of equal or lower cost has a lower mean loss. Excluded: an arm of equal or "
    "lower cost has a lower loss, and the two are separated. Not excluded: not on the front, and "
    "not separated from any such arm. Stored size is the size of the weight files in best/, or 4 "
    "bytes per trained parameter where that folder no longer exists. The baseline trains nothing "
    "and is left out."
)


def build_front_table(fronts: Sequence[Front]) -> Table:
    """One row for each front, arms by their standing, cheapest first."""
    columns = (
        *SCORE_COLUMNS,
        Column("cost", ("cost",), "left"),
        Column("front, cheapest first", ("front",), "wrap"),
        Column("not excluded", ("not_excluded",), "wrap"),
        Column("excluded", ("excluded",), "wrap"),
    )
    title = "Quality against cost: arms that no cheaper arm beats"
    return Table(title, columns, tuple(map(_cells, fronts)), (Note("", HOW),))


def _cells(front: Front) -> tuple[Cell, ...]:
    standings: tuple[Standing, ...] = ("front", "not excluded", "excluded")
    names = [", ".join(p.arm for p in front.points if p.standing == s) for s in standings]
    return (
        *score_cells(front.key),
        text_cell(front.cost),
        *(Cell(text or ABSENT, (text,)) for text in names),
    )
