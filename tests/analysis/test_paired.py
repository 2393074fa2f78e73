"""Differences over seeds and documents: the same numbers as scipy, and intervals that cover."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from lorastudy.analysis.bootstrap import bootstrap_interval, resample_documents
from lorastudy.analysis.families import adjust_by_holm, group_unseparated
from lorastudy.analysis.paired import (
    Difference,
    Errors,
    cluster_windows,
    interval_of,
    measure_difference,
    measure_parts,
    measure_seeds,
    p_of_no_difference,
)
from lorastudy.analysis.planning import power_of, seeds_needed, smallest_difference

RNG = np.random.default_rng


def draw_study(
    rng: np.random.Generator, n_seeds: int, n_documents: int, *, of_seeds: float, of_rest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Targets (m) and nats (S, m) of a study without a true difference.

    `of_seeds` is the seeds' part of the squared error of the mean beside the documents' part,
    `of_rest` the deviation of the rest beside the documents'.
    """
    targets = np.maximum(5, rng.lognormal(4, 0.8, n_documents)).round()
    effective = targets.sum() ** 2 / np.square(targets).sum()
    seeds = rng.normal(0, math.sqrt(of_seeds * n_seeds / effective), (n_seeds, 1))
    documents = rng.standard_t(5, n_documents) / math.sqrt(5 / 3)
    rest = rng.normal(0, of_rest, (n_seeds, n_documents))
    return targets, (seeds + documents + rest) * targets


def measure_coverage(
    n_seeds: int, n_documents: int, n_studies: int, ratios: Sequence[float], of_rest: float
) -> float:
    rng = RNG([n_seeds, n_documents])
    covered = 0
    for study in range(n_studies):
        targets, nats = draw_study(
            rng, n_seeds, n_documents, of_seeds=ratios[study % len(ratios)], of_rest=of_rest
        )
        interval = interval_of(measure_difference(targets, nats))
        covered += interval.low <= 0 <= interval.high
    return covered / n_studies


@pytest.mark.parametrize("n_documents", [50, 300])
@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_intervals_cover_the_truth_as_often_as_they_say(n_seeds: int, n_documents: int) -> None:
    # from documents alone to seeds alone: what spreads is not known beforehand
    ratios = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
    coverage = measure_coverage(n_seeds, n_documents, 2100, ratios, of_rest=0.5)
    assert 0.93 <= coverage <= 0.97


@pytest.mark.parametrize("ratio", [0.0, 3.0, 100.0])
def test_two_seeds_are_not_overrated(ratio: float) -> None:
    assert measure_coverage(2, 100, 1500, (ratio,), of_rest=0.3) >= 0.92


def test_without_documents_it_is_the_paired_t_test() -> None:
    a, b = np.array([5.1, 4.9, 5.3, 5.2]), np.array([5.0, 4.7, 5.3, 4.8])
    expected = stats.ttest_rel(a, b)
    found = measure_seeds(list(a - b))
    low, high = expected.confidence_interval(0.95)
    interval = interval_of(found)
    assert p_of_no_difference(found) == pytest.approx(expected.pvalue, rel=1e-9)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize("freedom", [0.0, 9.0])  # with 9, the quantile at 1e-300 overflows
def test_a_part_that_adds_nothing_has_no_say_in_the_quantile(freedom: float) -> None:
    of_seeds, of_documents = (
        Errors(*(np.full(1, v) for v in values))
        for values in ((1.0, 0.0, 0.0, 4.0, freedom), (0.0, 1.0, 0.0, freedom, 4.0))
    )
    for errors in (of_seeds, of_documents):
        assert errors.quantile(1e-300) == pytest.approx(stats.t.isf(1e-300, 4))
        assert errors.tail(2.0) == pytest.approx(stats.t.sf(2.0, 4))


def test_documents_that_agree_leave_the_one_sample_t_test_over_seeds() -> None:
    of_seeds, targets = np.array([0.1, 0.3, 0.15]), np.array([10.0, 20.0, 30.0])
    found = measure_difference(targets, np.outer(of_seeds, targets))
    expected = stats.ttest_1samp(of_seeds, 0)
    assert p_of_no_difference(found) == pytest.approx(expected.pvalue, rel=1e-6)


