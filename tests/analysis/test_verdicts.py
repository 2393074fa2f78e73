"""Word, interval and p value of a pair are one statement, on any study."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorastudy.analysis.families import adjust_by_holm, separate
from lorastudy.analysis.findings import make_findings
from lorastudy.analysis.layout import SeedSpread
from lorastudy.analysis.paired import Difference, Errors, interval_of, p_of_no_difference
from lorastudy.analysis.pairs import Comparison, Pair
from lorastudy.analysis.summary import ScoreKey
from lorastudy.analysis.verdicts import explain_order, judge_family
from support.made_results import make_evaluation, make_results, make_run, write_sums

KEY = ScoreKey("wikitext-2", "rows-text", 1)


@st.composite
def differences(draw: st.DrawFn) -> Difference:
    """Differences from none to large, with errors of seeds, of documents or of both."""
    n_seeds = draw(st.integers(2, 6))
    seeds, documents = (10 ** draw(st.floats(-9, -2)) for _ in range(2))
    size = draw(st.floats(-30, 30)) * np.sqrt(max(seeds, documents))
    freedom = draw(st.floats(2, 20))
    # with two seeds, small tails follow the variance of all pairs
    rare = seeds * 10 ** draw(st.floats(-2, 2)) if n_seeds == 2 and draw(st.booleans()) else None
    return Difference(
        mean=float(size),
        n_seeds=n_seeds,
        n_documents=draw(st.integers(5, 1000)),
        seed_variance=seeds,
        document_variance=documents,
        shared_variance=draw(st.floats(0, 1)) * min(seeds, documents),
        common_freedom=freedom,
        seed_freedom=min(freedom, n_seeds + 1.0),
        n_arms=5,
        rare_variance=rare,
    )


def pair_of(difference: Difference, index: int = 0) -> Pair:
    return Pair(f"arm-{index}", "other", difference.mean, (0, 1), difference)


@given(st.lists(differences(), min_size=1, max_size=15), st.sampled_from([0.002, 0.02, 0.2]))
@settings(max_examples=60, deadline=None)
def test_word_interval_and_p_value_agree(found: list[Difference], margin: float) -> None:
    pairs = judge_family([pair_of(d, i) for i, d in enumerate(found)], margin=margin)
    for pair in pairs:
        low, high = pair.interval.low, pair.interval.high
        has_zero, is_within = low <= 0 <= high, -margin < low and high < margin
        expected = (
            ("lower" if high < 0 else "higher")
            if not has_zero
            else ("equivalent" if is_within else "not separated")
        )
        assert pair.verdict == expected
        assert (pair.p_holm < 0.05) == (not has_zero) == pair.is_separated
        assert (pair.p_equivalence < 0.05) == is_within == pair.is_equivalent
        # the interval is never shorter than the plain one, and both have the mean inside
        assert low <= pair.plain.low <= pair.mean <= pair.plain.high <= high


@given(st.lists(differences(), min_size=1, max_size=15))
@settings(max_examples=50, deadline=None)
def test_p_values_are_holms_of_each_pair_by_itself(found: list[Difference]) -> None:
    pairs = judge_family([pair_of(d) for d in found], margin=0.02)
    single = [p_of_no_difference(d) for d in found]
    assert [pair.p for pair in pairs] == pytest.approx(single)
    assert [pair.p_holm for pair in pairs] == pytest.approx(adjust_by_holm(single))
    lows = [interval_of(d).low for d in found]
    assert [pair.plain.low for pair in pairs] == pytest.approx(lows)


def test_a_later_step_of_holm_gives_a_shorter_interval() -> None:
    # z = 2.3: p = 0.021 is above 0.05 / 3 and below 0.05 / 2
    errors = Errors(*(np.full(3, v) for v in (0.0, 1.0, 0.0, 1.0, 1e9)))
    separated, levels = separate(np.array([9.0, 2.3, 1.0]), errors)
    assert separated.tolist() == [True, True, False]
    assert levels == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 3])


def test_one_question_is_adjusted_for_itself_alone() -> None:
    difference = Difference(0.015, 3, 100, 1e-5, 1e-5, 0.0, 8.0, 4.0, n_arms=5)
    among = judge_family([pair_of(difference, i) for i in range(15)], margin=0.02)[0]
    (alone,) = judge_family([pair_of(difference)], margin=0.02)
    assert (among.verdict, alone.verdict) == ("not separated", "higher")
    assert alone.interval == alone.plain
    assert alone.interval.low == pytest.approx(interval_of(difference).low)
    assert (among.n_family, alone.n_family) == (15, 1)


def test_a_difference_may_be_real_and_within_the_margin() -> None:
    (pair,) = judge_family(
        [pair_of(Difference(0.01, 5, 900, 1e-7, 1e-7, 0.0, 16.0, 6.0, n_arms=5))], margin=0.02
    )
    assert (pair.verdict, pair.is_equivalent) == ("higher", True)


def test_pairs_that_cannot_be_judged_stay_as_they_are() -> None:
    one_seed = Pair("a", "b", 0.1, (0,), Difference(0.1, 1, 100, None, 1e-4))
    refused = replace(pair_of(Difference(0.1, 2, 100, 1e-4, 1e-4)), reason="too few seeds")
    judged = judge_family([one_seed, refused, pair_of(Difference(0.1, 3, 9, 1e-4, 1e-4))], margin=1)
    assert judged[:2] == (one_seed, refused)
    assert judged[2].n_family == 1


def test_an_arm_that_is_farther_and_yet_not_separated_is_explained() -> None:
    near = Difference(-0.12, 3, 100, 1e-5, 1e-5, 0.0, 8.0, 4.0, n_arms=5)
    far = replace(near, mean=-0.41, document_variance=9e-2)
    pairs = [replace(pair_of(d), first="lead", second=arm) for d, arm in ((near, "b"), (far, "c"))]
    judged = judge_family(pairs, margin=0.02)
    comparison = Comparison(KEY, ("lead", "b", "c"), judged, (), 100, ())
    (found,) = explain_order(comparison)
    assert (found.arm, found.nearer, found.cause) == ("c", "b", "documents")
    assert found.error_ratio == pytest.approx(np.sqrt((9e-2 + 1e-5) / 2e-5))
    assert explain_order(replace(comparison, pairs=judged[:1])) == ()
    # no surprise where the farther arm is separated as well
    both = [replace(pair, first="lead", second=arm) for pair, arm in zip(judged, "bc", strict=True)]
    sure = replace(both[1], interval=replace(both[1].interval, high=both[1].mean / 2))
    assert sure.is_separated and explain_order(replace(comparison, pairs=(both[0], sure))) == ()


def test_wide_arms_are_named() -> None:
    spreads = (("a", SeedSpread(9.0, 0.01)), ("b", SeedSpread(1.1, 0.6)))
    assert Comparison(KEY, (), (), (), 9, (), spreads=spreads).wide_arms == ("a",)


@pytest.mark.parametrize("seed", range(6))
def test_random_studies_contradict_themselves_nowhere(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arms, n_seeds = ("baseline", "full", "lora-1", "lora-2", "lora-3", "lora-4"), 2 + seed % 3
    level = 20 + rng.choice([0.0, 0.02, 1.0, 9.0], len(arms))
    runs = [
        make_run(
            arm,
            s,
            method="baseline" if arm == "baseline" else "lora",
            evaluations=(
                make_evaluation("wikitext-2", "rows-text", level[i] + rng.normal(0, 10**-seed)),
            ),
        )
        for i, arm in enumerate(arms)
        for s in range(1 if arm == "baseline" else n_seeds)
    ]
    results = make_results(runs, arms=arms, seeds=range(n_seeds), benchmarks=("wikitext-2",))
    write_sums(tmp_path, results, lambda arm: arms.index(arm) / 10 ** (1 + seed))
    (comparison,) = make_findings(results, tmp_path, with_bootstrap=False).comparisons
    assert all(pair.is_judged for pair in comparison.pairs)
    lead, tied = comparison.ranked[0], comparison.tied_for_lead
    for arm in comparison.ranked[1:]:
        pair = comparison.find_pair(lead, arm)
        assert (pair.interval.high < 0) == (arm not in comparison.not_separated_from_lead)
        assert (arm in tied) == (pair.verdict == "equivalent")
    for group in comparison.groups:
        inside = [comparison.find_pair(a, b) for a in group for b in group if a != b]
        assert all(pair.interval.low <= 0 <= pair.interval.high for pair in inside)
