"""Cells of tables that say what a score is made of, arm by arm."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from lorastudy.report.numerals import ABSENT, write_number, write_signed
from lorastudy.report.tables.table import Cell


class OfArm(Protocol):
    """The parts of an arm's score."""

    @property
    def arm(self) -> str:
        """Its name."""


Parts = TypeVar("Parts", bound=OfArm)


def nats_cell(value: float | None) -> Cell:
    """A loss in nats."""
    return Cell(ABSENT if value is None else write_number(value, 4), (value,))


def minus_full_cell(parts: Parts, full: Parts | None, read: Callable[[Parts], float]) -> Cell:
    """What `read` finds, minus the same of full fine-tuning; empty for full fine-tuning itself."""
    if full is None or full.arm == parts.arm:
        return Cell(ABSENT, (None,))
    difference = read(parts) - read(full)
    return Cell(write_signed(difference), (difference,))
