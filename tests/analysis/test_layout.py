"""The variance over seeds of all arms together, against numbers made on paper and scipy."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from lorastudy.analysis.layout import (
    CommonVariance,
    compare_spreads,
    least_seeds,
    measure_layout,
    prior_freedom,
    shrink_variance,
)

RNG = np.random.default_rng


def test_mean_squares_are_those_of_the_paper_example() -> None:
    # rows 1 3, 2 2, 3 7: means of rows 2, 2, 5 and of columns 2, 4; rest -0, ...
    layout = measure_layout(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 7.0]]))
    # rest: 0 0, 1 -1, -1 1: squares add up to 4, over 2 degrees of freedom: MSE = 2
    assert layout.of_trained.value == pytest.approx(2 * 2)
    assert layout.of_trained.freedom == 2
    # MSB = 3 x 2 = 6; (6 + 2 x 2) / 3; Satterthwaite: (10/3)^2 / (2^2 / 1 + (4/3)^2 / 2)
    assert layout.of_constant.value == pytest.approx(10 / 3)
    assert layout.of_constant.freedom == pytest.approx((100 / 9) / (4 + 8 / 9))


def test_the_common_variance_is_the_mean_of_the_pairs_own() -> None:
    losses = RNG(0).normal(0, 1, (5, 3))
    layout = measure_layout(losses)
    pairs = [(losses[a] - losses[b]).var(ddof=1) for a, b in combinations(range(5), 2)]
    assert layout.of_trained.value == pytest.approx(np.mean(pairs))
    assert layout.of_constant.value == pytest.approx(losses.var(axis=1, ddof=1).mean())


def test_one_trained_arm_stands_for_itself() -> None:
    layout = measure_layout(np.array([[1.0, 2.0, 4.0]]))
    value, freedom = shrink_variance(np.asarray(7 / 3), 3, layout.of_constant, prior_freedom(1, 3))
    assert (value, freedom) == (pytest.approx(7 / 3), 2)


def test_a_pairs_own_variance_counts_for_its_degrees_of_freedom() -> None:
    # 2 of the common 1 and 2 of the own 4, over 4
    common = CommonVariance(np.asarray(1.0), np.asarray(8.0))
    assert shrink_variance(np.asarray(4.0), 3, common, 2.0) == (2.5, 4.0)
    scarce = CommonVariance(np.asarray(1.0), np.asarray(3.0))
    assert shrink_variance(np.asarray(4.0), 3, scarce, 2.0) == (2.5, 3.0)


def test_the_common_variance_counts_for_a_quarter_of_its_freedom_and_at_most_two() -> None:
    found = [prior_freedom(n_arms, n_seeds) for n_arms, n_seeds in ((5, 2), (5, 3), (3, 3), (8, 9))]
    assert found == [1.0, 2.0, 1.0, 2.0]


def test_two_seeds_are_enough_for_three_trained_arms_only() -> None:
    assert [least_seeds(n_arms) for n_arms in (1, 2, 3, 4, 8)] == [3, 3, 2, 2, 2]


def test_an_arm_that_spreads_far_is_flagged_and_equal_arms_seldom_are() -> None:
    rng = RNG(1)
    equal = [compare_spreads(rng.normal(0, 1, (5, 4))) for _ in range(1000)]
    assert np.mean([any(s.is_wide for s in spreads) for spreads in equal]) <= 0.065
    far = np.array([20.0, 1, 1, 1, 1])[:, None]
    flagged = [compare_spreads(rng.normal(0, 1, (5, 4)) * far) for _ in range(100)]
    assert sum(spreads[0].is_wide for spreads in flagged) >= 90
    assert sum(spreads[1].is_wide for spreads in flagged) <= 3


def test_a_spread_is_judged_by_an_exact_f_test() -> None:
    rng = RNG(2)
    p_values = [compare_spreads(rng.normal(0, 1, (4, 3)))[0].p / 4 for _ in range(2000)]
    small = [p for p in p_values if p < 0.25]  # before Bonferroni's factor cuts them at 1
    assert stats.kstest(np.array(small) * 4, "uniform").pvalue > 0.001
    assert np.mean(np.array(p_values) < 0.1) == pytest.approx(0.1, abs=0.02)


def test_few_arms_are_not_flagged() -> None:
    assert compare_spreads(np.ones((2, 5))) is None
    assert [spread.is_wide for spread in compare_spreads(np.ones((3, 2)))] == [False] * 3
