"""Memory of a run by part: what was predicted before it, and what was counted in it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PredictedMemory:
    """Predicted bytes of an arm's runs at their peak, by part; the sum is the predicted peak."""

    arm: str
    libraries: int  # resident before a model is loaded; 0 on a device with its own memory
    weights: int  # of the base model and the adapter
    gradients: int
    optimizer: int
    activations: int  # kept from forward to backward
    logits: int
    workspace: int  # needed for a moment

    @property
    def passing(self) -> int:
        """What comes and goes within a step."""
        return self.activations + self.logits + self.workspace


@dataclass(frozen=True, slots=True)
class HeldMemory:
    """Bytes that a run held, counted from its tensors."""

    libraries: int  # resident before the model was loaded, and code; 0 on a GPU, as above
    weights: int  # parameters and buffers of the base model and the adapter
    gradients: int  # one for each trained parameter
    optimizer: int  # its state

    @property
    def kept(self) -> int:
        """What stays from step to step, and the gradients."""
        return self.weights + self.gradients + self.optimizer
