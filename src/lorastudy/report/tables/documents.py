"""How a difference of two arms spreads over documents: is it everywhere, or from a few?"""

from collections.abc import Sequence

from lorastudy.analysis.pairs import PERCENTS, Comparison, DocumentSpread
from lorastudy.analysis.summary import reference_arm, summarise_arms
from lorastudy.report.tables.comparisons import write_signed
from lorastudy.report.tables.table import Cell, Column, Note, Table
from lorastudy.store.records import StudyResults

_SHOWN = (5, 25, 50, 75, 95)  # percent
HOW = (
    "Each document's difference in nats a target of its own, averaged over seeds, every document "
    "counted once, however long: its median need not be the difference of the arms, which weighs "
    "by targets. 5 %: one document in twenty lies below."
)


def build_document_table(results: StudyResults, comparisons: Sequence[Comparison]) -> Table:
    """Every arm minus the reference arm: on how many documents better, and by how much."""
    arms = summarise_arms(results)
    reference = reference_arm(arms)
    found = [
        (comparison, arm.arm, pair.documents)
        for comparison in comparisons
        for arm in arms
        if reference is not None
        and (pair := comparison.find_pair(arm.arm, reference)) is not None
        and pair.documents is not None
    ]
    columns = (
        Column("benchmark", ("benchmark",), "left"),
        Column("protocol", ("protocol",), "left"),
        Column("arms", ("first", "second"), "left"),
        Column("documents", ("n_documents",)),
        Column("first arm better on", ("share_lower",)),
        *(Column(f"{percent} %", (f"quantile_{percent}",)) for percent in _SHOWN),
    )
    rows = tuple(_cells(c, arm, str(reference), spread) for c, arm, spread in found)
    return Table("Differences by document", columns, rows, (Note("", HOW),))


def _cells(
    comparison: Comparison, arm: str, reference: str, spread: DocumentSpread
) -> tuple[Cell, ...]:
    key, n = comparison.key, comparison.n_documents
    quantiles = [spread.quantiles[PERCENTS.index(percent)] for percent in _SHOWN]
    return (
        Cell(key.benchmark, (key.benchmark,)),
        Cell(key.protocol_name, (key.protocol_name,)),
        Cell(f"{arm} - {reference}", (arm, reference)),
        Cell(f"{n:,}", (n,)),
        Cell(f"{100 * spread.share_lower:.0f} %", (spread.share_lower,)),
        *(Cell(write_signed(value, 3), (value,)) for value in quantiles),
    )
