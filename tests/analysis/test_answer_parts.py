"""What scores of answers are made of: parts that add up, and ends apart from answers."""

from collections.abc import Sequence

import pytest

from lorastudy.analysis.findings import make_findings
from lorastudy.report.build import build_tables
from lorastudy.store.records import ClassSum, RunResult, StudyResults
from support.made_results import make_evaluation, make_results, make_run

COUNTS = {"prompt": 0, "header": 0, "answer": 30, "end-of-turn": 10}


def make_answer_run(arm: str, seed: int, nats: Sequence[float], method: str = "lora") -> RunResult:
    """A run whose classes cost `nats` per target, in the order of COUNTS."""
    classes = tuple(
        ClassSum(target_class=name, n_targets=n, sum_nats=n * each)
        for (name, n), each in zip(COUNTS.items(), nats, strict=True)
    )
    score = make_evaluation("sums", "answers", 2.0).model_copy(update={"classes": classes})
    return make_run(arm, seed, method=method, evaluations=(score,))


def make_study() -> StudyResults:
    full = [make_answer_run("full", seed, (0, 0, 2, 1), "full") for seed in (0, 1)]
    lora = [make_answer_run("lora-1", seed, (0, 0, 2, 1.5 + seed)) for seed in (0, 1)]
    return make_results([*full, *lora], arms=("full", "lora-1"))


def test_a_difference_in_ends_is_not_put_down_to_answers() -> None:
    table = build_tables(make_findings(make_study()))["answer_classes"]
    names = [name for column in table.columns for name in column.names]
    of_full, of_lora = (
        dict(zip(names, [v for cell in row for v in cell.values], strict=True))
        for row in table.rows
    )
    assert of_full["cross_entropy"] == pytest.approx((30 * 2 + 10 * 1) / 40)
    assert (of_lora["answer_nats"], of_lora["end_of_turn_nats"]) == (2, pytest.approx(2))
    assert "prompt_nats" not in names  # nothing of it is scored
    assert of_lora["minus_full_answer"] == 0
    assert of_lora["minus_full"] == of_lora["minus_full_end_of_turn"] == pytest.approx(10 / 40)


def test_a_study_of_texts_has_no_table_of_answers() -> None:
    run = make_run("full", 0, evaluations=(make_evaluation("sums", "rows-text", 2.0),))
    findings = make_findings(make_results([run], arms=("full",)))
    assert findings.answer_scores == () and "answer_classes" not in build_tables(findings)
