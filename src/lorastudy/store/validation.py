"""What one validation found, and which of two found more: the rule that chooses weights.

The same rule publishes the best weights of a run, stops runs early, and chooses learning rates.
"""

from dataclasses import dataclass

_ROUNDING = 1e-9  # differences of shares of items are not exact


@dataclass(frozen=True, slots=True)
class Validation:
    """The loss of a model and, if the study has `data.best_by`, its share of right answers."""

    loss: float  # nats per target
    accuracy: float | None = None  # None: the loss alone decides

    @property
    def rank(self) -> tuple[float, float]:
        """The lowest is the best: more right answers, or as many and a lower loss."""
        return (-(self.accuracy or 0.0), self.loss)

    def improves_on(self, other: "Validation", by: float) -> bool:
        """Whether it is better by more than `by`, a share of answers or else nats per target.

        A share of right answers that rose by less counts as equal, so that the losses decide.
        """
        if self.accuracy is None or other.accuracy is None:
            return self.loss < other.loss - by
        gain = self.accuracy - other.accuracy
        return gain > by + _ROUNDING or (gain >= 0 and self.loss < other.loss)
