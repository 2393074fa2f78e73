"""How the answers to the published study's claims are written."""

from collections.abc import Sequence

from lorastudy.analysis.answers import Answer
from lorastudy.report.numerals import ABSENT
from lorastudy.report.tables.comparisons import write_interval, write_signed
from lorastudy.report.tables.table import Cell, Column, Note, Table


def build_claim_table(answers: Sequence[Answer]) -> Table:
    """One row for each answer, and below how each claim is asked."""
    columns = (
        Column("the paper's claim", ("claim", "asked"), "wrap"),
        Column("asked of", ("benchmark", "protocol"), "wrap"),
        Column("answer", ("answer",), "left"),
        Column("deciding pair", ("pair",), "left"),
        Column("difference", ("difference", "unit")),
        Column("95 % interval", ("low", "high")),
        Column("seeds", ("n_seeds",)),
        Column("documents", ("n_documents",)),
        Column("remark", ("remark",), "wrap"),
    )
    asked = dict.fromkeys((answer.claim.text, answer.claim.asked) for answer in answers)
    notes = tuple(Note("", f"“{text.rstrip('.')}”: {how}.") for text, how in asked)
    return Table("The paper's claims", columns, tuple(map(_cells, answers)), notes)


def _cells(answer: Answer) -> tuple[Cell, ...]:
    value, interval = answer.value, answer.interval
    decimals = 4 if answer.unit.startswith("nats") else 1
    ends = (None, None) if interval is None else (interval.low, interval.high)
    shown = ABSENT if value is None else write_signed(value, decimals)
    where = f"{answer.benchmark}, {answer.protocol}" if answer.benchmark else "the whole study"
    n_documents = answer.n_documents or None
    return (
        Cell(answer.claim.text, (answer.claim.text, answer.claim.asked)),
        Cell(where, (answer.benchmark, answer.protocol)),
        Cell(answer.verdict, (answer.verdict,), is_emphasised=answer.verdict != "undecided"),
        Cell(answer.pair or ABSENT, (answer.pair,)),
        Cell(shown, (value, answer.unit if value is not None else None), detail=answer.unit),
        Cell(write_interval(interval, decimals), ends),
        Cell(str(answer.n_seeds), (answer.n_seeds,)),
        Cell(f"{n_documents:,}" if n_documents else ABSENT, (n_documents,)),
        Cell(answer.remark, (answer.remark,)),
    )
