"""The sensitivity of every arm to its learning rate, as a table and as JSON."""

import json
import math
from collections.abc import Sequence

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.rates import RateSummary
from lorastudy.analysis.statistics import Estimate
from lorastudy.report.numerals import ABSENT, perplexity_decimals, write_estimate, write_rate
from lorastudy.report.tables.table import Cell, Column, Note, Table, score_column, text_cell
from lorastudy.report.wording import RIGHT, name_measure

NOT_USED = "not used for choosing: the rate was chosen by {measure}, before any score was read."
AT_THE_END = (
    "the best rate tried is the lowest or highest of the list, so a better one may lie outside."
)
PAPER = "the published study's single rate for the method; it is one of several here."


def build_rate_table(findings: Findings) -> Table:
    """The sensitivity of every arm to its learning rate."""
    columns = (
        Column("arm", ("arm",), "left"),
        Column("learning rate", ("learning_rate",)),
        Column("chosen", ("is_chosen", "is_paper"), "left"),
        Column("best validation loss", ("validation_loss", "sd", "n")),
        *([Column(RIGHT, ("validation_accuracy", "sd", "n"))] if findings.is_by_answers else []),
        *(score_column(c.key, ("sd", "n")) for c in findings.comparisons),
    )
    used = {mark for rate in findings.rates for mark in _marks(rate)}
    not_used = NOT_USED.format(measure=name_measure(findings))
    notes = [Note(m, t) for m, t in (("¶", PAPER), ("§", AT_THE_END), ("*", not_used)) if m in used]
    rows = tuple(_cells(rate, findings) for rate in findings.rates)
    shown = ", ".join(dict.fromkeys(c.key.quantity for c in findings.comparisons)) or "perplexity"
    title = f"Learning rates: validation loss and test {shown}"
    return Table(title, columns, rows, tuple(notes))


def write_rates_json(rates: Sequence[RateSummary]) -> str:
    """The sensitivity at full precision."""
    content = [
        {
            "arm": rate.arm,
            "learning_rate": rate.learning_rate,
            "is_chosen": rate.is_chosen,
            "is_paper": rate.is_paper,
            "n_expected": rate.n_expected,
            "validation_loss": _describe(rate.validation_loss),
            **_describe_accuracy(rate),
            "perplexities": _list_scores(rate, "perplexity"),
            **({"accuracies": found} if (found := _list_scores(rate, "accuracy")) else {}),
        }
        for rate in rates
    ]
    return json.dumps({"rates": content}, indent=1, allow_nan=False) + "\n"


def _describe_accuracy(rate: RateSummary) -> dict[str, object]:
    found = _describe(rate.validation_accuracy)
    return {} if found is None else {"validation_accuracy": found}


def _list_scores(rate: RateSummary, quantity: str) -> list[dict[str, object]]:
    return [
        {"benchmark": key.benchmark, "protocol": key.protocol_name, **(_describe(e) or {})}
        for key, e in rate.scores.items()
        if key.quantity == quantity
    ]


def _describe(estimate: Estimate | None) -> dict[str, float | int | None] | None:
    if estimate is None or not math.isfinite(estimate.mean):
        return None  # JSON has no infinity
    return {"mean": estimate.mean, "sd": estimate.sd, "n": estimate.n}


def _marks(rate: RateSummary) -> list[str]:
    marks = ["¶"] if rate.is_paper else []
    marks += ["§"] if rate.is_at_end else []
    return marks if rate.is_chosen else [*marks, "*"]


def _cells(rate: RateSummary, findings: Findings) -> tuple[Cell, ...]:
    validated = [(rate.validation_loss, 4)]
    validated += [(rate.validation_accuracy, 3)] if findings.is_by_answers else []
    return (
        text_cell(rate.arm),
        Cell(
            write_rate(rate.learning_rate),
            (rate.learning_rate,),
            mark="".join(m for m in _marks(rate) if m != "*"),
        ),
        Cell("chosen" if rate.is_chosen else "", (str(rate.is_chosen), str(rate.is_paper))),
        *(_validation_cell(found, decimals, rate) for found, decimals in validated),
        *(_score_cell(rate, estimate) for estimate in rate.scores.values()),
    )


def _validation_cell(found: Estimate | None, decimals: int, rate: RateSummary) -> Cell:
    text, detail = (ABSENT, "") if found is None else write_estimate(found, decimals)
    n = found.n if found else 0
    missing = "" if n == rate.n_expected else f" of {rate.n_expected}"
    values = (found.mean if found else None, found.sd if found else None, n)
    return Cell(text, values, detail + missing)


def _score_cell(rate: RateSummary, estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell(ABSENT, (None, None, 0))
    text, detail = write_estimate(estimate, perplexity_decimals(estimate.mean))
    mark = "" if rate.is_chosen else "*"
    return Cell(text, (estimate.mean, estimate.sd, estimate.n), detail, mark=mark)
