"""What tuning did to each benchmark, as a table: every trained arm minus the baseline."""

from collections.abc import Sequence

from lorastudy.analysis.forgetting import Change
from lorastudy.report.tables.comparisons import (
    COUNT_COLUMNS,
    DIFFERENCE_COLUMNS,
    count_cells,
    difference_cells,
)
from lorastudy.report.tables.table import Cell, Column, Note, Table, text_cell

HOW = (
    "Nats per target, tuned arm minus baseline, paired by document; above zero the tuned arm is "
    "worse than the base model. Intervals and p values as in the table of all pairs."
)
_WORDS = {
    "lower": "better than the base model",
    "higher": "worse than the base model",
    "equivalent": "as good as the base model, within the margin",
    "not separated": "not separated",
    "one seed": "one seed: no claim about training",
    "no verdict": "no verdict",
}


def build_change_table(changes: Sequence[Change]) -> Table:
    """One row for each change."""
    columns = (
        Column("benchmark", ("benchmark",), "left"),
        Column("role", ("role",), "left"),
        Column("protocol", ("protocol",), "left"),
        *DIFFERENCE_COLUMNS,
        Column("tuned arm is", ("verdict",), "left"),
        *COUNT_COLUMNS,
    )
    title = "Tuned minus baseline: what was gained, and what was forgotten"
    return Table(title, columns, tuple(map(_cells, changes)), (Note("", HOW),))


def _cells(change: Change) -> tuple[Cell, ...]:
    pair, key = change.pair, change.key
    return (
        text_cell(key.benchmark),
        text_cell(change.role),
        text_cell(key.protocol_name),
        *difference_cells(pair),
        Cell(_WORDS[pair.verdict], (pair.verdict,), is_emphasised=pair.is_separated),
        *count_cells(pair),
    )