def test_one_seed_and_equal_documents_is_the_one_sample_t_test_over_documents() -> None:
    nats = RNG(0).normal(0.3, 1, 40)
    found = measure_difference(np.ones(40), nats[None])
    expected = stats.ttest_1samp(nats, 0)
    low, high = expected.confidence_interval(0.95)
    interval = interval_of(found)
    assert found.seed_variance is None
    assert p_of_no_difference(found) == pytest.approx(expected.pvalue, rel=1e-9)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9)


def test_documents_variance_is_that_of_scipys_bootstrap_of_the_ratio() -> None:
    rng = RNG(1)
    targets, nats = draw_study(rng, 1, 400, of_seeds=0, of_rest=0)
    done = stats.bootstrap(
        (nats[0], targets),
        lambda x, n, axis: x.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        rng=2,
    )
    found = measure_difference(targets, nats)
    assert math.sqrt(found.document_variance) == pytest.approx(done.standard_error, rel=0.05)


def test_what_seeds_and_documents_share_is_counted_once() -> None:
    rng, one = RNG(2), np.ones(100)
    found = [
        measure_difference(
            one,
            rng.normal(0, 0.2, (8, 1)) + rng.normal(0, 1, 100) + rng.normal(0, 2, (8, 100)),
        ).variance
        for _ in range(1500)
    ]
    # seeds, documents, and once what belongs to a seed and a document together
    assert np.mean(found) == pytest.approx(0.04 / 8 + 1 / 100 + 4 / 800, rel=0.05)


def test_two_level_bootstrap_has_the_spread_of_the_formula_with_many_seeds() -> None:
    rng = RNG(3)
    targets, nats = draw_study(rng, 40, 300, of_seeds=1.0, of_rest=0.2)
    resampled = resample_documents(targets, {str(s): row for s, row in enumerate(nats)})
    found = bootstrap_interval(np.stack(list(resampled.values())), np.zeros((40, 1)))
    expected = interval_of(measure_difference(targets, nats))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_bootstrap_is_the_same_every_time() -> None:
    targets, nats = draw_study(RNG(4), 3, 50, of_seeds=1.0, of_rest=0.2)
    runs = {str(s): row for s, row in enumerate(nats)}
    first, again = resample_documents(targets, runs), resample_documents(targets, runs)
    assert all(np.array_equal(first[run], again[run]) for run in runs)


def test_interval_and_p_value_agree() -> None:
    targets, nats = draw_study(RNG(5), 3, 80, of_seeds=0.5, of_rest=0.3)
    found = measure_difference(targets, nats)
    shifted = measure_difference(targets, nats - interval_of(found).low * targets)
    assert p_of_no_difference(shifted) == pytest.approx(0.05, abs=1e-6)


def test_holm_is_that_of_the_paper_example() -> None:
    # on paper: 4 x 0.01, 3 x 0.013 raised to it, 2 x 0.03, then 0.04 raised to 0.06
    assert adjust_by_holm([0.03, 0.01, 0.04, 0.013]) == pytest.approx((0.06, 0.04, 0.06, 0.04))
    assert adjust_by_holm([0.9, 0.8]) == (1.0, 1.0)
    assert adjust_by_holm([]) == ()


def separated(*pairs: tuple[str, str]) -> frozenset[frozenset[str]]:
    return frozenset(frozenset(pair) for pair in pairs)


def test_groups_of_arms_that_are_not_separated_may_overlap() -> None:
    assert group_unseparated("abc", separated("ac")) == (("a", "b"), ("b", "c"))


def test_arms_that_nothing_separates_are_one_group_and_separated_ones_stand_alone() -> None:
    assert group_unseparated("abc", separated()) == (("a", "b", "c"),)
    assert group_unseparated("abc", separated("ab", "ac", "bc")) == (("a",), ("b",), ("c",))


