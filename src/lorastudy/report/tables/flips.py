"""Right and wrong answers of arms to the same items: what each repairs and breaks."""

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.flips import Flips
from lorastudy.analysis.pairs import Comparison, Pair
from lorastudy.report.numerals import ABSENT, write_p
from lorastudy.report.tables.table import (
    SCORE_COLUMNS,
    Cell,
    Column,
    Note,
    Table,
    score_cells,
)

HOW = (
    "Answers of the first arm beside those of the second, to the same items with the same seeds; "
    "with several seeds, each item counts once per seed. Repaired: wrong by the second arm, right "
    "by the first. Broken: the other way round. These counts describe; whether two arms are "
    "separated is said by the paired comparison over items and seeds."
)
EXACT = (
    "With one seed, McNemar's exact p value is for these two checkpoints on items like these, and "
    "says nothing about training."
)
_COUNTS = ("repaired", "broken", "both_right", "both_wrong")


def build_flip_table(findings: Findings) -> Table:
    """Every arm beside the baseline, and beside the reference arm, under each task."""
    found = [
        (comparison, pair, pair.flips)
        for comparison in findings.comparisons
        for pair in _list_pairs(comparison, findings)
        if pair.flips is not None
    ]
    has_exact = any(flips.p_exact is not None for _, _, flips in found)
    columns = (
        *SCORE_COLUMNS,
        Column("arms", ("first", "second"), "left"),
        *(Column(name.replace("_", " "), (name,)) for name in _COUNTS),
        Column("seeds", ("n_seeds",)),
        *([Column("p (McNemar, exact)", ("p_exact",))] if has_exact else []),
    )
    rows = tuple(
        (*_cells(comparison, pair, flips), *([_exact_cell(flips)] if has_exact else []))
        for comparison, pair, flips in found
    )
    notes = (Note("", HOW), *([Note("", EXACT)] if has_exact else []))
    return Table("Answers repaired and broken", columns, rows, notes)


def _list_pairs(comparison: Comparison, findings: Findings) -> list[Pair]:
    baselines = [arm.arm for arm in findings.arms if arm.is_baseline]
    beside = dict.fromkeys([*baselines, *([findings.reference] if findings.reference else [])])
    pairs = [
        comparison.find_pair(arm.arm, other)
        for other in beside
        for arm in findings.arms
        if arm.arm != other and not arm.is_baseline
    ]
    return [pair for pair in pairs if pair is not None]


def _cells(comparison: Comparison, pair: Pair, flips: Flips) -> tuple[Cell, ...]:
    counts = [getattr(flips, name) for name in _COUNTS]
    return (
        *score_cells(comparison.key),
        Cell(f"{pair.first} - {pair.second}", (pair.first, pair.second)),
        *(Cell(f"{count:,}", (count,)) for count in counts),
        Cell(str(flips.n_seeds), (flips.n_seeds,)),
    )


def _exact_cell(flips: Flips) -> Cell:
    p = flips.p_exact
    return Cell(ABSENT if p is None else write_p(p), (p,))
