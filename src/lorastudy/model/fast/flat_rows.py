"""Rows of a batch that are placed one after the other in one flat row, and how they attend.

Shapes: T = tokens of all rows, L = tokens of one row.

A batch without padding is one flat row of T tokens. Everything except attention works on single
tokens. Attention is computed for each row separately (`attention.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class FlatRows:
    """Where rows begin and end among the T tokens of a flat row."""

    bounds: tuple[int, ...]  # (n + 1,) from 0 to T
    visible: Tensor | None = None  # (T,) bool, which keys may be seen; None: all

    @property
    def spans(self) -> Iterator[tuple[int, int]]:
        """Begin and end of each row."""
        return pairwise(self.bounds)

    @property
    def longest(self) -> int:
        """Number of tokens of the longest row."""
        return max(end - begin for begin, end in self.spans)


@dataclass(frozen=True, slots=True)
class Attention:
    """What one layer computes from queries, keys and values: the rows, and how keys are weighed."""

    rows: FlatRows
    scale: float  # of the products of queries and keys
    dropout: float = 0.0  # rate at which weights are set to zero
    window: int | None = None  # keys that a query sees, its own included; None: all before it
