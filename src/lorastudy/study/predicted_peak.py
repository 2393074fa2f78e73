"""The peak memory of a run, predicted only from shapes."""

from dataclasses import dataclass

import torch

from lorastudy.config.models import BaseWeights, Training
from lorastudy.model.base import BaseDescription
from lorastudy.model.fast.head import CHUNK as HEAD_CHUNK
from lorastudy.model.scoring import SCORE_CHUNK
from lorastudy.units import MIB

_LIBRARIES_BYTES = 500 * MIB  # resident after importing torch, transformers and peft

# Bytes per weight: of linear modules, and of embeddings and the output layer. nf4 has one float32
# scale per 64 weights; nf4-double holds these in 8 bits, with one float32 scale per 256 of them.
# The scales of int8, one per row, are too few to count.
_BYTES: dict[BaseWeights, tuple[float, int]] = {
    "float32": (4, 4),
    "bfloat16": (2, 2),
    "int8": (1, 2),
    "nf4": (0.5 + 4 / 64, 2),
    "nf4-double": (0.5 + 1 / 64 + 4 / (64 * 256), 2),
}


@dataclass(frozen=True, slots=True)
class PeakPrediction:
    """Predicted peak bytes of one run, by part; an estimate, not an upper bound."""

    libraries: int
    weights: int
    gradients_and_moments: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return (
            self.libraries
            + self.weights
            + self.gradients_and_moments
            + self.activations
            + self.logits
        )


def _held_bytes(base: BaseDescription, base_weights: BaseWeights) -> int:
    """Bytes of the base model's parameters: linear weights, embeddings with the head, others."""
    of_linear, of_embedding = _BYTES[base_weights]
    others = base.total_parameters - base.linear_parameters - base.embedding_parameters
    return round(
        of_linear * base.linear_parameters + of_embedding * base.embedding_parameters + 4 * others
    )


def predict_peak(
    base: BaseDescription,
    training: Training,
    *,
    row_length: int,
    trained_parameters: int,
    added_parameters: int,
    adapted_in_features: int,
    dropout: float,
    device: torch.device,
    base_weights: BaseWeights = "float32",
    targets_per_row: int | None = None,
) -> PeakPrediction:
    """Predict the peak of a run from its shapes, for a micro-batch of the longest rows.

    These are counted for the reference implementation: the weights as they are held; a
    gradient and two moments (12 bytes per trained parameter); the values that autograd keeps per
    layer and position, in hidden widths: 30 for full fine-tuning, 24 if linear weights are frozen;
    the copies of inputs that LoRA's dropout keeps; three (heads, T, T) arrays per row and layer if
    attention has dropout on a CPU; three copies of the logits (log-softmax and two gradients).
    The fast implementation keeps less: 17 widths, or 10 and the inputs of adapters; one byte for
    every weight and input with dropout; the logits of one chunk twice; and a second gradient of
    the head if it is trained.
    Only scored tokens have logits: `targets_per_row` of them, or all tokens of a row (None).
    The counts are those of GPT-2 in float32. For other families and bfloat16 the prediction may be
    wrong by some tenths, and `check` says "predicted".
    """
    on_cpu = device.type == "cpu"
    is_fast = training.implementation != "reference" and trained_parameters > 0
    activations, logits = (_count_fast if is_fast else _count_reference)(
        base,
        training,
        row_length=row_length,
        targets_per_row=row_length if targets_per_row is None else targets_per_row,
        trained_parameters=trained_parameters,
        adapted_in_features=adapted_in_features,
        dropout=dropout,
        on_cpu=on_cpu,
    )
    return PeakPrediction(
        libraries=_LIBRARIES_BYTES if on_cpu else 0,
        weights=_held_bytes(base, base_weights) + 4 * added_parameters,
        gradients_and_moments=_bytes_per_trained(training) * trained_parameters,
        activations=activations,
        logits=logits,
    )


def _count_reference(
    base: BaseDescription,
    training: Training,
    *,
    row_length: int,
    targets_per_row: int,
    trained_parameters: int,
    adapted_in_features: int,
    dropout: float,
    on_cpu: bool,
) -> tuple[int, int]:
    """Bytes of activations and of logits in the reference implementation."""
    positions = training.micro_batch * row_length
    activations = positions * base.hidden_size * 16
    if trained_parameters:
        widths = 24 if trained_parameters < base.total_parameters else 30
        activations = positions * widths * base.hidden_size * base.n_layers * 4
        if dropout:
            activations += positions * adapted_in_features * (8 if on_cpu else 5)
        if on_cpu and base.attention_dropout:
            activations += 3 * 4 * positions * row_length * base.n_heads * base.n_layers
        activations = _with_checkpointing(activations, positions, base, training)
    n_targets = training.micro_batch * targets_per_row
    n_logits = n_targets if trained_parameters else min(n_targets, SCORE_CHUNK)
    return activations, n_logits * base.vocabulary_size * 4 * 3


def _count_fast(
    base: BaseDescription,
    training: Training,
    *,
    row_length: int,
    targets_per_row: int,
    trained_parameters: int,
    adapted_in_features: int,
    dropout: float,
    on_cpu: bool,
) -> tuple[int, int]:
    """Bytes of activations and of logits in the fast implementation."""
    n_rows = training.micro_batch
    if training.token_budget is not None:
        n_rows = max(1, min(n_rows, training.token_budget // row_length))
    positions = n_rows * row_length
    is_frozen = trained_parameters < base.total_parameters
    widths = 10 if is_frozen else 17
    activations = positions * widths * base.hidden_size * base.n_layers * 4
    if is_frozen:
        activations += positions * adapted_in_features * (5 if dropout else 4)
    if on_cpu and base.attention_dropout:
        activations += positions * row_length * base.n_heads * base.n_layers
    activations = _with_checkpointing(activations, positions, base, training)
    logits = 2 * min(n_rows * targets_per_row, HEAD_CHUNK) * base.vocabulary_size * 4
    if not is_frozen:
        logits += base.vocabulary_size * base.hidden_size * 4
    return activations, logits


def _bytes_per_trained(training: Training) -> int:
    """Bytes of a gradient and two moments."""
    return 12 if training.optimizer.name == "adamw" else 6


def _with_checkpointing(
    activations: int, positions: int, base: BaseDescription, training: Training
) -> int:
    """With activation checkpointing: the inputs of all layers, and all values of one layer."""
    if not training.activation_checkpointing:
        return activations
    inputs = 4 * positions * base.hidden_size * base.n_layers
    return min(activations, inputs + activations // base.n_layers)
