"""How the rows of an epoch are drawn from several sources, as a pure function of (seed, epoch).

Each source has a fixed number of rows in every epoch. They are taken from an endless sequence of
its shuffled rows: every pass over the source is another permutation, and each epoch goes on where
the one before it ended. So a small source repeats, a large one is read bit by bit, and no row is
ever more than one pass ahead of another row of its source.

    3 rows, 5 drawn per epoch:   epoch 1 [2 0 1 | 0 2   epoch 2  1 | 1 2 0 | 2]   ...

A row that an epoch draws again is another copy of it, with a number of its own. Copies of a row
have the same tokens and different dropout masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorastudy.data.rows import IntArray
from lorastudy.seeds import open_stream


@dataclass(frozen=True, slots=True)
class Share:
    """What an epoch draws from one source."""

    n_rows: int  # of the source
    n_drawn: int  # per epoch

    @property
    def n_copies(self) -> int:
        """How many passes over the source an epoch can touch."""
        passes, rest = divmod(self.n_drawn, self.n_rows)
        # an epoch that begins within a pass also ends within one
        return passes if rest == 0 else passes + 2 if rest > 1 else passes + 1


def share_epoch(weights: Sequence[float], n_rows: Sequence[int]) -> tuple[Share, ...]:
    """Shares of an epoch with as many rows as all sources together.

    Args:
        weights: Of each source; they add up to 1.
        n_rows: Rows of each source.
    """
    total = sum(n_rows)
    exact = np.asarray(weights) * total
    drawn = np.floor(exact).astype(np.int64)
    # rows that rounding left over go to the sources that lost most by it
    by_loss = np.argsort(drawn - exact, kind="stable")
    drawn[by_loss[: total - int(drawn.sum())]] += 1
    return tuple(Share(n, m) for n, m in zip(n_rows, drawn.tolist(), strict=True))


def copy_rows(shares: Sequence[Share]) -> IntArray:
    """For each copy of a row, the row: all copies of the first source, then those of the next."""
    begins = np.cumsum([0, *(share.n_rows for share in shares)]).tolist()
    parts = [
        np.tile(np.arange(begin, begin + share.n_rows), share.n_copies)
        for begin, share in zip(begins, shares, strict=False)
    ]
    return np.concatenate(parts).astype(np.int64)


def draw_copies(seed: int, epoch: int, shares: tuple[Share, ...]) -> IntArray:
    """The copies that epoch `epoch`, from 1, draws, source by source; no copy twice."""
    parts, begin = [], 0
    for source, share in enumerate(shares):
        first = (epoch - 1) * share.n_drawn
        places = np.arange(first, first + share.n_drawn)
        passes = places // share.n_rows
        rows = np.empty(share.n_drawn, dtype=np.int64)
        for number in np.unique(passes).tolist():
            order = open_stream(seed, "mixture", source, number).permutation(share.n_rows)
            here = passes == number
            rows[here] = order[places[here] % share.n_rows]
        parts.append(begin + (passes - passes[0]) * share.n_rows + rows)
        begin += share.n_copies * share.n_rows
    drawn: IntArray = np.concatenate(parts)
    return drawn
