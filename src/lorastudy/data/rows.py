"""Which tokens a model reads together, and which of them are scored: integers only.

A row is `[prefix] + tokens[begin:end]`. Its targets are `tokens[scored_from:end]`; whatever
stands before is context. A token without anything before it in its row cannot be scored.
Nothing here reads a token, so every cut can be checked on paper:

    10 tokens, length 4, stride 2          10 tokens, length 4, stride 4
    0 1 2 3                 scores 1 2 3   0 1 2 3               scores 1 2 3
        2 3 4 5             scores 4 5             4 5 6 7       scores 5 6 7
            4 5 6 7         scores 6 7                     8 9   scores 9
                6 7 8 9     scores 8 9

Windows start at multiples of the stride and the last one is short, as in Hugging Face's
perplexity example; lm-evaluation-harness moves its last window back instead.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

IntArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RowTable:
    """Rows over one token array, in the order in which they were cut; N rows, arrays (N,) int64.

    `documents[n]` is the document that row n was cut from. Lengths and counts include the
    prefix where there is one, since the model reads it; a prefix is never a target.
    """

    prefix: int | None  # token before every row; None: rows start with their own first token
    begins: IntArray
    ends: IntArray
    scored_from: IntArray
    documents: IntArray

    def __post_init__(self) -> None:
        """Make the arrays int64, read-only, and check that each row scores a token."""
        for name in ("begins", "ends", "scored_from", "documents"):
            values = np.asarray(getattr(self, name), dtype=np.int64).view()
            values.setflags(write=False)
            object.__setattr__(self, name, values)
            assert values.shape == self.begins.shape, name
        first = self.begins if self.prefix is not None else self.begins + 1
        assert np.all(first <= self.scored_from), "a scored token needs something before it"
        assert np.all(self.scored_from < self.ends), "every row scores at least one token"

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.begins)

    @property
    def lengths(self) -> IntArray:
        """Tokens the model reads in each row, prefix included: (N,)."""
        return self.ends - self.begins + (self.prefix is not None)

    @property
    def n_scored(self) -> IntArray:
        """Targets of each row: (N,)."""
        return self.ends - self.scored_from

    def n_tokens(self, rows: ArrayLike | slice = slice(None)) -> int:
        """Tokens in `rows` together, prefix included, padding not; all rows by default."""
        return int(self.lengths[_index(rows)].sum())

    def select(self, indices: ArrayLike | slice) -> "RowTable":
        """The rows `indices`, in that order; an index may come up more than once."""
        chosen = _index(indices)
        return RowTable(
            prefix=self.prefix,
            begins=self.begins[chosen],
            ends=self.ends[chosen],
            scored_from=self.scored_from[chosen],
            documents=self.documents[chosen],
        )


def cut_lines(offsets: ArrayLike, length: int, prefix: int | None) -> RowTable:
    """One row a document: its first `length` tokens, prefix included; the rest is left out.

    A document that leaves nothing to score gives no row: an empty one, or without a prefix
    one of a single token.

    Args:
        offsets: (n_documents + 1,) where each document begins in the token array.
        length: Most tokens in a row, at least 2.
        prefix: Token put before every row, which makes a document's first token a target.
    """
    return _cut(offsets, length=length, stride=None, prefix=prefix)


def cut_windows(
    begin: int, end: int, length: int, stride: int, *, prefix: int | None = None
) -> RowTable:
    """Windows over the one document `tokens[begin:end]`; see `cut_document_windows`."""
    return cut_document_windows([begin, end], length=length, stride=stride, prefix=prefix)


def cut_document_windows(
    offsets: ArrayLike, *, length: int, stride: int, prefix: int | None = None
) -> RowTable:
    """Windows over each document for itself: every token is scored once, with the most context.

    Window k of a document begins at its token k * stride, holds at most `length` tokens
    (prefix included) and scores what no window before it holds. The last one is short.
    Without a prefix the first token of a document has no context and is not scored; nor is
    the first token of any window where stride == length. A window without a target is left out.

    Raises:
        ValueError: stride < 1, or so large that tokens between two windows would be skipped.
    """
    return _cut(offsets, length=length, stride=stride, prefix=prefix)


def cut_stream(offsets: ArrayLike, length: int) -> RowTable:
    """Disjoint rows of exactly `length` tokens over each (joined) document, for training.

    The first token of a row is context only. What is left at the end of a document is too
    short for a row and is left out, so a document shorter than `length` gives none.
    """
    table = _cut(offsets, length=length, stride=length, prefix=None)
    return table.select(np.flatnonzero(table.lengths == length))


def _cut(offsets: ArrayLike, *, length: int, stride: int | None, prefix: int | None) -> RowTable:
    """All windows of all documents; stride None: the first window of each document only."""
    bounds = np.asarray(offsets, dtype=np.int64)
    assert bounds.ndim == 1 and len(bounds) > 0 and bounds[0] >= 0, "offsets: (n_documents + 1,)"
    assert np.all(np.diff(bounds) >= 0), "offsets never fall"
    room = _room(length, prefix)
    step = _checked_stride(room if stride is None else stride, room)
    sizes = np.diff(bounds)
    # ceil((size - room) / step) windows follow the first one, which an empty document lacks too
    n_windows = np.where(sizes > 0, 1 + np.maximum(0, -((room - sizes) // step)), 0)
    if stride is None:
        n_windows = np.minimum(n_windows, 1)
    documents = np.repeat(np.arange(len(sizes)), n_windows)
    rank = np.arange(len(documents)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    begins = bounds[documents] + rank * step
    ends = np.minimum(begins + room, bounds[documents + 1])
    already_scored = np.where(rank > 0, begins - step + room, begins)
    scored_from = np.maximum(already_scored, begins + (prefix is None))
    keep = np.flatnonzero(scored_from < ends)
    return RowTable(prefix, begins[keep], ends[keep], scored_from[keep], documents[keep])


def _room(length: int, prefix: int | None) -> int:
    if length < 2:
        raise ValueError(f"length {length}: a row needs at least 2 tokens, one to predict another")
    return length if prefix is None else length - 1


def _checked_stride(stride: int, room: int) -> int:
    if not 1 <= stride <= room:
        raise ValueError(
            f"stride {stride}: windows hold {room} tokens of a document, so a stride "
            f"from 1 to {room} is needed; a larger one would leave tokens out"
        )
    return stride


def _index(rows: ArrayLike | slice) -> slice | NDArray[np.intp]:
    return rows if isinstance(rows, slice) else np.asarray(rows, dtype=np.intp).reshape(-1)
