"""Right and wrong answers of two arms to the same items: what one repairs, and what it breaks.

                    second right    second wrong
    first right     both_right      repaired
    first wrong     broken          both_wrong

An item counts once for each seed. The counts describe; what may be said of the difference follows
from the paired comparison over items and seeds, as for losses. With one seed there is no such
claim, and McNemar's exact test says how surprising the counts would be for these two checkpoints
(Q. McNemar, Psychometrika 12 (1947) 153-157).
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import bdtr

from lorastudy.analysis.paired import FloatArray

_HALF = 0.5  # answers that are right by more than half count as right


@dataclass(frozen=True, slots=True)
class Flips:
    """Answers of two arms, over all items and seeds that both have."""

    both_right: int
    repaired: int  # right by the first arm, wrong by the second
    broken: int  # wrong by the first arm, right by the second
    both_wrong: int
    n_seeds: int

    @property
    def n_answers(self) -> int:
        """Items times seeds."""
        return self.both_right + self.repaired + self.broken + self.both_wrong

    @property
    def p_exact(self) -> float | None:
        """McNemar's two-sided exact p value; None with several seeds, whose answers are alike."""
        if self.n_seeds > 1:
            return None
        n, fewer = self.repaired + self.broken, min(self.repaired, self.broken)
        return 1.0 if n == 0 else min(1.0, 2 * float(bdtr(fewer, n, 0.5)))

    def turned_round(self) -> "Flips":
        """The same with the arms exchanged."""
        return replace(self, repaired=self.broken, broken=self.repaired)


def count_flips(first: FloatArray, second: FloatArray) -> Flips:
    """The flips of answers with losses (S seeds, m items), 0 if right and 1 if wrong."""
    a, b = first < _HALF, second < _HALF
    both_right, repaired, broken, both_wrong = (
        int(np.count_nonzero(found)) for found in (a & b, a & ~b, ~a & b, ~a & ~b)
    )
    return Flips(both_right, repaired, broken, both_wrong, n_seeds=len(first))
