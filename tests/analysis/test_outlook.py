"""What a study can find out is said before it starts, by the errors of its later report."""

from dataclasses import replace
from math import comb
from pathlib import Path

import pytest

from lorastudy.analysis.findings import read_findings
from lorastudy.analysis.outlook import DEFAULT_SPREAD, Outlook, Score, look_out, read_spreads
from lorastudy.errors import ConfigError
from lorastudy.study.open import open_folder

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
DEMO = BENCHMARKS / "scored-padding_2cores_202611" / "demo-masked"  # five arms, three seeds
SCORE = Score("tale", "rows-text", 1_000, is_joined=False)


def look(score: Score = SCORE, *, n_seeds: int = 3, wanted: float | None = None) -> Outlook:
    return look_out(score, DEFAULT_SPREAD, n_seeds=n_seeds, n_trained=5, n_arms=6, wanted=wanted)


def test_a_plan_with_the_spread_of_a_study_says_what_its_report_says() -> None:
    study = open_folder(DEMO).study
    n_arms = len(study.arms)
    spreads, n_looked_at = read_spreads(DEMO), 0
    for comparison in read_findings(DEMO, with_bootstrap=False).main:
        key = (comparison.key.benchmark, comparison.key.protocol)
        score = Score(*key, comparison.n_documents, is_joined=False)
        planned = look_out(
            score,
            spreads.of(score),
            n_seeds=len(study.seeds),
            n_trained=n_arms,
            n_arms=n_arms,
        )
        shown = sorted(pair.smallest_shown for pair in comparison.pairs)
        assert planned.n_pairs == len(shown) == comb(n_arms, 2)
        assert shown[0] < planned.smallest_difference < shown[-1]
        assert planned.smallest_difference == pytest.approx(shown[len(shown) // 2], rel=0.2)
        n_looked_at += 1
    assert n_looked_at == 3


@pytest.mark.parametrize("n_seeds", [2, 3, 5, 9])
def test_the_seeds_that_a_difference_needs_are_those_that_separate_it(n_seeds: int) -> None:
    smallest = look(n_seeds=n_seeds).smallest_difference
    assert look(wanted=1.001 * smallest).seeds_needed == n_seeds
    assert look(wanted=0.999 * smallest).seeds_needed > n_seeds


def test_documents_that_are_too_few_are_said_instead_of_seeds() -> None:
    few = look(replace(SCORE, n_documents=100), wanted=0.02)
    assert few.seeds_needed is None and few.documents_needed is not None
    enough = replace(SCORE, n_documents=few.documents_needed)
    one_less = replace(SCORE, n_documents=few.documents_needed - 1)
    assert look(enough, wanted=0.02).seeds_needed is not None
    assert look(one_less, wanted=0.02).seeds_needed is None


def test_windows_of_one_text_tell_less_than_documents() -> None:
    joined = look(replace(SCORE, is_joined=True)).smallest_difference
    assert joined > look().smallest_difference


def test_one_seed_or_document_says_nothing_and_two_seeds_need_three_trained_arms() -> None:
    assert look(replace(SCORE, n_documents=1)).smallest_difference is None
    assert look(n_seeds=1).smallest_difference is None
    two = look_out(SCORE, DEFAULT_SPREAD, n_seeds=2, n_trained=2, n_arms=3)
    three = look_out(SCORE, DEFAULT_SPREAD, n_seeds=3, n_trained=2, n_arms=3)
    assert two.smallest_difference is None and three.smallest_difference is not None


def test_a_study_without_several_seeds_has_no_spread() -> None:
    with pytest.raises(ConfigError, match="several seeds"):
        read_spreads(BENCHMARKS / "smollm2_2cores_202611")


def test_the_spread_that_is_assumed_is_that_of_the_committed_study() -> None:
    found = read_spreads(DEMO).of_others
    for name in ("seeds", "documents", "both"):
        assert getattr(DEFAULT_SPREAD, name) == pytest.approx(getattr(found, name), rel=0.03)
