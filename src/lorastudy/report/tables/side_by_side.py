"""Answers of all arms to the same items, as a table for each task."""

from lorastudy.analysis.side_by_side import ArmAnswer, ItemAnswers, Samples, SideBySide
from lorastudy.report.tables.table import Cell, Column, Note, Table, text_cell

_MOST_LETTERS = 160
RIGHT, WRONG = "✓", "✗"
HOW = (
    f"The first items, then those on which arms disagree most. {RIGHT}: right with every seed; "
    f"{WRONG}: wrong with every seed; else the share of seeds that are right. The text is that "
    "of each arm's first run."
)

SAMPLES = (
    "Greedy, by the first run of each arm. Samples show how a model writes, and prove nothing."
)


def build_side_by_side(found: SideBySide) -> Table:
    """One row for each item, one column for each arm."""
    columns = (
        Column("item", ("item",), "left"),
        Column("prompt", ("prompt",), "wrap"),
        Column("right answer", ("answer",), "wrap"),
        *(Column(arm, (arm, f"{arm} right"), "wrap") for arm in found.arms),
    )
    rows = tuple(map(_cells, (*found.first, *found.apart)))
    count = f"Arms disagree on {found.n_apart:,} of {found.n_items:,} items."
    title = f"{found.key.benchmark}, {found.key.protocol_name}: answers side by side"
    return Table(title, columns, rows, (Note("", HOW), Note("", count)))


def build_sample_table(samples: Samples | None) -> Table:
    """One row for each prompt, one column for each arm; no row without samples."""
    texts = samples.texts if samples else ()
    columns = (
        Column("prompt", ("prompt",), "wrap"),
        *(Column(arm, (arm,), "wrap") for arm, _ in texts),
    )
    rows = tuple(
        tuple(Cell(_shorten(text), (text,)) for text in (prompt, *(t[number] for _, t in texts)))
        for number, prompt in enumerate(samples.prompts if samples else ())
    )
    return Table("Samples: what each arm writes", columns, rows, (Note("", SAMPLES),))


def _cells(item: ItemAnswers) -> tuple[Cell, ...]:
    return (
        text_cell(item.place),
        Cell(_shorten(item.prompt), (item.prompt,)),
        Cell(_shorten(item.answer), (item.answer,)),
        *map(_answer_cell, item.by_arm),
    )


def _answer_cell(answer: ArmAnswer) -> Cell:
    share = answer.share_right
    mark = RIGHT if share == 1 else WRONG if share == 0 else f"{100 * share:.0f} %"
    text = _shorten(answer.text) or "(nothing)"
    return Cell(text, (answer.text, share), detail=mark)


def _shorten(text: str) -> str:
    """One line, with its end left out if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_LETTERS else f"{line[: _MOST_LETTERS - 1]}…"
