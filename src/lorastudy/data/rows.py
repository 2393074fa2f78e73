"""Which tokens a model reads together, and which of them are scored; only integers.

A row is `[prefix] + tokens[begin:end]`; the prefix is optional. Its targets are
`tokens[scored_from:end]`, and everything before them is context. The first token of a row cannot
be scored. Where tokens carry marks, only those marked as scored are targets.
This module never looks at the tokens themselves, so every cut can be checked on paper:

    10 tokens, length 4, stride 2          10 tokens, length 4, stride 4
    0 1 2 3                 scores 1 2 3   0 1 2 3               scores 1 2 3
        2 3 4 5             scores 4 5             4 5 6 7       scores 5 6 7
            4 5 6 7         scores 6 7                     8 9   scores 9
                6 7 8 9     scores 8 9

Windows start at multiples of the stride, and the last one may be shorter, as in Hugging Face's
perplexity example. lm-evaluation-harness moves its last window back (`cut_rolling`).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorastudy.units import write_count

IntArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Marks:
    """What is known about every token of a corpus besides its id; arrays (n_tokens,)."""

    is_scored: NDArray[np.bool_]  # whether it may be a target
    classes: NDArray[np.uint8]  # its place in a tuple of names, such as ANSWER_CLASSES


@dataclass(frozen=True, eq=False)
class RowTable:
    """Rows over one token array, in the order in which they were cut; N rows, arrays (N,) int64.

    `documents[n]` is the document that row n was cut from. Lengths and counts include a prefix,
    since the model reads it. A prefix is never a target.
    """

    prefix: int | None  # token put before rows; None: rows start with their own first token
    begins: IntArray
    ends: IntArray
    scored_from: IntArray
    documents: IntArray
    has_prefix: NDArray[np.bool_] | None = None  # (N,); None: all rows, if there is a prefix
    marks: Marks | None = None  # of the tokens; None: every token from `scored_from` is a target

    def __post_init__(self) -> None:
        """Make the arrays int64, read-only, and check that each row scores a token."""
        all_or_none = np.full(len(self.begins), self.prefix is not None)
        chosen = all_or_none if self.has_prefix is None else np.array(self.has_prefix, dtype=bool)
        assert self.prefix is not None or not chosen.any(), "a prefix needs a token"
        chosen.setflags(write=False)
        object.__setattr__(self, "has_prefix", chosen)
        for name in ("begins", "ends", "scored_from", "documents"):
            values = np.asarray(getattr(self, name), dtype=np.int64).view()
            values.setflags(write=False)
            object.__setattr__(self, name, values)
            assert values.shape == self.begins.shape, name
        first = self.begins + ~chosen
        assert np.all(first <= self.scored_from), "a scored token needs something before it"
        assert np.all(self.n_scored > 0), "every row scores at least one token"

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.begins)

    @property
    def lengths(self) -> IntArray:
        """Number of tokens that the model reads in each row, including the prefix: (N,)."""
        assert self.has_prefix is not None
        return self.ends - self.begins + self.has_prefix

    @cached_property
    def n_scored(self) -> IntArray:
        """Number of targets of each row: (N,)."""
        if self.marks is None:
            return self.ends - self.scored_from
        return count_between(self.marks.is_scored, self.scored_from, self.ends)

    def n_tokens(self, rows: ArrayLike | slice = slice(None)) -> int:
        """Number of tokens in `rows`, with prefixes and without padding; all rows by default."""
        return int(self.lengths[_index(rows)].sum())

    def select(self, indices: ArrayLike | slice) -> "RowTable":
        """The rows `indices`, in that order; an index may be repeated."""
        chosen = _index(indices)
        assert self.has_prefix is not None
        return RowTable(
            prefix=self.prefix,
            begins=self.begins[chosen],
            ends=self.ends[chosen],
            scored_from=self.scored_from[chosen],
            documents=self.documents[chosen],
            has_prefix=self.has_prefix[chosen],
            marks=self.marks,
        )


def find_read_tokens(table: RowTable, n_tokens: int) -> NDArray[np.bool_]:
    """Which tokens of the corpus are in a row, (n_tokens,); rows may overlap."""
    # +1 where a row begins and -1 where one ends; a token is read while the sum is above 0
    borders = np.zeros(n_tokens + 1, dtype=np.int64)
    np.add.at(borders, table.begins, 1)
    np.add.at(borders, table.ends, -1)
    is_read: NDArray[np.bool_] = borders.cumsum()[:-1] > 0
    return is_read


def count_between(values: NDArray[np.bool_], begins: IntArray, ends: IntArray) -> IntArray:
    """How many of `values` are true from each of `begins` to before its end: (N,)."""
    before = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    counts: IntArray = before[ends] - before[begins]
    return counts


def cut_lines(offsets: ArrayLike, length: int, prefix: int | None) -> RowTable:
    """One row per document: its first `length` tokens, including the prefix; no more.

    A document with nothing to score gives no row: an empty document or, without a prefix, a
    document of a single token.

    Args:
        offsets: (n_documents + 1,) where each document begins in the token array.
        length: Largest number of tokens in a row, at least 2.
        prefix: Token put before every row, so that a document's first token becomes a target.
    """
    return _cut(offsets, length=length, stride=None, prefix=prefix)


def cut_windows(
    offsets: ArrayLike, *, length: int, stride: int, prefix: int | None = None
) -> RowTable:
    """Windows over each document separately; every token is scored once, in its first window.

    Window k of a document begins at its token k * stride and has at most `length` tokens,
    including the prefix. Only tokens that are in no earlier window are scored. The last window may
    be shorter. Without a prefix, the first token of a document has no context and is not scored;
    if stride == length, neither is the first token of any window. A window without a target is
    left out.

    Raises:
        ValueError: stride < 1, or so large that tokens between two windows would be skipped.
    """
    return _cut(offsets, length=length, stride=stride, prefix=prefix)


def cut_rolling(offsets: ArrayLike, length: int, prefix: int) -> RowTable:
    """Windows of lm-evaluation-harness over each document: `length` targets each, side by side.

    The first window reads the prefix and predicts the document's first `length` tokens. Each
    further window also reads the token before its targets, and predicts the next `length`. The
    last window predicts the remaining tokens. It is moved back until it also reads `length` tokens,
    so its targets have more context. A row has one token more than the model reads: its last
    target.

    Raises:
        ValueError: length < 1.
    """
    if length < 1:
        raise ValueError(f"length {length}: a window predicts at least 1 token")
    bounds = _checked_bounds(offsets)
    n_windows = -(-np.diff(bounds) // length)
    documents, rank = _number(n_windows)
    scored_from = bounds[documents] + rank * length
    ends = np.minimum(scored_from + length, bounds[documents + 1])
    begins = np.where(rank > 0, ends - length - 1, bounds[documents])
    return RowTable(prefix, begins, ends, scored_from, documents, rank == 0)


def cut_continuations(
    offsets: ArrayLike, n_context: ArrayLike, length: int, prefix: int
) -> RowTable:
    """One row per document, in which the tokens after its first `n_context` are scored.

    The model reads at most `length` tokens, not counting the last target; a longer document loses
    its beginning. The prefix is put only before documents without context.

    Raises:
        ValueError: A document has more than `length` targets, or none.
    """
    bounds, read = _checked_bounds(offsets), np.asarray(n_context, dtype=np.int64)
    n_targets = np.diff(bounds) - read
    if np.any(n_targets < 1) or np.any(n_targets > length):
        worst = int(np.argmax((n_targets < 1) | (n_targets > length)))
        raise ValueError(f"document {worst}: {n_targets[worst]} targets, not 1 to {length}")
    ends, scored_from = bounds[1:], bounds[:-1] + read
    has_prefix = read == 0
    begins = np.maximum(bounds[:-1], ends - length - 1 + has_prefix)
    return RowTable(prefix, begins, ends, scored_from, np.arange(len(ends)), has_prefix)


def cut_answers(offsets: ArrayLike, length: int, marks: Marks, *, drops_long: bool) -> RowTable:
    """One row per document, with the tokens that `marks` names as targets.

    A document of more than `length` tokens loses tokens from its beginning, so that every target
    stays; with `drops_long` it gives no row. Its first token has nothing before it and is no
    target.

    Raises:
        TooLongError: The targets of a document do not fit into a row with a token before them.
    """
    bounds = _checked_bounds(offsets)
    first_of = bounds[:-1]
    is_target = marks.is_scored.copy()
    is_target[first_of[np.diff(bounds) > 0]] = False
    places = np.flatnonzero(is_target)
    # the first target at or after the beginning of each document
    nearest = np.append(places, bounds[-1])[np.searchsorted(places, first_of)]
    begins = np.maximum(first_of, bounds[1:] - length)
    has_target, is_long = nearest < bounds[1:], np.diff(bounds) > length
    documents = np.flatnonzero(has_target & ~is_long if drops_long else has_target)
    too_long = documents[nearest[documents] <= begins[documents]]
    if len(too_long):
        raise TooLongError(too_long, bounds[too_long + 1] - nearest[too_long] + 1)
    return RowTable(
        None, begins[documents], bounds[documents + 1], nearest[documents], documents, marks=marks
    )


class TooLongError(ValueError):
    """Documents whose targets need longer rows; both arrays (n,)."""

    def __init__(self, documents: IntArray, needed: IntArray) -> None:
        super().__init__(
            f"{write_count(len(documents), 'document')} with targets that do not fit into a row"
        )
        self.documents = documents  # from 0
        self.needed = needed  # tokens of a row that would hold the targets of each


def cut_stream(offsets: ArrayLike, length: int) -> RowTable:
    """Disjoint rows of exactly `length` tokens over each (joined) document, for training.

    The first token of a row is only context. The rest at the end of a document is too short for a
    row and is left out, so a document shorter than `length` gives no row.
    """
    table = _cut(offsets, length=length, stride=length, prefix=None)
    return table.select(np.flatnonzero(table.lengths == length))


def _cut(offsets: ArrayLike, *, length: int, stride: int | None, prefix: int | None) -> RowTable:
    """All windows of all documents; stride None: only the first window of each document."""
    bounds = _checked_bounds(offsets)
    room = _room(length, prefix)
    step = _checked_stride(room if stride is None else stride, room)
    sizes = np.diff(bounds)
    # ceil((size - room) / step) windows follow the first one; an empty document has no window
    n_windows = np.where(sizes > 0, 1 + np.maximum(0, -((room - sizes) // step)), 0)
    if stride is None:
        n_windows = np.minimum(n_windows, 1)
    documents, rank = _number(n_windows)
    begins = bounds[documents] + rank * step
    ends = np.minimum(begins + room, bounds[documents + 1])
    already_scored = np.where(rank > 0, begins - step + room, begins)
    scored_from = np.maximum(already_scored, begins + (prefix is None))
    keep = np.flatnonzero(scored_from < ends)
    return RowTable(prefix, begins[keep], ends[keep], scored_from[keep], documents[keep])


def _checked_bounds(offsets: ArrayLike) -> IntArray:
    bounds = np.asarray(offsets, dtype=np.int64)
    assert bounds.ndim == 1 and len(bounds) > 0 and bounds[0] >= 0, "offsets: (n_documents + 1,)"
    assert np.all(np.diff(bounds) >= 0), "offsets never fall"
    return bounds


def _number(n_windows: IntArray) -> tuple[IntArray, IntArray]:
    """For each window its document, and its number in that document, from 0."""
    documents = np.repeat(np.arange(len(n_windows)), n_windows)
    rank = np.arange(len(documents)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    return documents, rank


def _room(length: int, prefix: int | None) -> int:
    if length < 2:
        raise ValueError(f"length {length}: a row needs at least 2 tokens, one to predict another")
    return length if prefix is None else length - 1


def _checked_stride(stride: int, room: int) -> int:
    if not 1 <= stride <= room:
        raise ValueError(
            f"stride {stride}: windows have {room} tokens of a document, so a stride "
            f"from 1 to {room} is needed; a larger one would leave tokens out"
        )
    return stride


def _index(rows: ArrayLike | slice) -> slice | NDArray[np.intp]:
    return rows if isinstance(rows, slice) else np.asarray(rows, dtype=np.intp).reshape(-1)
