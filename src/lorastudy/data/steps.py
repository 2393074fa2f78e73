"""Which rows every training step sees, as a pure function of (seed, epoch, step).

An epoch is a permutation of the rows (of a mixture: of those that it draws from each source),
divided into micro-batches. Consecutive micro-batches form
an accumulation group, and each group is one optimizer step. Nothing is drawn during training, so
any step can be reached directly, every arm of a seed sees the same data in the same order, and a
resumed run has no position to restore.

    first_group "full":  epoch 1 [0 1 2 3 4][5 6]   epoch 2 [7 8 9 10 11][12 13]
    first_group "one":   epoch 1 [0][1 2 3 4 5][6    epoch 2  7 8 9 10][11 12 13]...

"one" repeats a loop that steps if `counter % accumulation == 0`, with a counter that begins at 0
and runs on through epochs. The first step then follows one micro-batch, groups span epochs, and
the gradients that remain at the end are never applied.

A plan may end after a given step, also within an epoch. That epoch then ends there.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from lorastudy.data.mixture import Share, draw_copies
from lorastudy.seeds import open_stream

IntArray = npt.NDArray[np.int64]
_ENDLESS = 10**12  # epochs


@dataclass(frozen=True, slots=True)
class StepPlan:
    """How all epochs are divided into micro-batches and accumulation groups."""

    n_rows: int  # of an epoch
    epochs: int
    rows_per_step: int
    micro_batch: int  # rows; divides rows_per_step
    first_group: Literal["full", "one"]
    seed: int
    shares: tuple[Share, ...] = ()  # of the sources of a mixture; none: each row once per epoch
    last_step: int | None = None  # after which training ends; None: all epochs are trained whole

    def until(self, last_step: int) -> "StepPlan":
        """The plan that ends after `last_step` optimizer steps, with the epochs that they begin."""
        endless = self._without_end()
        epochs = endless.epoch_of(endless.group_of(last_step).stop - 1)
        return replace(self, epochs=epochs, last_step=last_step)

    def _without_end(self) -> "StepPlan":
        return replace(self, epochs=_ENDLESS, last_step=None)

    def count_steps_within(self, epochs: Fraction) -> int:
        """The most optimizer steps that read no more rows than this number of epochs has."""
        endless, low, high = self._without_end(), 0, math.ceil(epochs * self.n_rows)
        while low < high:
            middle = (low + high + 1) // 2
            fits = endless.epochs_until(middle) <= epochs
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def epochs_until(self, step: int) -> Fraction:
        """The rows that the optimizer steps up to `step` read, as a number of epochs."""
        epochs, rest = divmod(self.group_of(step).stop, self.micro_batches_per_epoch)
        return epochs + Fraction(rest * self.micro_batch, self.n_rows)

    @property
    def n_passes(self) -> float:
        """Epochs that are trained; not whole if training ends within one."""
        return self.epochs if self.last_step is None else float(self.epochs_until(self.last_step))

    @property
    def accumulation(self) -> int:
        """Number of micro-batches in a full accumulation group."""
        return self.rows_per_step // self.micro_batch

    @property
    def micro_batches_per_epoch(self) -> int:
        """Number of micro-batches of an epoch; the last one may have fewer rows."""
        return -(-self.n_rows // self.micro_batch)

    @property
    def n_micro_batches(self) -> int:
        """Number of micro-batches of the whole training."""
        if self.last_step is not None:
            return self.group_of(self.last_step).stop
        return self.micro_batches_per_epoch * self.epochs

    @property
    def n_steps(self) -> int:
        """Number of optimizer steps of the whole training."""
        if self.last_step is not None:
            return self.last_step
        if self.first_group == "one":
            return 1 + (self.n_micro_batches - 1) // self.accumulation
        return self._steps_per_epoch * self.epochs

    @property
    def n_groups(self) -> int:
        """Accumulation groups of all epochs: those of the steps, and one that is never applied."""
        has_rest = self.group_of(self.n_steps).stop < self.n_micro_batches
        return self.n_steps + int(has_rest)

    @property
    def _steps_per_epoch(self) -> int:
        return -(-self.micro_batches_per_epoch // self.accumulation)

    def epoch_of(self, index: int) -> int:
        """Epoch, from 1, of the micro-batch `index`, from 0."""
        return index // self.micro_batches_per_epoch + 1

    def group_of(self, step: int) -> range:
        """Micro-batches of an optimizer step, without those after the last epoch."""
        if self.first_group == "one":
            begin = 0 if step == 1 else 1 + (step - 2) * self.accumulation
            end = 1 + (step - 1) * self.accumulation
            return range(begin, min(end, self.micro_batches_per_epoch * self.epochs))
        epoch, position = divmod(step - 1, self._steps_per_epoch)
        first = epoch * self.micro_batches_per_epoch
        begin = first + position * self.accumulation
        return range(begin, min(begin + self.accumulation, first + self.micro_batches_per_epoch))

    def ends_epoch(self, step: int) -> bool:
        """Whether no micro-batch of its epoch follows an optimizer step."""
        return self.is_last_of_epoch(self.group_of(step).stop - 1)

    def is_last_of_epoch(self, index: int) -> bool:
        """Whether the micro-batch `index` ends its epoch, or training."""
        is_whole = (index + 1) % self.micro_batches_per_epoch == 0
        return is_whole or index + 1 == self.n_micro_batches

    def count_ended_epochs(self, step: int) -> int:
        """Number of epochs that ended before the first micro-batch after `step`."""
        if step == self.last_step:
            return self.epochs
        return self.group_of(step + 1).start // self.micro_batches_per_epoch

    def order_of(self, epoch: int) -> IntArray:
        """Row numbers of an epoch in the drawn order, (n_rows,); of a mixture, those of copies."""
        if self.shares:
            return order_of_mixture(self.seed, epoch, self.n_rows, self.shares)
        return order_of_epoch(self.seed, epoch, self.n_rows)

    def rows_of(self, index: int) -> IntArray:
        """Row numbers, (micro_batch,) or fewer, of one micro-batch in the drawn order."""
        order = self.order_of(self.epoch_of(index))
        begin = index % self.micro_batches_per_epoch * self.micro_batch
        return order[begin : begin + self.micro_batch]

    def sorted_rows(self, step: int, lengths: IntArray) -> list[IntArray]:
        """Rows of each micro-batch of a step when its rows are sorted by length and divided.

        A step's loss is a sum over its tokens divided by their number. Which rows share a
        micro-batch therefore changes only rounding, and rows of similar lengths need less padding.
        Only for groups that do not span epochs.
        """
        rows, size = self._rows_of_step(step, lengths), self.micro_batch
        return [rows[begin : begin + size] for begin in range(0, len(rows), size)]

    def balanced_rows(self, step: int, lengths: IntArray) -> list[IntArray]:
        """Rows of each micro-batch when those of a step are divided into equal numbers of tokens.

        This is for rows that are not padded. The number of micro-batches stays the same, and none
        is much larger than the others, although their numbers of rows differ. Longest first, each
        row is added to the part with the fewest tokens. Only for groups that do not span epochs.
        """
        return share_out(self._rows_of_step(step, lengths), lengths, len(self.group_of(step)))

    def _rows_of_step(self, step: int, lengths: IntArray) -> IntArray:
        """The rows of an accumulation group from short to long."""
        rows = np.concatenate([self.rows_of(index) for index in self.group_of(step)])
        return rows[np.argsort(lengths[rows], kind="stable")]


def share_out(rows: IntArray, lengths: IntArray, n: int) -> list[IntArray]:
    """Rows from short to long, divided into `n` shares with about equal numbers of tokens.

    Each share is sorted from long to short. With fewer rows than shares the last shares are empty.
    """
    loads = [0] * n
    shares: list[list[int]] = [[] for _ in range(n)]
    for row in rows[::-1].tolist():
        lightest = loads.index(min(loads))
        loads[lightest] += int(lengths[row])
        shares[lightest].append(row)
    return [np.array(share, dtype=np.int64) for share in shares]


@lru_cache(maxsize=2)
def order_of_epoch(seed: int, epoch: int, n_rows: int) -> IntArray:
    """The permutation of rows of one epoch, (n_rows,); the same on every machine."""
    order: IntArray = open_stream(seed, "data-order", epoch).permutation(n_rows)
    order.setflags(write=False)
    return order


@lru_cache(maxsize=2)
def order_of_mixture(seed: int, epoch: int, n_rows: int, shares: tuple[Share, ...]) -> IntArray:
    """As `order_of_epoch`, for the copies of rows that an epoch draws from several sources."""
    order: IntArray = draw_copies(seed, epoch, shares)[order_of_epoch(seed, epoch, n_rows)]
    order.setflags(write=False)
    return order
