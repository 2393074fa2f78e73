r"""The one model of a table, which every format is written from.

A cell keeps what people read (text, detail) apart from what programs read (values): CSV
and JSON hold full-precision values in columns of their own, the others the rounded text.

    group      | wikitext-2                    |      columns with equal group share a head
    title      | rows-text v1  paper-padded v1 |
    cell       | **23.41** [23.1, 23.7] †      |      emphasis, text, detail, mark
    notes      † lead not separated: ...
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from lorastudy.analysis.summary import ScoreKey
from lorastudy.report.numerals import ABSENT

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
    hint: str = ""  # shown under the pointer only; programs have it as values
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


SCORE_COLUMNS = (
    Column("benchmark", ("benchmark",), "left"),
    Column("protocol", ("protocol",), "left"),
)


def score_column(key: ScoreKey, parts: Sequence[str]) -> Column:
    """The column of one score, under its benchmark.

    `parts` are what each cell has as values beside the quantity itself.
    """
    prefix = f"{key.benchmark} {key.protocol_name}"
    return Column(
        title=f"{key.protocol_name}, accuracy" if key.is_task else key.protocol_name,
        names=tuple(f"{prefix} {part}" for part in (key.quantity, *parts)),
        group=key.benchmark,
        warning="padding scored" if key.scores_padding else "",
    )


def score_cells(key: ScoreKey) -> tuple[Cell, Cell]:
    """The cells of SCORE_COLUMNS."""
    return text_cell(key.benchmark), text_cell(key.protocol_name)


def text_cell(text: str) -> Cell:
    """Words that people and programs read alike."""
    return Cell(text, (text,))


def documents_cell(n_documents: int | None) -> Cell:
    """A number of documents; None: the quantity has none, or they are not known."""
    return Cell(ABSENT if n_documents is None else f"{n_documents:,}", (n_documents,))


def join_known(separator: str, *parts: str) -> str:
    """The parts that are not empty, joined."""
    return separator.join(part for part in parts if part)
