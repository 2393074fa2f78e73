"""Cells of tables that say what a score is made of, arm by arm."""

from collections.abc import Callable

from lorastudy.analysis.score_parts import ArmParts
from lorastudy.report.numerals import ABSENT, write_number, write_signed
from lorastudy.report.tables.table import Cell


def nats_cell(value: float | None) -> Cell:
    """A loss in nats."""
    return Cell(ABSENT if value is None else write_number(value, 4), (value,))


def minus_full_cell(
    parts: ArmParts, full: ArmParts | None, read: Callable[[ArmParts], float]
) -> Cell:
    """What `read` finds, minus the same of full fine-tuning; empty for full fine-tuning itself."""
    if full is None or full.arm == parts.arm:
        return Cell(ABSENT, (None,))
    difference = read(parts) - read(full)
    return Cell(write_signed(difference), (difference,))