def test_more_seeds_are_needed_for_a_smaller_difference_and_a_stricter_level() -> None:
    spread = Difference(0.1, 3, 100, 1e-4, 1e-6, 0.0)
    few, more = seeds_needed(spread, 0.05), seeds_needed(spread, 0.02)
    assert few < more < seeds_needed(spread, 0.02, n_pairs=15)


def test_documents_that_spread_too_much_cannot_be_made_up_for_by_seeds() -> None:
    assert seeds_needed(Difference(0.1, 3, 100, 1e-6, 1e-2, 0.0), 0.05) is None


def test_planned_seeds_separate_a_difference_as_often_as_planned() -> None:
    # seeds alone spread: 0.05 with deviation 0.04 each
    needed = seeds_needed(Difference(0.0, 4, 0, 0.04**2 / 4, None, 0.0), 0.05)
    draws = RNG(7).normal(0.05, 0.04, (4000, needed))
    power = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    one_less = np.mean(stats.ttest_1samp(draws[:, :-1], 0, axis=1).pvalue < 0.05)
    assert one_less < 0.8 < power + 0.01


def test_smallest_difference_is_the_one_that_the_same_seeds_would_be_planned_for() -> None:
    spread = Difference(0.1, 4, 100, 1e-4, 1e-5, 1e-6, common_freedom=12.0, n_arms=5)
    smallest = smallest_difference(spread, n_pairs=15)
    assert seeds_needed(spread, smallest * 1.0001, n_pairs=15) == 4
    assert seeds_needed(spread, smallest * 0.9999, n_pairs=15) == 5


def test_no_plan_is_for_fewer_seeds_than_a_verdict_takes() -> None:
    sure = Difference(1.0, 3, 100, 1e-9, 1e-9, 0.0, common_freedom=2.0, n_arms=2)
    assert seeds_needed(sure, 1.0) == 3
    assert seeds_needed(Difference(1.0, 3, 100, 1e-9, 1e-9, 0.0, 8.0, n_arms=5), 1.0) == 2


def test_planned_power_is_that_of_scipys_t_test() -> None:
    # seeds alone spread: the noncentral t distribution is exact
    spread = Difference(0.0, 4, 0, 0.04**2 / 4, None, 0.0)
    draws = RNG(8).normal(0.06, 0.04, (20000, 6))
    expected = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.01)
    found = power_of(spread, np.asarray(0.06), np.asarray(6.0), 0.01)
    assert float(found) == pytest.approx(expected, abs=0.01)


def test_arrays_of_studies_give_what_each_study_gives_by_itself() -> None:
    rng = RNG(9)
    targets, nats = rng.integers(5, 90, (4, 30)).astype(float), rng.normal(0, 9, (4, 3, 30))
    parts = measure_parts(targets, nats)
    for study in range(4):
        found = measure_difference(targets[study], nats[study])
        assert parts.means[study] == pytest.approx(found.mean)
        assert parts.documents[study] == pytest.approx(found.document_variance)
        assert parts.shared[study] == pytest.approx(found.shared_variance)


def test_neighbours_that_are_alike_are_counted_once() -> None:
    # every document four times: as much is known as from each once
    rng, one = RNG(10), np.ones(60)
    nats = rng.normal(0, 1, (2, 60))
    single = measure_difference(one, nats)
    repeated = np.repeat(nats, 4, axis=1)
    clusters = np.repeat(np.arange(60), 4)
    found = measure_difference(np.ones(240), repeated, clusters)
    assert found.variance == pytest.approx(single.variance)
    # one degree of freedom fewer, since an article may lie across the border of two blocks
    assert (found.errors.document_freedom, single.errors.document_freedom) == (58, 59)
    assert interval_of(found).high > interval_of(single).high
    assert measure_difference(np.ones(240), repeated).document_variance < single.variance / 2


def test_windows_are_put_together_in_equal_blocks() -> None:
    assert cluster_windows(9).tolist() == [0] * 5 + [1] * 4
    assert cluster_windows(1).tolist() == [0]
    assert np.bincount(cluster_windows(240)).tolist() == [24] * 10  # 1.5 sqrt(240) = 23.2
