"""Rows as tensors: padding, masks and targets against tensors written out by hand."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorastudy.data.batches import (
    Batch,
    Padding,
    count_scored,
    cut_by_budget,
    cut_by_length,
    make_batch,
)
from lorastudy.data.rows import RowTable, cut_lines, cut_windows
from lorastudy.loss import IGNORE_INDEX

P, _ = 9, IGNORE_INDEX  # the padding id, and how a position that is not scored is written here
TOKENS = np.array([1, 2, 3, 4, 5, 6, 7])
OFFSETS = [0, 2, 3, 7]  # documents 1 2 | 3 | 4 5 6 7


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers)


def written_out(batch: Batch) -> tuple[list[list[int]], list[list[int]]]:
    return batch.input_ids.tolist(), batch.targets.tolist()


def test_masked_rows_are_padded_to_the_longest_of_the_batch() -> None:
    table = cut_lines(OFFSETS, 10, P)
    batch = make_batch(TOKENS, table, rows(0, 1, 2), Padding(P))
    assert written_out(batch) == (
        [[P, 1, 2, P], [P, 3, P, P], [P, 4, 5, 6]],
        [[1, 2, _, _], [3, _, _, _], [4, 5, 6, 7]],
    )
    assert batch.attention_mask is None
    assert batch.n_scored == 7


def test_rows_come_in_the_order_asked_for() -> None:
    table = cut_lines(OFFSETS, 10, P)
    batch = make_batch(TOKENS, table, rows(1, 0), Padding(P))
    assert written_out(batch) == ([[P, 3], [P, 1]], [[3, _], [1, 2]])
    assert batch.rows.tolist() == [1, 0]


def test_without_prefix_the_first_token_is_context_only() -> None:
    table = cut_lines(OFFSETS, 10, None)  # the document of one token gives no row
    batch = make_batch(TOKENS, table, rows(0, 1), Padding(P))
    assert written_out(batch) == ([[1, 2, P], [4, 5, 6]], [[2, _, _], [5, 6, 7]])


def test_context_of_a_window_is_read_but_not_scored() -> None:
    tokens = np.arange(10, 18)
    table = cut_windows([0, 8], length=5, stride=2)
    batch = make_batch(tokens, table, rows(0, 1, 2), Padding(P))
    assert written_out(batch) == (
        [[10, 11, 12, 13], [12, 13, 14, 15], [14, 15, 16, 17]],
        [[11, 12, 13, 14], [_, _, 15, 16], [_, _, 17, _]],
    )
    assert batch.n_scored == 7


def test_prefix_stands_before_every_window_of_a_document() -> None:
    table = cut_windows([0, 5], length=4, stride=3, prefix=8)
    batch = make_batch(TOKENS, table, rows(0, 1), Padding(P))
    assert written_out(batch) == ([[8, 1, 2], [8, 4, 5]], [[1, 2, 3], [4, 5, _]])


def test_scored_rows_have_the_full_length_and_padding_as_targets() -> None:
    table = cut_lines(OFFSETS, 4, P)  # the third document loses its last token
    batch = make_batch(TOKENS, table, rows(0, 1, 2), Padding(P, scored_length=4))
    assert written_out(batch) == (
        [[P, 1, 2, P], [P, 3, P, P], [P, 4, 5, 6]],
        [[1, 2, P, _], [3, P, P, _], [4, 5, 6, _]],
    )
    assert batch.n_scored == 9


def test_scored_rows_hide_every_padding_id_and_so_the_first_position() -> None:
    table = cut_lines(OFFSETS, 4, P)
    batch = make_batch(TOKENS, table, rows(0, 2), Padding(P, scored_length=4))
    assert batch.attention_mask is not None
    assert batch.attention_mask.tolist() == [[0, 1, 1, 0], [0, 1, 1, 1]]


def test_padding_is_told_by_length_where_a_document_holds_the_padding_id() -> None:
    table = cut_lines([0, 3, 7], 10, P)
    batch = make_batch(np.array([1, P, P, 4, P, 6, 7]), table, rows(0, 1), Padding(P))
    assert written_out(batch) == (
        [[P, 1, P, P], [P, 4, P, 6]],
        [[1, P, P, _], [4, P, 6, 7]],
    )


def test_batch_keeps_its_counts_on_another_device() -> None:
    table = cut_lines(OFFSETS, 4, P)
    batch = make_batch(TOKENS, table, rows(0, 2), Padding(P, scored_length=4))
    moved = batch.to(torch.device("meta"))
    assert {t.device.type for t in (moved.input_ids, moved.attention_mask, moved.targets)} == {
        "meta"
    }
    assert (moved.n_scored, moved.rows.tolist()) == (6, [0, 2])


@st.composite
def corpora(draw: st.DrawFn) -> tuple[np.ndarray, RowTable]:
    """Some documents out of three ids, of which one also pads, as lines or windows."""
    sizes = draw(st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any))
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    tokens = draw(st.lists(st.sampled_from([1, 2, P]), min_size=sum(sizes), max_size=sum(sizes)))
    length = draw(st.integers(3, 8))
    if draw(st.booleans()):
        return np.array(tokens), cut_lines(offsets, length, P)
    stride = draw(st.integers(1, length - 1))
    return np.array(tokens), cut_windows(offsets, length=length, stride=stride, prefix=P)


@given(corpora())
def test_targets_of_masked_rows_are_the_scored_tokens_and_nothing_else(
    corpus: tuple[np.ndarray, RowTable],
) -> None:
    tokens, table = corpus
    batch = make_batch(tokens, table, np.arange(table.n_rows), Padding(P))
    for row, targets in enumerate(batch.targets):
        expected = tokens[table.scored_from[row] : table.ends[row]].tolist()
        assert targets[targets != IGNORE_INDEX].tolist() == expected


@given(corpora(), st.booleans())
def test_scored_targets_are_counted_without_the_batch(
    corpus: tuple[np.ndarray, RowTable], scores_padding: bool
) -> None:
    tokens, table = corpus
    padding = Padding(P, 8 if scores_padding else None)
    batch = make_batch(tokens, table, np.arange(table.n_rows), padding)
    n_targets = int((batch.targets != IGNORE_INDEX).sum())
    assert n_targets == batch.n_scored == count_scored(table, batch.rows, padding)


@given(corpora(), st.integers(1, 40))
def test_parts_by_length_hold_every_row_once_longest_first(
    corpus: tuple[np.ndarray, RowTable], max_positions: int
) -> None:
    tokens, table = corpus
    parts = cut_by_length(table, Padding(P), max_positions=max_positions)
    batches = [make_batch(tokens, table, part, Padding(P)) for part in parts]
    together = np.concatenate(parts)
    assert sorted(together) == list(range(table.n_rows))
    assert np.all(np.diff(table.lengths[together]) <= 0)
    for batch in batches:
        assert batch.input_ids.numel() <= max_positions or len(batch.rows) == 1


def test_budget_is_counted_on_paper() -> None:
    table = cut_lines(OFFSETS, 10, P)  # rows of 3, 2 and 5 tokens
    parts = {
        budget: cut_by_budget(table, rows(0, 1, 2), Padding(P), budget) for budget in (1, 5, 7)
    }
    assert [part.tolist() for part in parts[1]] == [[0], [1], [2]]
    assert [part.tolist() for part in parts[5]] == [[0, 1], [2]]
    assert [part.tolist() for part in parts[7]] == [[0, 1], [2]]
    scored = cut_by_budget(table, rows(0, 1, 2), Padding(P, 10), 20)
    assert [part.tolist() for part in scored] == [[0, 1], [2]]
    (whole,) = cut_by_budget(table, rows(2, 0), Padding(P), None)
    assert whole.tolist() == [2, 0]


def test_batch_says_how_much_of_a_row_is_read() -> None:
    table = cut_lines(OFFSETS, 10, P)
    assert make_batch(TOKENS, table, rows(0, 2), Padding(P)).n_read.tolist() == [2, 4]
    assert make_batch(TOKENS, table, rows(0, 2), Padding(P, 10)).n_read.tolist() == [9, 9]
    assert make_batch(TOKENS, table, rows(0, 2), Padding(P)).scored.tolist() == [0, 1, 4, 5, 6, 7]
