"""Rows that an epoch draws from several sources, beside the endless sequences they come from."""

from collections.abc import Iterator
from itertools import count, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorastudy.data.mixture import Share, copy_rows, draw_copies, share_epoch
from lorastudy.data.steps import StepPlan
from lorastudy.seeds import open_stream
from lorastudy.store.counts import MixedRows

SOURCES = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 40)), min_size=2, max_size=3)


def endless(seed: int, source: int, n_rows: int) -> Iterator[int]:
    for number in count():
        yield from open_stream(seed, "mixture", source, number).permutation(n_rows).tolist()


@given(SOURCES, st.integers(1, 6), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_epochs_continue_the_endless_sequence_of_each_source(
    sources: list[tuple[int, int]], epoch: int, seed: int
) -> None:
    shares = tuple(Share(*source) for source in sources)
    rows, drawn = copy_rows(shares), draw_copies(seed, epoch, shares)
    expected: list[int] = []
    for source, share in enumerate(shares):
        begin, first = sum(s.n_rows for s in shares[:source]), (epoch - 1) * share.n_drawn
        of_source = islice(endless(seed, source, share.n_rows), first, first + share.n_drawn)
        expected += [begin + row for row in of_source]
    assert rows[drawn].tolist() == expected
    assert len(set(drawn.tolist())) == len(drawn)  # a row that repeats is another copy


@given(st.lists(st.tuples(st.floats(0.01, 1), st.integers(1, 500)), min_size=2, max_size=4))
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_as_many_rows_as_all_sources_shared_out_by_weight(
    sources: list[tuple[float, int]],
) -> None:
    total = sum(weight for weight, _ in sources)
    weights, n_rows = [weight / total for weight, _ in sources], [n for _, n in sources]
    shares = share_epoch(weights, n_rows)
    assert sum(share.n_drawn for share in shares) == sum(n_rows)
    for weight, share in zip(weights, shares, strict=True):
        assert abs(share.n_drawn - weight * sum(n_rows)) < 1


def test_the_source_that_rounding_took_most_from_gets_the_row_that_is_left() -> None:
    assert [share.n_drawn for share in share_epoch((0.15, 0.85), (2, 2))] == [1, 3]  # 0.6, 3.4


def test_micro_batches_of_a_mixture_are_its_epoch_in_the_drawn_order() -> None:
    shares = (Share(3, 5), Share(9, 4))
    plan = StepPlan(9, 2, rows_per_step=4, micro_batch=2, first_group="full", seed=7, shares=shares)
    epoch = [plan.rows_of(index) for index in range(5, 10)]
    assert np.concatenate(epoch).tolist() == plan.order_of(2).tolist()
    assert sorted(plan.order_of(2).tolist()) == sorted(draw_copies(7, 2, shares).tolist())
    assert plan.order_of(2).tolist() != draw_copies(7, 2, shares).tolist()


@pytest.mark.parametrize(
    ("n_drawn", "times", "says"),
    [
        (4, {0, 1, 2}, "a part of its 6; the next epoch goes on with the rest"),
        (6, {1}, "each of its 6 rows once"),
        (8, {0, 1, 2}, "each of its 6 rows 1.33 times on average"),
        (10, {1, 2, 3}, "each of its 6 rows 1.67 times on average"),
        (12, {2}, "each of its 6 rows 2 times"),
    ],
)
def test_how_often_rows_repeat_is_said_of_every_epoch(
    n_drawn: int, times: set[int], says: str
) -> None:
    share = Share(6, n_drawn)
    epochs = [copy_rows((share,))[draw_copies(0, epoch, (share,))] for epoch in range(1, 9)]
    assert {n for rows in epochs for n in np.bincount(rows, minlength=6).tolist()} == times
    assert str(MixedRows("a", 0.5, share.n_rows, share.n_drawn)).endswith(says)
