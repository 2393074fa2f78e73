"""Take a perplexity over padded rows apart: what of it is text, and what the text would give.

With f1, f2 the shares of first and other padding among the targets and f the share of text,
a reported cross-entropy R is f * t + f1 * a + f2 * b, where t, a, b are nats a target of text,
first padding and other padding. Given R and the lengths of the documents, t follows from what is
assumed of a and b; no model is needed. All numbers are nats a target, natural logarithms.
"""

import math
from dataclasses import dataclass

import numpy as np

from lorastudy.data.rows import RowTable
from lorastudy.errors import ConfigError
from lorastudy.loss import perplexity_of
from lorastudy.protocols import TARGET_CLASSES

# The most that models trained on scored padding were seen to pay for a target of padding, in nats
# (benchmarks/scored-padding_2cores_202611): for the first one where passages stop before their
# end, as LAMBADA's do, and for one that follows padding.
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
        """f: tokens of documents, their first ones included, among all targets."""
        return (self.first + self.text) / self.total


@dataclass(frozen=True, slots=True)
class Undone:
    """The perplexity of the text behind a reported one; `low` to `high` is what is plausible."""

    reported: float
    text_perplexity: float  # padding costs nothing: the highest it can be
    low: float  # padding costs as much as is plausible
    high: float


def count_targets(table: RowTable, length: int) -> TargetCounts:
    """Targets of the rows of `table`, all padded to `length` tokens."""
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
    """The text perplexity that `reported`, over padded rows, stands for.

    Highest where padding costs nothing: exp(R / f). Lowest where it costs `HIGHEST_FIRST_PADDING`
    (a) and `HIGHEST_OTHER_PADDING` (b): exp((R - f1 * a - f2 * b) / f), and at least 1.

    Raises:
        ConfigError: The reported number is no perplexity.
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
