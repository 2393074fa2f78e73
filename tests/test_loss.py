"""Sums of nats and tokens, and the numbers a person reads."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorastudy.errors import InputError
from lorastudy.loss import LossSums, perplexity_of

sums = st.builds(LossSums, st.floats(0, 1e6), st.integers(1, 10**6))


def test_pooled_loss_weighs_every_token_the_same() -> None:
    pooled = LossSums(2.0, 1) + LossSums(30.0, 7)  # means 2 and 4.29; mean of means 3.14
    assert pooled == LossSums(32.0, 8)
    assert pooled.cross_entropy == 4.0


@given(sums, sums)
def test_order_of_pooling_does_not_matter(a: LossSums, b: LossSums) -> None:
    assert a + b == b + a


@given(sums)
def test_nothing_added_changes_nothing(a: LossSums) -> None:
    assert a + LossSums() == a


@given(sums, sums)
def test_pooled_loss_lies_between_its_parts(a: LossSums, b: LossSums) -> None:
    low, high = sorted([a.cross_entropy, b.cross_entropy])
    pooled = (a + b).cross_entropy
    assert low <= pooled <= high or pooled == pytest.approx(low) or pooled == pytest.approx(high)


def test_perplexity_is_the_exponential_of_the_mean() -> None:
    assert LossSums(10 * math.log(7), 10).perplexity == pytest.approx(7, rel=1e-12)


def test_perplexity_that_no_float_holds_is_infinite() -> None:
    assert perplexity_of(709.0) < math.inf
    assert perplexity_of(710.0) == math.inf


def test_loss_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no token was scored"):
        _ = LossSums().cross_entropy
