"""Documents that stand one behind the other in one flat row.

Shapes: T = tokens of all documents.

A batch without padding is one row of T tokens. Everything but attention works on single
tokens; attention is computed for each document alone (`attention.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """Where documents begin and end in a flat row of T tokens."""

    bounds: tuple[int, ...]  # (n + 1,) from 0 to T
    visible: Tensor | None = None  # (T,) bool, which keys may be seen; None: all

    @property
    def spans(self) -> Iterator[tuple[int, int]]:
        """Begin and end of each document."""
        return pairwise(self.bounds)

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return max(end - begin for begin, end in self.spans)
