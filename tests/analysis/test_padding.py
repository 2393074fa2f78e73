"""What padded scores are made of: parts that add up, and differences that are split alike."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from lorastudy.analysis.findings import make_findings
from lorastudy.analysis.score_parts import split_padded_scores
from lorastudy.analysis.summary import ScoreKey, summarise_arms
from lorastudy.report.tables.padding import build_padding_table
from lorastudy.store.records import ClassSum, RunResult, StudyResults
from support.made_results import make_evaluation, make_results, make_run

PADDED = ScoreKey("wikitext-2", "paper-padded", 1)
COUNTS = {"first": 2, "text": 18, "first-padding": 2, "other-padding": 78}


def make_padded_run(arm: str, seed: int, nats: Sequence[float], method: str = "lora") -> RunResult:
    """A run whose class costs `nats` a target, in the order of COUNTS."""
    classes = tuple(
        ClassSum(target_class=name, n_targets=n, sum_nats=n * each)
        for (name, n), each in zip(COUNTS.items(), nats, strict=True)
    )
    score = make_evaluation("wikitext-2", "paper-padded", 2.0)
    evaluation = score.model_copy(update={"classes": classes})
    return make_run(arm, seed, method=method, evaluations=(evaluation,))


def make_study() -> StudyResults:
    full = [make_padded_run("full", seed, (4, 3, 1, 0.01), "full") for seed in (0, 1)]
    lora = [make_padded_run("lora-1", seed, (4, 3, 1, 0.51 + seed)) for seed in (0, 1)]
    return make_results([*full, *lora], arms=("full", "lora-1"))


def split(results: StudyResults) -> Any:
    (score,) = make_findings(results).padded
    assert score.key == PADDED
    return score.arms


def test_parts_of_a_padded_score_add_up_to_it() -> None:
    full, lora = split(make_study())
    assert full.score == pytest.approx((2 * 4 + 18 * 3 + 2 * 1 + 78 * 0.01) / 100)
    assert full.parts["text"].nats == pytest.approx((2 * 4 + 18 * 3) / 20)
    assert full.parts["first-padding"].nats == pytest.approx(1)
    assert lora.parts["other-padding"].nats == pytest.approx(1.01)  # mean of both seeds
    assert lora.n_seeds == 2


def test_a_difference_that_padding_makes_is_not_put_down_to_language() -> None:
    lora_first = make_results(make_study().runs[::-1], arms=("lora-1", "full"))
    table = build_padding_table(make_findings(lora_first).padded)
    values = dict(
        zip(
            [name for column in table.columns for name in column.names],
            [value for cell in table.rows[0] for value in cell.values],
            strict=True,
        )
    )
    assert values["minus_full"] == pytest.approx(0.78)
    assert values["minus_full_padding"] == pytest.approx(0.78)
    assert values["minus_full_text"] == pytest.approx(0, abs=1e-12)
    assert values["text_perplexity"] == pytest.approx(math.exp(3.1))


def test_full_fine_tuning_is_not_compared_with_itself() -> None:
    table = build_padding_table(make_findings(make_study()).padded)
    assert [cell.text for cell in table.rows[0][-3:]] == ["–"] * 3


def test_rows_without_padding_have_no_padding_part() -> None:
    run = make_padded_run("full", 0, (4, 3, 1, 0.01), "full")
    (padded,) = run.evaluations
    text_only = padded.model_copy(update={"classes": padded.classes[:2]})
    study = make_results([run.model_copy(update={"evaluations": (text_only,)})], arms=("full",))
    (parts,) = split(study)
    assert (parts.parts["first-padding"].nats, parts.add("-padding")) == (None, 0)


def test_scores_of_several_benchmarks_are_split_apart() -> None:
    run = make_padded_run("full", 0, (4, 3, 1, 0.01), "full")
    other = make_padded_run("full", 0, (8, 6, 2, 0.02), "full").evaluations[0]
    both = (*run.evaluations, other.model_copy(update={"benchmark": "lambada"}))
    study = make_results([run.model_copy(update={"evaluations": both})], arms=("full",))
    found = {score.key.benchmark: score.arms for score in make_findings(study).padded}
    assert [(len(arms), arms[0].n_seeds) for arms in found.values()] == [(1, 1)] * 2
    (one,), (two,) = found["wikitext-2"], found["lambada"]
    assert two.score == pytest.approx(2 * one.score)


def test_scores_of_text_are_left_out() -> None:
    arms = summarise_arms(make_results())
    assert split_padded_scores(arms, [ScoreKey("wikitext-2", "rows-text", 1)]) == ()
