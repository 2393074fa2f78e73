"""Statistics: numbers computed on paper, and the same interval as scipy.stats."""

import math

import pytest
from report_results import make_epochs, make_failed_run, make_results, make_run
from scipy import stats

from lorastudy.report.statistics import Sample, estimate_mean, find_lead, welch_interval
from lorastudy.report.summary import choose_learning_rate, summarise_arms


def sample(arm: str, *perplexities: float, is_constant: bool = False) -> Sample:
    nats = tuple(math.log(value) for value in perplexities)
    return Sample(arm, perplexities, nats, is_constant)


def test_mean_and_sample_deviation_are_those_computed_on_paper():
    estimate = estimate_mean([2.0, 4.0, 9.0])  # squares 9 + 1 + 16 = 26, over 2
    assert estimate is not None
    assert (estimate.mean, estimate.sd, estimate.n) == (5.0, math.sqrt(13.0), 3)


def test_one_value_has_no_spread():
    estimate = estimate_mean([2.0])
    assert estimate is not None
    assert estimate.sd is None


def test_interval_is_the_welch_interval_of_scipy():
    a, b = sample("a", 20.0, 21.0, 20.4), sample("b", 22.0, 25.0)
    expected = stats.ttest_ind(a.cross_entropies, b.cross_entropies, equal_var=False)
    found = welch_interval(a, b)
    assert found is not None
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)


def test_interval_against_a_constant_arm_is_the_one_sample_interval():
    a, base = sample("a", 20.0, 21.0, 20.4), sample("base", 22.0, is_constant=True)
    expected = stats.ttest_1samp(a.cross_entropies, base.cross_entropies[0])
    found = welch_interval(a, base)
    assert found is not None
    low, high = expected.confidence_interval(0.95)
    shift = base.cross_entropies[0]
    assert (found.low, found.high) == pytest.approx((low - shift, high - shift), rel=1e-12)


def test_a_wide_gap_is_separated_and_a_narrow_one_is_not():
    near, far = sample("b", 20.2, 20.3), sample("c", 30.0, 30.1)
    best = sample("a", 20.0, 20.3)
    assert find_lead([far, best]).verdict == "separated"
    assert find_lead([near, far, best]).verdict == "not separated"
    assert find_lead([near, far, best]).leaders == ("a",)


def test_one_seed_supports_no_claim():
    assert find_lead([sample("a", 20.0), sample("b", 30.0)]).verdict == "one seed"


def test_equal_means_lead_together():
    lead = find_lead([sample("a", 20.0, 21.0), sample("b", 21.0, 20.0)])
    assert set(lead.leaders) == {"a", "b"}
    assert lead.verdict == "not separated"


def test_a_lone_or_non_finite_score_leads_nothing():
    assert find_lead([sample("a", 20.0, 21.0)]) is None
    assert find_lead([sample("a", 20.0), Sample("b", (math.inf,), (math.inf,))]) is None


def test_rate_with_the_lowest_mean_of_best_validation_losses_is_chosen():
    runs = [
        make_run("a", 0, learning_rate=1e-3, epochs=make_epochs((3.0, 3.5))),
        make_run("a", 1, learning_rate=1e-3, epochs=make_epochs((3.4, 3.2))),  # mean 3.10
        make_run("a", 0, learning_rate=1e-4, epochs=make_epochs((2.9,))),
        make_run("a", 1, learning_rate=1e-4, epochs=make_epochs((3.5,))),  # mean 3.20
    ]
    assert choose_learning_rate(runs) == 1e-3


def test_equal_losses_choose_the_lower_rate():
    runs = [make_run("a", 0, learning_rate=rate) for rate in (1e-3, 1e-4, 1e-2)]
    assert choose_learning_rate(runs) == 1e-4


def test_a_rate_that_lost_a_seed_loses_to_one_that_did_not():
    runs = [
        make_run("a", 0, learning_rate=1e-2, epochs=make_epochs((2.0,))),
        make_failed_run("a", 1, "diverged").model_copy(update={"learning_rate": 1e-2}),
        make_run("a", 0, learning_rate=1e-3),
        make_run("a", 1, learning_rate=1e-3),
    ]
    assert choose_learning_rate(runs) == 1e-3


def test_missing_runs_are_counted_for_their_own_arm():
    missing = ("lora-1-s0-00000000", "lora-1-s2-s1-00000000")
    results = make_results([], arms=("lora-1", "lora-1-s2"), missing=missing)
    assert [arm.n_missing for arm in summarise_arms(results)] == [1, 1]
