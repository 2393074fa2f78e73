"""What padded scores are made of, as a table."""

import math
from collections.abc import Sequence

from lorastudy.analysis.score_parts import ArmParts, SplitScore
from lorastudy.report.numerals import ABSENT, perplexity_decimals, write_number
from lorastudy.report.tables.score_parts import minus_full_cell, nats_cell
from lorastudy.report.tables.table import SCORE_COLUMNS, Cell, Column, Note, Table, score_cells

HOW = (
    "Means over seeds. Text: all tokens of the documents. The last columns are the arm's padded "
    "loss minus that of full fine-tuning, and the parts of this difference that come from text and "
    "from padding, in nats per target of any kind. Only the part from text is about language."
)


def build_padding_table(padded: Sequence[SplitScore]) -> Table:
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
    rows = tuple(_cells(score, arm) for score in padded for arm in score.arms)
    return Table("What padded scores are made of", columns, rows, (Note("", HOW),))


def _cells(score: SplitScore, arm: ArmParts) -> tuple[Cell, ...]:
    text = arm.parts["text"].nats
    perplexity = math.exp(text) if text is not None and text < 700 else math.inf
    return (
        *score_cells(score.key),
        Cell(arm.arm, (arm.arm, arm.n_seeds), detail=f"({arm.n_seeds})"),
        nats_cell(_add(arm)),
        Cell(
            ABSENT if text is None else write_number(text, 4),
            (text, perplexity),
            detail=f"perplexity {write_number(perplexity, perplexity_decimals(perplexity))}",
        ),
        nats_cell(arm.parts["first-padding"].nats),
        nats_cell(arm.parts["other-padding"].nats),
        minus_full_cell(arm, score.full, _add),
        minus_full_cell(arm, score.full, lambda a: a.add("text")),
        minus_full_cell(arm, score.full, lambda a: a.add("-padding")),
    )


def _add(arm: ArmParts) -> float:
    """The score: what text and what padding add, so that it is rounded as these are."""
    return arm.add("text") + arm.add("-padding")
