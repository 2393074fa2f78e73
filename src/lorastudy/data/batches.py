"""Rows of token ids as tensors, where padding is recognised by length.

Shapes: B = rows of the batch, T = positions, S = scored targets.

"masked": rows are padded on the right to the longest row of the batch, and padding is never
scored. Attention is causal, so text positions never see padding and no mask is needed.
"scored": the batch of the published study. Every row is padded to the full length, padding is a
target like any other, and the attention mask is (token != padding id). The mask also hides the
first position if the start token and the padding have the same id.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lorastudy.data.rows import IntArray, RowTable
from lorastudy.loss import IGNORE_INDEX


@dataclass(frozen=True, slots=True)
class Padding:
    """How rows become rectangles."""

    id: int
    scored_length: int | None = None  # "scored": pad to this; None: "masked"


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch; targets[b, t] follows input_ids[b, t]."""

    input_ids: Tensor  # (B, T) int64
    attention_mask: Tensor | None  # (B, T) int64, 1 = may be attended to; None: only causal
    targets: Tensor  # (B, T) int64, IGNORE_INDEX where not scored
    scored: IntArray  # (S,) indices of scored targets in the flattened (B, T); stays on the CPU
    n_read: IntArray  # (B,) number of positions of each row on which a scored target depends
    rows: IntArray  # (B,) numbers in the row table

    @property
    def n_scored(self) -> int:
        """Scored targets."""
        return len(self.scored)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`."""
        mask = self.attention_mask
        return Batch(
            self.input_ids.to(device, non_blocking=True),
            None if mask is None else mask.to(device, non_blocking=True),
            self.targets.to(device, non_blocking=True),
            self.scored,
            self.n_read,
            self.rows,
        )


def make_batch(tokens: IntArray, table: RowTable, rows: IntArray, padding: Padding) -> Batch:
    """The batch of `rows`; `tokens` is the flat corpus."""
    if padding.scored_length is None:
        return _masked_batch(tokens, table, rows, padding)
    return _scored_batch(tokens, table, rows, padding.id, padding.scored_length)


def count_scored(table: RowTable, rows: IntArray, padding: Padding) -> int:
    """The number of targets of `rows`, without making the batch."""
    if padding.scored_length is None:
        return int(table.n_scored[rows].sum())
    return len(rows) * (padding.scored_length - 1)


def cut_by_budget(
    table: RowTable, rows: IntArray, padding: Padding, budget: int | None
) -> list[IntArray]:
    """`rows` in order, in parts of at most `budget` tokens each, but at least one row.

    None: all rows in one part. If padding is scored, it counts as part of the rows.
    """
    if budget is None:
        return [rows]
    lengths = table.lengths[rows] if padding.scored_length is None else None
    ends = np.cumsum(lengths if lengths is not None else [padding.scored_length] * len(rows))
    parts, begin = [], 0
    while begin < len(rows):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + budget, side="right")))
        parts.append(rows[begin:end])
        begin = end
    return parts


def cut_by_length(table: RowTable, padding: Padding, *, max_positions: int) -> list[IntArray]:
    """All rows, longest first, in parts of at most `max_positions` positions or one row.

    The longest rows come first, so that a lack of memory shows at once.
    """
    order = np.argsort(-table.lengths, kind="stable")
    parts: list[IntArray] = []
    begin = 0
    while begin < len(order):
        width = padding.scored_length or int(table.lengths[order[begin]])
        n_rows = max(1, max_positions // width)
        parts.append(order[begin : begin + n_rows])
        begin += n_rows
    return parts


def _fill(tokens: IntArray, table: RowTable, rows: IntArray, width: int, pad: int) -> IntArray:
    """Rows with their prefix, padded on the right to `width`: (B, width)."""
    filled = np.full((len(rows), width), pad, dtype=np.int64)
    lengths = table.lengths
    for b, row in enumerate(rows):
        text = tokens[table.begins[row] : table.ends[row]]
        start = lengths[row] - len(text)  # 1 where a prefix stands before it
        if start and table.prefix is not None:
            filled[b, 0] = table.prefix
        filled[b, start : start + len(text)] = text
    return filled


def _places(table: RowTable, rows: IntArray, position: IntArray) -> IntArray:
    """Where in the corpus the token at each of `position` of each row is, (B, T).

    Positions behind the end of a row are given its last token.
    """
    assert table.has_prefix is not None
    first = table.begins[rows] - table.has_prefix[rows]
    places: IntArray = np.minimum(first[:, None] + position, table.ends[rows][:, None] - 1)
    return places


def classes_of_targets(batch: Batch, table: RowTable) -> IntArray:
    """For each scored target of a batch its class, (S,), row by row.

    Marked tokens have the class of their mark. Others are the first token of a row (0), text (1),
    the first padding (2) or other padding (3).
    """
    b, t = np.divmod(batch.scored, batch.targets.shape[1])
    position = t + 1  # of the target in its row
    if table.marks is not None:
        assert table.has_prefix is not None
        rows = batch.rows[b]
        places = table.begins[rows] - table.has_prefix[rows] + position
        marked: IntArray = table.marks.classes[places].astype(np.int64)
        return marked
    lengths = table.lengths[batch.rows][b]  # tokens of the row, including the start token
    classes = np.ones(len(b), dtype=np.int64)
    classes[position == 1] = 0
    classes[position == lengths] = 2
    classes[position > lengths] = 3
    return classes


def _masked_batch(tokens: IntArray, table: RowTable, rows: IntArray, padding: Padding) -> Batch:
    lengths = table.lengths[rows]
    filled = _fill(tokens, table, rows, int(lengths.max()), padding.id)
    position = np.arange(1, filled.shape[1])  # of the target
    n_context = lengths - (table.ends - table.scored_from)[rows]
    is_scored = (position < lengths[:, None]) & (position >= n_context[:, None])
    if table.marks is not None:
        is_scored &= table.marks.is_scored[_places(table, rows, position)]
    targets = np.where(is_scored, filled[:, 1:], IGNORE_INDEX)
    return Batch(
        torch.from_numpy(filled[:, :-1].copy()),
        None,
        torch.from_numpy(targets),
        np.flatnonzero(is_scored),
        lengths - 1,
        rows,
    )


def _scored_batch(
    tokens: IntArray, table: RowTable, rows: IntArray, pad: int, length: int
) -> Batch:
    filled = _fill(tokens, table, rows, length, pad)
    targets = np.full_like(filled, IGNORE_INDEX)
    targets[:, :-1] = filled[:, 1:]
    return Batch(
        torch.from_numpy(filled),
        torch.from_numpy((filled != pad).astype(np.int64)),
        torch.from_numpy(targets),
        np.flatnonzero(targets != IGNORE_INDEX),
        np.full(len(rows), length - 1, dtype=np.int64),
        rows,
    )
