"""Comparisons of a study: what is paired, and that what is missing is said."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorastudy.analysis.findings import make_findings
from lorastudy.analysis.layout import measure_layout
from lorastudy.analysis.pairs import Comparison, Pair
from lorastudy.analysis.statistics import Interval
from lorastudy.analysis.summary import ScoreKey
from lorastudy.report.tables.comparisons import (
    build_all_pairs,
    build_group_table,
    build_pair_table,
)
from lorastudy.report.tables.comparisons_json import write_comparisons_json
from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.records import RunResult, StudyResults
from support.made_results import (
    make_evaluation,
    make_evaluations,
    make_results,
    make_run,
    write_sums,
)

SPREAD = {"baseline": 0.0, "full": 0.01, "lora-1": -0.02, "lora-2": 0.03}


def run_of(arm: str, seed: int, perplexity: float, **fields: Any) -> RunResult:
    nats = (make_evaluation("wikitext-2", "rows-text", perplexity),)
    return make_run(arm, seed, evaluations=nats, **fields)


def make_study(
    folder: Path, runs: Sequence[RunResult], seeds: tuple[int, ...] = (0, 1, 2)
) -> StudyResults:
    arms = tuple(dict.fromkeys(run.arm for run in runs))
    results = make_results(runs, arms=arms, seeds=seeds, benchmarks=("wikitext-2",))
    write_sums(folder, results, lambda arm: SPREAD.get(arm, 0.02))
    return results


def compare_one(results: StudyResults, folder: Path) -> Comparison:
    (comparison,) = make_findings(results, folder).comparisons
    return comparison


def three_seeds(arm: str, *perplexities: float) -> list[RunResult]:
    return [run_of(arm, seed, value) for seed, value in enumerate(perplexities)]


def test_difference_is_the_mean_of_paired_differences_in_nats(tmp_path: Path) -> None:
    runs = three_seeds("full", 20.0, 21.0, 22.0) + three_seeds("lora-1", 24.0, 24.0, 25.0)
    pair = compare_one(make_study(tmp_path, runs), tmp_path).find_pair("full", "lora-1")
    expected = [math.log(20 / 24), math.log(21 / 24), math.log(22 / 25)]
    assert pair.mean == pytest.approx(sum(expected) / 3)
    assert pair.seeds == (0, 1, 2)
    assert pair.interval.low < pair.mean < pair.interval.high
    assert pair.bootstrap is None


def test_a_bootstrap_is_shown_from_five_seeds_on(tmp_path: Path) -> None:
    runs = three_seeds("full", *range(20, 25)) + three_seeds("lora-1", 24, 24, 25, 26, 27)
    results = make_study(tmp_path, runs, seeds=range(5))
    pair = compare_one(results, tmp_path).find_pair("full", "lora-1")
    assert pair.bootstrap.low < pair.mean < pair.bootstrap.high


def test_turned_round_a_pair_changes_its_signs_only(tmp_path: Path) -> None:
    runs = three_seeds("full", 20.0, 21.0, 22.0) + three_seeds("lora-1", 30.0, 31.0, 34.0)
    comparison = compare_one(make_study(tmp_path, runs), tmp_path)
    pair, turned = comparison.find_pair("full", "lora-1"), comparison.find_pair("lora-1", "full")
    assert (pair.verdict, turned.verdict) == ("lower", "higher")
    assert (turned.mean, turned.interval.low) == (-pair.mean, -pair.interval.high)
    assert turned.p_holm == pair.p_holm


def test_one_baseline_run_stands_for_every_seed(tmp_path: Path) -> None:
    base = run_of("baseline", 0, 40.0, method="baseline", learning_rate=None)
    runs = [base, *three_seeds("full", 20.0, 21.0, 22.0)]
    pair = compare_one(make_study(tmp_path, runs), tmp_path).find_pair("baseline", "full")
    assert pair.seeds == (0, 1, 2)
    assert pair.verdict == "higher"
    assert pair.remark == ""


def test_a_seed_that_one_arm_lacks_is_left_out_and_named(tmp_path: Path) -> None:
    runs = three_seeds("full", 20.0, 21.0, 22.0) + three_seeds("lora-1", 24.0, 24.0)
    pair = compare_one(make_study(tmp_path, runs), tmp_path).find_pair("full", "lora-1")
    assert pair.seeds == (0, 1)
    assert pair.remark == "seed 2 of full is left out: lora-1 lacks it."
    assert (pair.verdict, pair.reason) == ("no verdict", "incomplete arm")


def test_an_arm_with_fewer_seeds_takes_no_part_and_is_named(tmp_path: Path) -> None:
    whole = three_seeds("full", 20.0, 21.0, 22.0) + three_seeds("lora-1", 24.0, 24.0, 25.0)
    some = [*whole, *three_seeds("lora-2", 1.0, 9.0)]
    alone = compare_one(make_study(tmp_path / "whole", whole), tmp_path / "whole")
    beside = compare_one(make_study(tmp_path / "some", some), tmp_path / "some")
    # neither variance nor family nor lead has changed
    assert beside.find_pair("full", "lora-1") == alone.find_pair("full", "lora-1")
    assert (beside.ranked, beside.groups) == (alone.ranked, alone.groups)
    (incomplete,) = beside.incomplete
    assert (incomplete.arm, incomplete.seeds, incomplete.lacking) == ("lora-2", (0, 1), (2,))


def test_two_arms_with_two_seeds_have_no_verdict(tmp_path: Path) -> None:
    runs = three_seeds("full", 20.0, 20.1) + three_seeds("lora-1", 90.0, 91.0)
    comparison = compare_one(make_study(tmp_path, runs, seeds=(0, 1)), tmp_path)
    pair = comparison.find_pair("full", "lora-1")
    assert (pair.verdict, pair.reason, pair.interval) == ("no verdict", "too few seeds", None)
    assert pair.remark == "no verdict: 2 trained arms allow one from 3 seeds on."
    assert comparison.leader is None


@pytest.mark.parametrize(
    ("n_seeds", "n_loras", "is_used"), [(2, 3, True), (2, 2, False), (3, 3, False)]
)
def test_small_tails_of_two_seeds_follow_the_variance_of_all_trained_arms(
    tmp_path: Path, n_seeds: int, n_loras: int, is_used: bool
) -> None:
    rows = (20.0, 21.0, 22.0), (24.0, 24.0, 25.0), (25.0, 24.0, 26.0), (23.0, 25.0, 24.0)
    arms = dict(zip(("full", "lora-1", "lora-2", "lora-3"), rows[: n_loras + 1], strict=False))
    runs = [run for arm, values in arms.items() for run in three_seeds(arm, *values[:n_seeds])]
    runs.append(run_of("baseline", 0, 40.0, method="baseline"))
    comparison = compare_one(make_study(tmp_path, runs, seeds=tuple(range(n_seeds))), tmp_path)
    losses = np.log([values[:n_seeds] for values in arms.values()])
    common = float(measure_layout(losses).of_trained.value)
    for pair in comparison.pairs:
        found = pair.difference.rare_variance
        if is_used and "baseline" not in (pair.first, pair.second):
            assert found == pytest.approx(common / n_seeds, rel=1e-6)
        else:
            assert found is None


def test_arms_without_a_common_seed_have_no_number(tmp_path: Path) -> None:
    runs = [run_of("full", 0, 20.0), run_of("lora-1", 1, 24.0)]
    comparison = compare_one(make_study(tmp_path, runs), tmp_path)
    pair = comparison.find_pair("full", "lora-1")
    assert (pair.mean, pair.interval, pair.verdict) == (None, None, "no verdict")
    assert pair.remark == "no seed in common: no number."
    assert "no seed in common" in build_pair_table(comparison).rows[0][-1].text


def test_one_seed_gives_an_interval_over_documents_and_no_verdict(tmp_path: Path) -> None:
    runs = [run_of("full", 0, 20.0), run_of("lora-1", 0, 90.0)]
    comparison = compare_one(make_study(tmp_path, runs), tmp_path)
    pair = comparison.find_pair("full", "lora-1")
    assert pair.interval.high < 0
    assert (pair.p_holm, pair.p_equivalence, pair.verdict) == (None, None, "one seed")
    assert pair.remark == "one seed: no claim about training."
    assert comparison.leader is None


def test_without_run_folders_there_is_a_difference_and_a_note(tmp_path: Path) -> None:
    runs = three_seeds("full", 20.0, 21.0, 22.0) + three_seeds("lora-1", 30.0, 31.0, 34.0)
    results = make_study(tmp_path / "elsewhere", runs)
    for folder in (None, tmp_path):
        comparison = compare_one(results, folder)
        pair = comparison.find_pair("full", "lora-1")
        assert (pair.mean is not None, pair.interval, pair.verdict) == (True, None, "no verdict")
        assert comparison.leader is None
        assert "sums by document" in comparison.notes[0]


def rewrite(path: Path, **fields: Any) -> None:
    stored = DocumentSums.model_validate_json(path.read_text())
    path.write_text(stored.model_copy(update=fields).model_dump_json())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_text("{"), "is not a readable DocumentSums"),
        (lambda path: rewrite(path, nats=(1.0,) * 10), "adds up to 10 nats"),
        (lambda path: rewrite(path, n_targets=(1,) * 10), "counts 10 targets"),
        (lambda path: rewrite(path, nats=(1.0,) * 9), "has 9 sums of nats for 10 counts"),
        (lambda path: rewrite(path, n_targets=(50, 150, *(100,) * 8)), "other documents"),
    ],
    ids=["missing", "torn", "other-nats", "other-count", "lengths", "other-documents"],
)
def test_a_run_whose_sums_do_not_fit_is_left_out_with_a_note(
    tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    runs = three_seeds("full", 20.0, 21.0, 22.0) + three_seeds("lora-1", 30.0, 31.0, 34.0)
    results = make_study(tmp_path, runs)
    run_id = runs[-1].run_id
    damage(tmp_path / "runs" / run_id / "evaluations" / "wikitext-2--rows-text.json")
    comparison = compare_one(results, tmp_path)
    pair = comparison.find_pair("full", "lora-1")
    assert pair.seeds == (0, 1)
    assert len(comparison.notes) == 1
    assert comparison.notes[0].startswith("left out: lora-1, seed 2:")
    assert reason in comparison.notes[0]
    assert str(tmp_path) not in comparison.notes[0]
    assert reason in " ".join(note.text for note in build_pair_table(comparison).notes)


def test_where_all_sums_are_damaged_the_note_says_what_is_wrong(tmp_path: Path) -> None:
    runs = three_seeds("full", 20.0, 21.0) + three_seeds("lora-1", 24.0, 24.0)
    results = make_study(tmp_path, runs, seeds=(0, 1))
    for path in tmp_path.rglob("wikitext-2--rows-text.json"):
        path.write_text("{")
    notes = compare_one(results, tmp_path).notes
    assert [("is not a readable" in note) for note in notes] == [False, True, True, True, False]
    assert notes[-1] == "left out: 1 more run."


def test_a_score_that_is_not_finite_is_left_out_with_a_note(tmp_path: Path) -> None:
    runs = three_seeds("full", 20.0, 21.0) + three_seeds("lora-1", 30.0, math.inf)
    comparison = compare_one(make_study(tmp_path, runs, seeds=(0, 1)), tmp_path)
    assert comparison.find_pair("full", "lora-1").seeds == (0,)
    assert comparison.notes == ("not finite, so not compared: lora-1, seed 1.",)


def test_a_score_averaged_over_documents_is_compared_over_documents(tmp_path: Path) -> None:
    def by_document(run: RunResult) -> RunResult:
        (score,) = run.evaluations
        return run.model_copy(
            update={
                "evaluations": (score.model_copy(update={"cross_entropy": score.sum_nats / 10}),)
            }
        )

    plain = three_seeds("full", 20.0, 21.0, 22.0) + three_seeds("lora-1", 24.0, 24.0, 25.0)
    before = make_study(tmp_path, plain)
    after = before.model_copy(update={"runs": tuple(map(by_document, before.runs))})
    first = compare_one(before, tmp_path).find_pair("full", "lora-1")
    second = compare_one(after, tmp_path).find_pair("full", "lora-1")
    assert second.mean == pytest.approx(100 * first.mean)


def test_windows_of_joined_text_are_called_windows(tmp_path: Path) -> None:
    runs = three_seeds("full", 20.0, 21.0) + three_seeds("lora-1", 24.0, 24.0)
    results = make_study(tmp_path, runs, seeds=(0, 1))
    for path in tmp_path.rglob("wikitext-2--rows-text.json"):
        rewrite(path, unit="window")
    assert "windows of the joined text" in compare_one(results, tmp_path).notes[0]


def test_an_average_that_is_no_ratio_of_sums_is_said_to_disagree(tmp_path: Path) -> None:
    runs = three_seeds("full", 20.0, 21.0) + three_seeds("lora-1", 24.0, 24.0)
    results = make_study(tmp_path, runs, seeds=(0, 1))
    skewed = [
        run.model_copy(
            update={
                "evaluations": tuple(
                    e.model_copy(update={"cross_entropy": e.cross_entropy * 1.01})
                    for e in run.evaluations
                )
            }
        )
        for run in results.runs
    ]
    comparison = compare_one(results.model_copy(update={"runs": tuple(skewed)}), tmp_path)
    assert "they disagree where the last of these is smaller" in comparison.notes[0]


def test_equivalent_arms_are_called_equivalent_and_far_ones_are_not(tmp_path: Path) -> None:
    runs = three_seeds("full", 20.0, 21.0, 22.0) + three_seeds("lora-1", 20.0001, 21.0, 22.0)
    runs += three_seeds("lora-2", 30.0, 31.5, 33.0)
    results = make_results(runs, arms=("full", "lora-1", "lora-2"), seeds=(0, 1, 2))
    write_sums(tmp_path, results)
    comparison = compare_one(results, tmp_path)
    assert comparison.find_pair("lora-1", "full").is_equivalent
    assert not comparison.find_pair("lora-2", "full").is_equivalent
    assert comparison.find_pair("lora-1", "full").verdict == "equivalent"
    assert comparison.tied_for_lead == ("full", "lora-1")


def test_p_values_are_adjusted_over_all_pairs_of_a_score(tmp_path: Path) -> None:
    runs = three_seeds("full", 20.0, 21.0, 22.0) + three_seeds("lora-1", 24.0, 24.0, 25.0)
    runs += three_seeds("lora-2", 23.0, 24.0, 24.5)
    pairs = compare_one(make_study(tmp_path, runs), tmp_path).pairs
    smallest = min(pairs, key=lambda pair: pair.p)
    assert smallest.p_holm == pytest.approx(3 * smallest.p)
    assert all(pair.p_holm >= pair.p for pair in pairs)


def test_an_arm_whose_pair_says_the_opposite_of_its_score_does_not_lead() -> None:
    # a mean of batch means may rank two arms otherwise than their sums do
    pair = Pair("full", "lora-1", 0.1, interval=Interval(0.05, 0.15), n_family=1)
    key = ScoreKey("wikitext-2", "paper-padded", 1)
    comparison = Comparison(key, ("full", "lora-1"), (pair,), (("full",), ("lora-1",)), 10, ())
    assert comparison.leader is None


def test_group_table_gives_letters_and_the_lead(tmp_path: Path) -> None:
    runs = three_seeds("full", 20.0, 20.1, 20.2) + three_seeds("lora-1", 40.0, 40.1, 40.2)
    findings = make_findings(make_study(tmp_path, runs), tmp_path)
    row = [cell.text for cell in build_group_table(findings).rows[0]]
    assert row[2:] == ["full, separated from every other arm", "full (a), lora-1 (b)"]


def test_json_and_csv_hold_every_pair_of_every_score(tmp_path: Path) -> None:
    runs = [make_run(a, s, evaluations=make_evaluations(20.0 + s)) for a in SPREAD for s in (0, 1)]
    results = make_results(runs, arms=tuple(SPREAD))
    write_sums(tmp_path, results, lambda arm: SPREAD[arm])
    findings = make_findings(results, tmp_path)
    content = json.loads(write_comparisons_json(findings))["comparisons"]
    assert [len(c["pairs"]) for c in content] == [6] * 6  # 4 arms, 3 benchmarks x 2 protocols
    assert len(build_all_pairs(findings).rows) == 36
