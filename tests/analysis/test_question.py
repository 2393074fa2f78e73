"""A question that a study declares is judged by itself, and its margin decides what is tied."""

import json
from pathlib import Path

import pytest

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.recommendation import recommend
from lorastudy.config.study_file import preset_text
from lorastudy.report.page.details import state_families
from lorastudy.report.page.headline import state_headline
from lorastudy.report.page.verdict import write_ending
from lorastudy.report.tables.comparisons import build_reference_table
from lorastudy.report.tables.comparisons_json import write_comparisons_json
from support.made_studies import make_study

ARMS = {"baseline": 40.0, "full": 20.0, "lora-1": 20.4, "lora-2": 21.0}
WOBBLE = {"full": 0.002, "lora-1": -0.002, "lora-2": 0.001}


def study_with(folder: Path, *lines: str, seeds: tuple[int, ...] = (0, 1, 2)) -> Findings:
    """Three tests, the last of which is for forgetting; `lines` end its study file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text("\n".join([preset_text("demo"), *lines, ""]))
    return make_study(folder, ARMS, seeds=seeds, wobble=WOBBLE, forgetting=("imdb",))


def test_the_pairs_of_a_question_are_one_family_over_all_tests(tmp_path: Path) -> None:
    findings = study_with(tmp_path, "question: full-or-lora")
    for comparison in findings.comparisons:
        is_test = comparison.key.protocol == "rows-text" and comparison.key.benchmark != "imdb"
        asked = {(p.first, p.second) for p in comparison.pairs if p.is_asked}
        assert asked == ({("full", "lora-1"), ("full", "lora-2")} if is_test else set())
        # 2 LoRA arms on 2 tests, and what is left of the 6 pairs of a comparison
        for pair in comparison.pairs:
            assert pair.n_family == (4 if pair.is_asked else 4 if is_test else 6)


def test_a_question_needs_less_evidence_than_all_pairs_do(tmp_path: Path) -> None:
    alone = study_with(tmp_path / "alone", "question: [full, lora-1]").comparisons[0]
    among = study_with(tmp_path / "among").comparisons[0]
    asked, other = (c.find_pair("lora-1", "full") for c in (alone, among))
    assert (asked.n_family, other.n_family) == (2, 6)
    assert asked.mean == other.mean and asked.p == other.p
    assert asked.interval.low > other.interval.low
    # the pairs that were not asked about are adjusted for each other
    assert {p.n_family for p in alone.pairs if not p.is_asked} == {5}


def test_page_ending_and_json_say_what_was_declared_and_what_is_exploratory(tmp_path: Path) -> None:
    findings = study_with(tmp_path, "question: full-or-lora")
    assert "one question before its runs: full fine-tuning or LoRA?" in state_families(findings)
    assert "the 4 comparisons of “full fine-tuning or LoRA?”" in write_ending(findings, "x")[1]
    marks = {row[2].mark for row in build_reference_table(findings).rows}
    assert marks == {"", "¶"}  # the baseline, and benchmarks for forgetting, were not asked about
    content = json.loads(write_comparisons_json(findings))
    assert content["question"]["pairs"] == [["full", "lora-1"], ["full", "lora-2"]]
    families = {pair["family"] for c in content["comparisons"] for pair in c["pairs"]}
    assert families == {"question", "exploratory"}


def test_without_a_question_everything_is_exploratory(tmp_path: Path) -> None:
    findings = study_with(tmp_path)
    assert "declared no question" in state_families(findings)
    assert "This is exploratory" in write_ending(findings, "x")[1]
    assert json.loads(write_comparisons_json(findings))["question"] is None


def test_a_question_about_two_arms_is_what_the_recommendation_answers(tmp_path: Path) -> None:
    findings = study_with(tmp_path, "question: [lora-2, lora-1]")
    found = recommend(findings)
    # the arm with more trained parameters is the reference
    assert (found.lora, found.reference) == ("lora-1", "lora-2")
    assert found.recommended == "lora-1"
    assert "than that of LoRA on attention and projection (lora-2)" in state_headline(findings)


@pytest.mark.parametrize(("margin", "is_as_good"), [("0.02", False), ("0.2", True)])
def test_the_margin_of_the_study_file_decides_what_is_as_good(
    tmp_path: Path, margin: str, is_as_good: bool
) -> None:
    findings = study_with(tmp_path, f"margin: {margin}")
    assert all(pair.margin == float(margin) for c in findings.comparisons for pair in c.pairs)
    assert json.loads(write_comparisons_json(findings))["equivalence_margin"] == float(margin)
    pair = findings.comparisons[0].find_pair("lora-1", "full")
    assert pair.is_equivalent == is_as_good
    said = " ".join(note.text for note in build_reference_table(findings).notes)
    percent = {"0.02": "2 %", "0.2": "22 %"}[margin]
    assert f"within {margin} nats per token ({percent} of perplexity)" in said
    # pairs that are not judged have it as well, for the grey band of the figures
    not_judged = study_with(tmp_path / "one-seed", f"margin: {margin}", seeds=(0,))
    assert {c.margin for c in not_judged.comparisons} == {float(margin)}


def test_plain_intervals_stand_beside_the_adjusted_ones_by_a_switch(tmp_path: Path) -> None:
    findings = study_with(tmp_path)
    table = build_reference_table(findings)
    plain = build_reference_table(findings, with_plain=True)
    place = [c.names for c in plain.columns].index(("plain_low", "plain_high"))
    assert [row[:place] + row[place + 1 :] for row in plain.rows] == list(table.rows)
    for row in plain.rows:
        (low, high), (plain_low, plain_high) = row[place - 1].values, row[place].values
        assert low <= plain_low <= plain_high <= high
