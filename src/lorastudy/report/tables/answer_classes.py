"""What scores of answers are made of, as a table."""

from collections.abc import Sequence

from lorastudy.analysis.score_parts import ArmParts, SplitScore
from lorastudy.protocols import ANSWER_CLASSES, AnswerClass
from lorastudy.report.tables.score_parts import minus_full_cell, nats_cell
from lorastudy.report.tables.table import SCORE_COLUMNS, Cell, Column, Note, Table, score_cells

HOW = (
    "Means over seeds, of scored targets only. The last columns are the arm's loss minus that of "
    "full fine-tuning, and the parts of this difference that come from answers and from the tokens "
    "that end them, in nats per target of any kind."
)


def build_answer_class_table(scores: Sequence[SplitScore]) -> Table:
    """One row for each arm under each score of answers; classes without targets are left out."""
    names = [
        name
        for name in ANSWER_CLASSES
        if any(arm.parts[name].nats is not None for score in scores for arm in score.arms)
    ]
    columns = (
        *SCORE_COLUMNS,
        Column("arm", ("arm", "n_seeds"), "left"),
        Column("loss", ("cross_entropy",)),
        *(
            Column(
                name.replace("-", " "),
                (f"{name.replace('-', '_')}_nats",),
                group="nats per target of",
            )
            for name in names
        ),
        Column("all", ("minus_full",), group="minus full"),
        Column("from answers", ("minus_full_answer",), group="minus full"),
        Column("from ends", ("minus_full_end_of_turn",), group="minus full"),
    )
    rows = tuple(_cells(score, arm, names) for score in scores for arm in score.arms)
    return Table("What scores of answers are made of", columns, rows, (Note("", HOW),))


def _cells(score: SplitScore, arm: ArmParts, names: Sequence[AnswerClass]) -> tuple[Cell, ...]:
    return (
        *score_cells(score.key),
        Cell(arm.arm, (arm.arm, arm.n_seeds), detail=f"({arm.n_seeds})"),
        nats_cell(arm.score),
        *(nats_cell(arm.parts[name].nats) for name in names),
        minus_full_cell(arm, score.full, lambda a: a.score),
        minus_full_cell(arm, score.full, lambda a: a.add("answer")),
        minus_full_cell(arm, score.full, lambda a: a.add("end-of-turn")),
    )
