"""Statistics: numbers computed on paper, and which learning rate is reported."""

import math

import pytest

from lorastudy.analysis.statistics import Sample, estimate_mean, estimate_score
from lorastudy.analysis.summary import choose_best_run, choose_learning_rate, summarise_arms
from lorastudy.store.records import RunResult
from support.made_results import make_epochs, make_failed_run, make_results, make_run


def test_mean_and_sample_deviation_are_those_computed_on_paper() -> None:
    estimate = estimate_mean([2.0, 4.0, 9.0])  # squares 9 + 1 + 16 = 26, over 2
    assert estimate is not None
    assert (estimate.mean, estimate.sd, estimate.n) == (5.0, math.sqrt(13.0), 3)


def test_a_perplexity_over_seeds_is_that_of_the_mean_loss() -> None:
    sample = Sample("full", (20.0, 22.0), (math.log(20.0), math.log(22.0)))
    estimate = estimate_score(sample)
    assert estimate is not None
    assert estimate.mean == pytest.approx(math.sqrt(440.0))  # not 21
    assert (estimate.lowest, estimate.highest, estimate.sd) == (20.0, 22.0, math.sqrt(2.0))
    assert estimate_score(Sample("full", (), ())) is None


def test_one_value_has_no_spread() -> None:
    estimate = estimate_mean([2.0])
    assert estimate is not None
    assert estimate.sd is None


def test_rate_with_the_lowest_mean_of_best_validation_losses_is_chosen() -> None:
    runs = [
        make_run("a", 0, learning_rate=1e-3, epochs=make_epochs((3.0, 3.5))),
        make_run("a", 1, learning_rate=1e-3, epochs=make_epochs((3.4, 3.2))),  # mean 3.10
        make_run("a", 0, learning_rate=1e-4, epochs=make_epochs((2.9,))),
        make_run("a", 1, learning_rate=1e-4, epochs=make_epochs((3.5,))),  # mean 3.20
    ]
    assert choose_learning_rate(runs) == 1e-3


def test_right_answers_on_validation_choose_a_rate_before_losses_do() -> None:
    def run_with(rate: float, seed: int, *found: tuple[float, float]) -> RunResult:
        epochs = make_epochs([loss for loss, _ in found])
        epochs = tuple(
            epoch.model_copy(update={"validation_accuracy": share})
            for epoch, (_, share) in zip(epochs, found, strict=True)
        )
        return make_run("a", seed, learning_rate=rate, epochs=epochs)

    few = [run_with(1e-4, seed, (2.0, 0.2), (1.0, 0.3)) for seed in (0, 1)]
    many = [run_with(1e-3, 0, (3.0, 0.4), (1.0, 0.1)), run_with(1e-3, 1, (3.0, 0.3))]
    assert choose_learning_rate([*few, *many]) == 1e-3
    as_many = [run_with(1e-2, 0, (2.9, 0.3)), run_with(1e-2, 1, (2.9, 0.4))]
    assert choose_learning_rate([*few, *many, *as_many]) == 1e-2
    assert choose_best_run(few + many) == many[0]


def test_equal_losses_choose_the_lower_rate() -> None:
    runs = [make_run("a", 0, learning_rate=rate) for rate in (1e-3, 1e-4, 1e-2)]
    assert choose_learning_rate(runs) == 1e-4


def test_a_rate_that_lost_a_seed_loses_to_one_that_did_not() -> None:
    runs = [
        make_run("a", 0, learning_rate=1e-2, epochs=make_epochs((2.0,))),
        make_failed_run("a", 1, "diverged").model_copy(update={"learning_rate": 1e-2}),
        make_run("a", 0, learning_rate=1e-3),
        make_run("a", 1, learning_rate=1e-3),
    ]
    assert choose_learning_rate(runs) == 1e-3


def test_missing_runs_are_counted_for_their_own_arm() -> None:
    missing = ("lora-1-s0-00000000", "lora-1-s2-s1-00000000")
    results = make_results([], arms=("lora-1", "lora-1-s2"), missing=missing)
    assert [arm.n_missing for arm in summarise_arms(results)] == [1, 1]
