"""How the difference of two arms is spread over documents: on all of them, or on a few?"""

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.pairs import PERCENTS, Comparison, DocumentSpread, Pair
from lorastudy.report.numerals import write_signed
from lorastudy.report.tables.table import (
    SCORE_COLUMNS,
    Cell,
    Column,
    Note,
    Table,
    documents_cell,
    score_cells,
)

_SHOWN = (5, 25, 50, 75, 95)  # percent
HOW = (
    "One difference for each document, in nats per target of that document, averaged over seeds. "
    "Every document counts once, however long it is, so the median need not equal the difference "
    "of the two arms, in which targets count. 5 %: one document in twenty has a lower value."
)


def build_document_table(findings: Findings) -> Table:
    """Every arm minus the reference arm: on how many documents better, and by how much."""
    found = [
        (comparison, pair, pair.documents)
        for comparison in findings.comparisons
        for arm in findings.arms
        if findings.reference is not None
        and (pair := comparison.find_pair(arm.arm, findings.reference)) is not None
        and pair.documents is not None
    ]
    columns = (
        *SCORE_COLUMNS,
        Column("arms", ("first", "second"), "left"),
        Column("documents", ("n_documents",)),
        Column("first arm better on", ("share_lower",)),
        *(Column(f"{percent} %", (f"quantile_{percent}",)) for percent in _SHOWN),
    )
    rows = tuple(_cells(*each) for each in found)
    return Table("Differences by document", columns, rows, (Note("", HOW),))


def _cells(comparison: Comparison, pair: Pair, spread: DocumentSpread) -> tuple[Cell, ...]:
    quantiles = [spread.quantiles[PERCENTS.index(percent)] for percent in _SHOWN]
    return (
        *score_cells(comparison.key),
        Cell(f"{pair.first} - {pair.second}", (pair.first, pair.second)),
        documents_cell(comparison.n_documents),
        Cell(f"{100 * spread.share_lower:.0f} %", (spread.share_lower,)),
        *(Cell(write_signed(value, 3), (value,)) for value in quantiles),
    )
