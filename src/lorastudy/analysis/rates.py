"""What each learning rate of an arm gave: how much depends on the choice.

The rate of an arm is chosen by validation loss alone (decision 0006). Scores of the other
rates are shown here and nowhere else, and play no part in the choice.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from lorastudy.analysis.statistics import Estimate, estimate_mean
from lorastudy.analysis.summary import (
    ScoreKey,
    best_validation_loss,
    list_score_keys,
    score_key,
    summarise_arms,
)
from lorastudy.report.numerals import ABSENT, perplexity_decimals, write_estimate, write_rate
from lorastudy.report.tables.table import Cell, Column, Note, Table
from lorastudy.store.records import RunResult, StudyResults

# The one rate that the published study gives each method (its section on training).
PAPER_RATES = {"full": 1e-4, "lora": 1e-3}

NOT_USED = (
    "not used for choosing: the rate was chosen by validation loss, before any score was read."
)
AT_THE_END = (
    "the best rate tried is the lowest or highest of the list, so a better one may lie outside."
)
PAPER = "the published study's single rate for the method; it is one of several here."


@dataclass(frozen=True, slots=True)
class RateSummary:
    """One arm at one learning rate, over its finished seeds."""

    arm: str
    learning_rate: float
    is_chosen: bool
    is_paper: bool  # of several rates, the one that the published study used
    is_at_end: bool  # chosen, and the lowest or highest of several
    n_expected: int
    validation_loss: Estimate | None  # best of each run, nats a target
    perplexities: tuple[Estimate | None, ...]  # one for each score key


def summarise_rates(results: StudyResults) -> tuple[RateSummary, ...]:
    """Every rate of every trained arm, ascending, arms in the study's order."""
    return tuple(_summarise(results))


def _summarise(results: StudyResults) -> Iterator[RateSummary]:
    keys = list_score_keys(results)
    for arm in summarise_arms(results):
        runs = [run for run in results.runs if run.arm == arm.arm]
        rates = sorted({r.learning_rate for r in runs if r.learning_rate is not None})
        for rate in rates:
            of_rate = [run for run in runs if run.learning_rate == rate]
            is_chosen, is_one_of_several = rate == arm.learning_rate, len(rates) > 1
            done = [run for run in of_rate if run.status == "done"]
            losses = [loss for run in done if (loss := best_validation_loss(run)) is not None]
            yield RateSummary(
                arm=arm.arm,
                learning_rate=rate,
                is_chosen=is_chosen,
                is_paper=is_one_of_several and rate == PAPER_RATES.get(of_rate[0].method),
                is_at_end=is_chosen and is_one_of_several and rate in (rates[0], rates[-1]),
                n_expected=len(results.seeds),
                validation_loss=estimate_mean(losses),
                perplexities=tuple(_estimate_score(done, key) for key in keys),
            )


def _estimate_score(runs: list[RunResult], key: ScoreKey) -> Estimate | None:
    return estimate_mean(
        [e.perplexity for run in runs for e in run.evaluations if score_key(e) == key]
    )


def build_rate_table(results: StudyResults) -> Table:
    """The sensitivity of every arm to its learning rate."""
    rates, keys = summarise_rates(results), list_score_keys(results)
    columns = (
        Column("arm", ("arm",), "left"),
        Column("learning rate", ("learning_rate",)),
        Column("chosen", ("is_chosen", "is_paper"), "left"),
        Column("best validation loss", ("validation_loss", "sd", "n")),
        *(
            Column(
                key.protocol_name,
                tuple(
                    f"{key.benchmark} {key.protocol_name} {part}"
                    for part in ("perplexity", "sd", "n")
                ),
                group=key.benchmark,
                warning="padding scored" if key.scores_padding else "",
            )
            for key in keys
        ),
    )
    used = {mark for rate in rates for mark in _marks(rate)}
    notes = [Note(m, t) for m, t in (("¶", PAPER), ("§", AT_THE_END), ("*", NOT_USED)) if m in used]
    rows = tuple(_cells(rate) for rate in rates)
    return Table("Learning rates: validation loss and test perplexity", columns, rows, tuple(notes))


def write_rates_json(results: StudyResults) -> str:
    """The sensitivity at full precision."""
    keys = list_score_keys(results)
    content = [
        {
            "arm": rate.arm,
            "learning_rate": rate.learning_rate,
            "is_chosen": rate.is_chosen,
            "is_paper": rate.is_paper,
            "n_expected": rate.n_expected,
            "validation_loss": _describe(rate.validation_loss),
            "perplexities": [
                {"benchmark": key.benchmark, "protocol": key.protocol_name, **(_describe(e) or {})}
                for key, e in zip(keys, rate.perplexities, strict=True)
            ],
        }
        for rate in summarise_rates(results)
    ]
    return json.dumps({"rates": content}, indent=1, allow_nan=False) + "\n"


def _describe(estimate: Estimate | None) -> dict[str, float | int | None] | None:
    if estimate is None or not math.isfinite(estimate.mean):
        return None  # JSON has no infinity
    return {"mean": estimate.mean, "sd": estimate.sd, "n": estimate.n}


def _marks(rate: RateSummary) -> list[str]:
    marks = ["¶"] if rate.is_paper else []
    marks += ["§"] if rate.is_at_end else []
    return marks if rate.is_chosen else [*marks, "*"]


def _cells(rate: RateSummary) -> tuple[Cell, ...]:
    loss, n = rate.validation_loss, 0
    text, detail = (ABSENT, "") if loss is None else write_estimate(loss, 4)
    n = loss.n if loss else 0
    missing = "" if n == rate.n_expected else f" of {rate.n_expected}"
    return (
        Cell(rate.arm, (rate.arm,)),
        Cell(
            write_rate(rate.learning_rate),
            (rate.learning_rate,),
            mark="".join(m for m in _marks(rate) if m != "*"),
        ),
        Cell("chosen" if rate.is_chosen else "", (str(rate.is_chosen), str(rate.is_paper))),
        Cell(text, (loss.mean if loss else None, loss.sd if loss else None, n), detail + missing),
        *(_score_cell(rate, estimate) for estimate in rate.perplexities),
    )


def _score_cell(rate: RateSummary, estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell(ABSENT, (None, None, 0))
    text, detail = write_estimate(estimate, perplexity_decimals(estimate.mean))
    mark = "" if rate.is_chosen else "*"
    return Cell(text, (estimate.mean, estimate.sd, estimate.n), detail, mark=mark)
