"""Windows and rows against lists written out by hand."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorastudy.data.rows import (
    RowTable,
    cut_continuations,
    cut_lines,
    cut_rolling,
    cut_stream,
    cut_windows,
)

PREFIX = 99


def written_out(table: RowTable) -> list[tuple[list[int], list[int]]]:
    """Each row as (tokens it holds, tokens it scores), the token array being 0, 1, 2, ..."""
    return [
        (list(range(begin, end)), list(range(scored, end)))
        for begin, end, scored in zip(table.begins, table.ends, table.scored_from, strict=True)
    ]


def test_stride_of_half_a_window_scores_the_second_half() -> None:
    assert written_out(cut_windows([0, 10], length=4, stride=2)) == [
        ([0, 1, 2, 3], [1, 2, 3]),
        ([2, 3, 4, 5], [4, 5]),
        ([4, 5, 6, 7], [6, 7]),
        ([6, 7, 8, 9], [8, 9]),
    ]


def test_stride_of_a_whole_window_gives_disjoint_windows_and_a_short_remainder() -> None:
    assert written_out(cut_windows([0, 10], length=4, stride=4)) == [
        ([0, 1, 2, 3], [1, 2, 3]),
        ([4, 5, 6, 7], [5, 6, 7]),
        ([8, 9], [9]),
    ]


def test_remainder_of_a_sliding_window_keeps_only_the_context_of_its_stride() -> None:
    assert written_out(cut_windows([0, 8], length=5, stride=2)) == [
        ([0, 1, 2, 3, 4], [1, 2, 3, 4]),
        ([2, 3, 4, 5, 6], [5, 6]),
        ([4, 5, 6, 7], [7]),
    ]


def test_prefix_takes_one_place_and_makes_the_first_token_a_target() -> None:
    table = cut_windows([0, 7], length=4, stride=3, prefix=PREFIX)
    assert written_out(table) == [
        ([0, 1, 2], [0, 1, 2]),
        ([3, 4, 5], [3, 4, 5]),
        ([6], [6]),
    ]
    assert table.lengths.tolist() == [4, 4, 2]


def test_windows_begin_inside_the_token_array() -> None:
    assert written_out(cut_windows([3, 8], length=4, stride=4)) == [([3, 4, 5, 6], [4, 5, 6])]


def test_document_as_long_as_the_window_is_one_window() -> None:
    assert written_out(cut_windows([0, 4], length=4, stride=1)) == [([0, 1, 2, 3], [1, 2, 3])]


def test_no_window_crosses_a_document() -> None:
    table = cut_windows([0, 5, 5, 6, 9], length=3, stride=2)
    assert written_out(table) == [
        ([0, 1, 2], [1, 2]),
        ([2, 3, 4], [3, 4]),
        ([6, 7, 8], [7, 8]),
    ]
    assert table.documents.tolist() == [0, 0, 3]


def test_lines_are_cut_to_the_length_with_the_prefix_counted() -> None:
    table = cut_lines([0, 2, 8, 8, 9], 4, PREFIX)
    assert written_out(table) == [([0, 1], [0, 1]), ([2, 3, 4], [2, 3, 4]), ([8], [8])]
    assert table.lengths.tolist() == [3, 4, 2]
    assert table.n_scored.tolist() == [2, 3, 1]
    assert table.documents.tolist() == [0, 1, 3]


def test_lines_without_prefix_leave_out_a_document_with_nothing_to_score() -> None:
    table = cut_lines([0, 1, 1, 6], 4, None)
    assert written_out(table) == [([1, 2, 3, 4], [2, 3, 4])]


def test_stream_is_cut_into_disjoint_windows_whose_first_token_is_not_scored() -> None:
    assert written_out(cut_stream([0, 9], 4)) == [
        ([0, 1, 2, 3], [1, 2, 3]),
        ([4, 5, 6, 7], [5, 6, 7]),
    ]


def test_rolling_windows_are_those_of_the_example_of_lm_evaluation_harness() -> None:
    """Its docstring of `loglikelihood_rolling`: tokens 0 to 9, most context 4."""
    table = cut_rolling([0, 10], 4, PREFIX)
    assert written_out(table) == [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([3, 4, 5, 6, 7], [4, 5, 6, 7]),
        ([5, 6, 7, 8, 9], [8, 9]),
    ]
    assert table.has_prefix is not None
    assert table.has_prefix.tolist() == [True, False, False]
    assert table.lengths.tolist() == [5, 5, 5]  # 4 that are read, and the last target


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, []),
        (1, [([0], [0])]),
        (3, [([0, 1, 2], [0, 1, 2])]),
        (4, [([0, 1, 2], [0, 1, 2]), ([0, 1, 2, 3], [3])]),
        (6, [([0, 1, 2], [0, 1, 2]), ([2, 3, 4, 5], [3, 4, 5])]),
    ],
)
def test_rolling_windows_of_short_documents(size: int, expected: list) -> None:
    assert written_out(cut_rolling([0, size], 3, PREFIX)) == expected


def test_rolling_windows_stay_in_their_document() -> None:
    table = cut_rolling([0, 2, 2, 7], 3, PREFIX)
    assert written_out(table) == [
        ([0, 1], [0, 1]),
        ([2, 3, 4], [2, 3, 4]),
        ([3, 4, 5, 6], [5, 6]),
    ]
    assert table.documents.tolist() == [0, 2, 2]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 9))
def test_rolling_windows_score_each_token_once_and_read_no_more_than_fits(
    sizes: list[int], length: int
) -> None:
    offsets = np.cumsum([0, *sizes])
    table = cut_rolling(offsets, length, PREFIX)
    assert [t for _, targets in written_out(table) for t in targets] == list(range(offsets[-1]))
    assert all(table.lengths <= length + 1)


def test_continuations_score_what_follows_the_context() -> None:
    table = cut_continuations([0, 4, 6, 9], [3, 0, 1], 10, PREFIX)
    assert written_out(table) == [
        ([0, 1, 2, 3], [3]),
        ([4, 5], [4, 5]),
        ([6, 7, 8], [7, 8]),
    ]
    assert table.has_prefix is not None
    assert table.has_prefix.tolist() == [False, True, False]


def test_continuation_of_a_long_context_loses_its_beginning() -> None:
    assert written_out(cut_continuations([0, 9], [7], 4, PREFIX)) == [([4, 5, 6, 7, 8], [7, 8])]


@pytest.mark.parametrize("n_context", [4, 0])
def test_continuation_without_a_target_or_with_too_many_is_refused(n_context: int) -> None:
    with pytest.raises(ValueError, match="document 0"):
        cut_continuations([0, 4], [n_context], 3, PREFIX)


def test_row_with_a_prefix_that_the_table_lacks_is_our_own_mistake() -> None:
    zero = np.zeros(1, np.int64)
    with pytest.raises(AssertionError, match="prefix"):
        RowTable(None, zero, zero + 2, zero + 1, zero, np.array([True]))


def test_selection_keeps_which_rows_have_a_prefix() -> None:
    table = cut_rolling([0, 10], 4, PREFIX).select([2, 0])
    assert table.has_prefix is not None
    assert table.has_prefix.tolist() == [False, True]


def test_selection_keeps_its_order() -> None:
    table = cut_lines([0, 2, 5, 9], 10, PREFIX).select([2, 0])
    assert table.documents.tolist() == [2, 0]
    assert table.prefix == PREFIX
    assert table.n_tokens() == 8
    assert table.n_tokens([1]) == 3


def test_selecting_no_rows_is_an_empty_table() -> None:
    table = cut_lines([0, 2], 10, None).select([])
    assert (table.n_rows, table.n_tokens()) == (0, 0)


def test_arrays_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        cut_lines([0, 2], 10, None).begins[0] = 1


@pytest.mark.parametrize(("stride", "prefix"), [(0, None), (5, None), (-1, None), (4, PREFIX)])
def test_stride_that_skips_tokens_is_refused(stride: int, prefix: int | None) -> None:
    with pytest.raises(ValueError, match="stride"):
        cut_windows([0, 10], length=4, stride=stride, prefix=prefix)


@pytest.mark.parametrize("cut", [lambda: cut_lines([0, 3], 1, None), lambda: cut_stream([0, 3], 1)])
def test_length_without_room_for_a_target_is_refused(cut: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="length 1"):
        cut()


def test_row_without_context_for_its_target_is_our_own_mistake() -> None:
    zero = np.zeros(1, np.int64)
    with pytest.raises(AssertionError, match="before it"):
        RowTable(None, zero, zero + 2, zero, zero)


SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=6)


@given(SIZES, st.integers(2, 12), st.data(), st.booleans())
def test_each_token_is_scored_exactly_once(
    sizes: list[int], length: int, data: st.DataObject, with_prefix: bool
) -> None:
    room = length - with_prefix
    stride = data.draw(st.integers(1, room))
    offsets = np.cumsum([0, *sizes])
    table = cut_windows(
        offsets, length=length, stride=stride, prefix=PREFIX if with_prefix else None
    )
    scored = [token for _, targets in written_out(table) for token in targets]
    heads = {
        token
        for begin, end in itertools.pairwise(offsets)
        for token in range(begin, end, stride if stride == room else end - begin or 1)
    }
    expected = set(range(offsets[-1])) - (set() if with_prefix else heads)
    assert sorted(scored) == sorted(expected)
    assert all(table.lengths <= length)


@given(st.integers(1, 60), st.integers(2, 12), st.data())
def test_token_is_scored_by_the_window_that_gives_it_the_most_context(
    n: int, length: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, length))
    table = cut_windows([0, n], length=length, stride=stride)
    for begin, end, scored in zip(table.begins, table.ends, table.scored_from, strict=True):
        for token in range(scored, end):
            holding = [k for k in range(0, n, stride) if k <= token < k + length]
            assert begin == min(holding)


@given(SIZES, st.integers(2, 12), st.sampled_from([None, PREFIX]))
def test_lines_are_the_first_window_of_each_document(
    sizes: list[int], length: int, prefix: int | None
) -> None:
    offsets = np.cumsum([0, *sizes])
    lines = cut_lines(offsets, length, prefix)
    windows = cut_windows(offsets, length=length, stride=1, prefix=prefix)
    first = [n for n, begin in enumerate(windows.begins) if begin == offsets[windows.documents[n]]]
    assert written_out(lines) == written_out(windows.select(first))
