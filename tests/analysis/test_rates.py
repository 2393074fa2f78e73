"""Learning rates: the whole curve is kept, and rates not chosen are marked."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

from lorastudy.analysis.findings import make_findings
from lorastudy.report.tables.rates import build_rate_table, write_rates_json
from lorastudy.report.tables.table import Table
from lorastudy.store.records import StudyResults
from support.made_results import (
    make_epochs,
    make_evaluations,
    make_failed_run,
    make_results,
    make_run,
)


def make_study(
    rates_and_losses: Sequence[tuple[float, float]], method: str = "lora"
) -> StudyResults:
    runs = [
        make_run(
            "lora-1",
            seed,
            method=method,
            run_id=f"lora-1-s{seed}-{place:08x}",
            learning_rate=rate,
            epochs=make_epochs((loss + 0.1 * seed,)),
            evaluations=make_evaluations(10.0 * loss),
        )
        for place, (rate, loss) in enumerate(rates_and_losses)
        for seed in (0, 1)
    ]
    return make_results(runs, arms=("lora-1",))


def rates_of(*rates_and_losses: Any, **fields: Any) -> Any:
    return make_findings(make_study(rates_and_losses, **fields)).rates


def tabulate(results: StudyResults) -> Table:
    return build_rate_table(make_findings(results))


SEVERAL = ((3e-4, 3.2), (1e-3, 3.1), (3e-3, 3.0), (1e-2, 3.5))


def test_every_rate_is_kept_with_its_validation_loss_and_the_chosen_one_is_marked() -> None:
    rates = rates_of(*SEVERAL)
    assert [rate.learning_rate for rate in rates] == [3e-4, 1e-3, 3e-3, 1e-2]
    assert [rate.validation_loss.mean for rate in rates] == pytest.approx([3.25, 3.15, 3.05, 3.55])
    assert [rate.is_chosen for rate in rates] == [False, False, True, False]


def test_the_papers_rate_is_marked_where_it_is_one_of_several() -> None:
    assert [rate.is_paper for rate in rates_of(*SEVERAL)] == [False, True] + [False] * 2
    assert not rates_of((1e-3, 3.0))[0].is_paper
    assert not any(r.is_paper for r in rates_of(*SEVERAL, method="full"))


def test_test_scores_of_rates_not_chosen_are_marked_as_not_used() -> None:
    table = tabulate(make_study(SEVERAL))
    assert [row[4].mark for row in table.rows] == ["*", "*", "", "*"]
    assert any(note.mark == "*" and "not used for choosing" in note.text for note in table.notes)


def test_a_best_rate_at_the_end_of_the_list_is_pointed_out() -> None:
    ending = tabulate(make_study(((3e-4, 3.2), (1e-3, 3.1))))
    inside = tabulate(make_study(SEVERAL))
    assert [any(n.mark == "§" for n in table.notes) for table in (ending, inside)] == [True, False]


def test_a_seed_that_failed_at_a_rate_is_counted() -> None:
    runs = [*make_study(SEVERAL).runs[:-1]]
    runs.append(make_failed_run("lora-1", 1, "diverged").model_copy(update={"learning_rate": 1e-2}))
    table = tabulate(make_results(runs, arms=("lora-1",)))
    assert table.rows[-1][3].detail == "(1) of 2"


def test_json_holds_the_curve_and_no_number_that_json_lacks() -> None:
    content = json.loads(write_rates_json(rates_of(*SEVERAL, (1e-1, math.inf))))["rates"]
    assert content[0]["validation_loss"]["mean"] == pytest.approx(3.25)
    assert content[-1]["validation_loss"] is None
    assert content[0]["perplexities"][0]["protocol"] == "rows-text v1"
