"""How the answers to the published study's claims are written."""

from collections.abc import Sequence

from lorastudy.analysis.answers import Answer
from lorastudy.analysis.summary import ScoreKey
from lorastudy.report.numerals import ABSENT, ends_of, write_with_interval
from lorastudy.report.tables.table import Cell, Column, Note, Table, documents_cell, text_cell


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
    shown, ends = (
        (ABSENT, ABSENT) if value is None else write_with_interval(value, interval, decimals)
    )
    benchmark, protocol = _name(answer.key)
    where = f"{benchmark}, {protocol}" if answer.key else "the whole study"
    return (
        Cell(answer.claim.text, (answer.claim.text, answer.claim.asked)),
        Cell(where, (benchmark, protocol)),
        Cell(answer.verdict, (answer.verdict,), is_emphasised=answer.verdict != "undecided"),
        Cell(answer.pair or ABSENT, (answer.pair,)),
        Cell(shown, (value, answer.unit if value is not None else None), detail=answer.unit),
        Cell(ends, ends_of(interval)),
        Cell(str(answer.n_seeds), (answer.n_seeds,)),
        documents_cell(answer.n_documents or None),
        text_cell(answer.remark),
    )


def _name(key: ScoreKey | None) -> tuple[str, str]:
    """Benchmark and protocol; both are empty for the whole study."""
    if key is None:
        return "", ""
    return key.benchmark, key.protocol_name + (" (padding scored)" if key.scores_padding else "")
