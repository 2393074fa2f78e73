"""Split a perplexity over padded rows into text and padding, and find the text's own perplexity.

Let f, f1 and f2 be the shares of text, first padding and other padding among the targets, and t,
a and b their nats per target. A reported cross-entropy R is then f * t + f1 * a + f2 * b. Given R
and the lengths of the documents, t follows from assumptions about a and b; no model is needed. All
numbers are nats per target, with natural logarithms.
"""

import math
from dataclasses import dataclass

import numpy as np

from lorastudy.data.rows import RowTable
from lorastudy.errors import ConfigError
from lorastudy.loss import perplexity_of
from lorastudy.protocols import TARGET_CLASSES

# The largest losses on padding that were seen of models trained with padding scored, in nats
# (benchmarks/scored-padding_2cores_202611): on the first padding token where passages stop before
# their end, as those of LAMBADA do, and on a padding token that follows another one.
HIGHEST_FIRST_PADDING = 12.0
HIGHEST_OTHER_PADDING = 0.011


@dataclass(frozen=True, slots=True)
class TargetCounts:
    """Targets of padded rows by class, in the order of `TARGET_CLASSES`."""

    n_rows: int
    first: int
    text: int
    first_padding: int
    other_padding: int

    @property
    def by_class(self) -> tuple[tuple[str, int], ...]:
        """Each class with its count."""
        counts = (self.first, self.text, self.first_padding, self.other_padding)
        return tuple(zip(TARGET_CLASSES, counts, strict=True))

    @property
    def total(self) -> int:
        """All targets."""
        return sum(count for _, count in self.by_class)

    @property
    def text_share(self) -> float:
        """f: the share of document tokens, including first ones, among all targets."""
        return (self.first + self.text) / self.total


@dataclass(frozen=True, slots=True)
class Undone:
    """The perplexity of the text behind a reported one; plausible values lie in `low` to `high`."""

    reported: float
    text_perplexity: float  # the loss on padding is zero: the highest possible value
    low: float  # the loss on padding is as high as is plausible
    high: float


def count_targets(table: RowTable, length: int) -> TargetCounts:
    """Numbers of targets in the rows of `table`, all padded to `length` tokens."""
    n_text = table.n_scored
    n_padding = length - 1 - n_text
    assert np.all(n_padding >= 0), "rows are cut at the length"
    n_first_padding = int(np.count_nonzero(n_padding))
    return TargetCounts(
        n_rows=table.n_rows,
        first=table.n_rows,
        text=int(n_text.sum()) - table.n_rows,
        first_padding=n_first_padding,
        other_padding=int(n_padding.sum()) - n_first_padding,
    )


def undo_padding(reported: float, counts: TargetCounts) -> Undone:
    """The perplexity of text that `reported`, a number over padded rows, stands for.

    It is highest if the loss on padding is zero: exp(R / f). It is lowest if the losses are
    `HIGHEST_FIRST_PADDING` (a) and `HIGHEST_OTHER_PADDING` (b): exp((R - f1 * a - f2 * b) / f), but
    at least 1.

    Raises:
        ConfigError: The reported number is not a perplexity.
    """
    if not math.isfinite(reported) or reported < 1:
        raise ConfigError(
            f"--reported {reported:g}: a perplexity is a finite number of at least 1. "
            "Give the perplexity itself, not its logarithm."
        )
    nats, f = math.log(reported), counts.text_share
    f1 = counts.first_padding / counts.total
    f2 = counts.other_padding / counts.total
    highest = perplexity_of(nats / f)
    padding = f1 * HIGHEST_FIRST_PADDING + f2 * HIGHEST_OTHER_PADDING
    lowest = perplexity_of(max(0.0, nats - padding) / f)
    return Undone(reported=reported, text_perplexity=highest, low=lowest, high=highest)
