"""Token-weighted cross-entropy as sums, which are divided only where a person reads them.

If batches have different numbers of scored tokens, the average of their means is not the mean
over tokens. All parts of the program therefore pass on (sum of nats, number of tokens).
"""

import math
from dataclasses import dataclass

from lorastudy.errors import InputError

IGNORE_INDEX = -100  # label of a position that is not scored: padding, or context of a window


@dataclass(frozen=True, slots=True)
class LossSums:
    """Summed negative log-likelihood of scored tokens; add two to pool their tokens."""

    sum_nats: float = 0.0
    n_tokens: int = 0

    def __add__(self, other: "LossSums") -> "LossSums":
        """Pool the tokens of both; their order changes only float64 rounding."""
        return LossSums(self.sum_nats + other.sum_nats, self.n_tokens + other.n_tokens)

    @property
    def cross_entropy(self) -> float:
        """Nats per scored token.

        Raises:
            InputError: No token was scored.
        """
        if self.n_tokens == 0:
            raise InputError(
                "no token was scored, so there is no cross-entropy. The split has no row with "
                "a target: check its documents, its column and the row length."
            )
        return self.sum_nats / self.n_tokens

    @property
    def perplexity(self) -> float:
        """Exponential of the mean over tokens; infinite where that overflows."""
        return perplexity_of(self.cross_entropy)


def perplexity_of(cross_entropy: float) -> float:
    """exp(nats per token); infinity if a float cannot hold it."""
    try:
        return math.exp(cross_entropy)
    except OverflowError:
        return math.inf
