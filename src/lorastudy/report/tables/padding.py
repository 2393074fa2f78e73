"""What padded scores are made of, as a table."""

import math
from collections.abc import Sequence

from lorastudy.analysis.padding import PaddedParts, PaddedScore
from lorastudy.report.numerals import ABSENT, perplexity_decimals, write_number
from lorastudy.report.tables.score_parts import minus_full_cell, nats_cell
from lorastudy.report.tables.table import SCORE_COLUMNS, Cell, Column, Note, Table, score_cells

HOW = (
    "Means over seeds. Text: all tokens of the documents. The last columns are the arm's padded "
    "loss minus that of full fine-tuning, and the parts of this difference that come from text and "
    "from padding, in nats per target of any kind. Only the part from text is about language."
)


def build_padding_table(padded: Sequence[PaddedScore]) -> Table:
    """One row for each arm under each padded score; no rows if none is padded."""
    columns = (
        *SCORE_COLUMNS,
        Column("arm", ("arm", "n_seeds"), "left"),
        Column("padded loss", ("padded_cross_entropy",)),
        Column("text", ("text_nats", "text_perplexity"), group="nats per target of"),
        Column("first padding", ("first_padding_nats",), group="nats per target of"),
        Column("other padding", ("other_padding_nats",), group="nats per target of"),
        Column("all", ("minus_full",), group="minus full"),
        Column("from text", ("minus_full_text",), group="minus full"),
        Column("from padding", ("minus_full_padding",), group="minus full"),
    )
    rows = tuple(_cells(score, parts) for score in padded for parts in score.parts)
    return Table("What padded scores are made of", columns, rows, (Note("", HOW),))


def _cells(score: PaddedScore, parts: PaddedParts) -> tuple[Cell, ...]:
    text = parts.text.nats
    perplexity = math.exp(text) if text is not None and text < 700 else math.inf
    return (
        *score_cells(score.key),
        Cell(parts.arm, (parts.arm, parts.n_seeds), detail=f"({parts.n_seeds})"),
        nats_cell(parts.score),
        Cell(
            ABSENT if text is None else write_number(text, 4),
            (text, perplexity),
            detail=f"perplexity {write_number(perplexity, perplexity_decimals(perplexity))}",
        ),
        nats_cell(parts.first_padding.nats),
        nats_cell(parts.other_padding.nats),
        minus_full_cell(parts, score.full, lambda p: p.score),
        minus_full_cell(parts, score.full, lambda p: p.text.share_of_score),
        minus_full_cell(parts, score.full, lambda p: p.from_padding),
    )
