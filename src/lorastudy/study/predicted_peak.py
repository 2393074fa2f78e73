"""The peak memory of a run, predicted only from shapes, in parts whose sum is the peak."""

from dataclasses import dataclass, fields, replace

import torch

from lorastudy.config.models import Arm, BaseWeights, Training
from lorastudy.model.arm_size import ArmSize
from lorastudy.model.base import BaseDescription
from lorastudy.model.fast.head import CHUNK as HEAD_CHUNK
from lorastudy.model.placement import ResolvedPlacement
from lorastudy.model.scoring import SCORE_CHUNK
from lorastudy.store.memory_parts import PredictedMemory
from lorastudy.study.kept_values import count_distinct_inputs, count_kept
from lorastudy.units import MIB

_LIBRARIES_BYTES = 500 * MIB  # resident after importing torch, transformers and peft

# Bytes per weight: of linear modules; and of embeddings, experts and the output layer. nf4 has one
# float32 scale per 64 weights; nf4-double holds these in 8 bits, with one float32 scale per 256 of
# them. The scales of int8, one per row, are too few to count.
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

    libraries: int  # resident before a model is loaded; on a GPU 0, since it counts allocations
    weights: int  # of the base model as they are held, and of the adapter
    gradients: int
    optimizer: int  # two moments of each trained parameter
    base_activations: int  # what layers keep for the backward pass
    adapter_inputs: int  # what adapters keep besides: their inputs after dropout
    dropout_masks: int  # of the adapters
    logits: int
    workspace: int  # needed for a moment, beside all of the above

    @property
    def activations(self) -> int:
        """All that is kept from forward to backward, but for the logits."""
        return self.base_activations + self.adapter_inputs + self.dropout_masks

    @property
    def total(self) -> int:
        """The sum of all parts."""
        parts: list[int] = [getattr(self, field.name) for field in fields(self)]
        return sum(parts)

    def describe(self, arm: str) -> PredictedMemory:
        """What a study keeps of it, to be compared with what runs of `arm` hold."""
        return PredictedMemory(
            arm=arm,
            libraries=self.libraries,
            weights=self.weights,
            gradients=self.gradients,
            optimizer=self.optimizer,
            activations=self.activations,
            logits=self.logits,
            workspace=self.workspace,
        )


@dataclass(frozen=True, slots=True)
class LongestRow:
    """The shape of the rows that need the most memory."""

    length: int  # tokens
    n_targets: int  # scored tokens; only these have logits


@dataclass(frozen=True, slots=True)
class TrainedShape:
    """What an arm trains, what its adapters read, and how it holds the base model."""

    n_parameters: int
    n_added: int  # parameters beside those of the base model
    adapted_in_features: int  # of all adapted modules
    kept_in_features: int  # the same, inputs that adapters share counted once
    has_dropout: bool
    base_weights: BaseWeights


def predict_arm_peak(
    arm: Arm,
    training: Training,
    base: BaseDescription,
    placement: ResolvedPlacement,
    size: ArmSize,
    *,
    row: LongestRow,
    device: torch.device,
) -> PeakPrediction:
    """The predicted peak of a run of `arm`; see `predict_peak`."""
    trained = TrainedShape(
        n_parameters=size.trained,
        n_added=size.added,
        adapted_in_features=sum(target.in_features for target in placement.targets),
        kept_in_features=count_distinct_inputs(placement),
        has_dropout=arm.dropout > 0,
        base_weights=arm.held_weights,
    )
    return predict_peak(base, training, trained, row=row, device=device)


def predict_peak(
    base: BaseDescription,
    training: Training,
    trained: TrainedShape,
    *,
    row: LongestRow,
    device: torch.device,
) -> PeakPrediction:
    """Predict the peak of a run from its shapes, for a micro-batch of the longest rows.

    Counted are the weights as they are held, a gradient and two moments of every trained parameter,
    and what `count_kept` says that layers keep from forward to backward. Adapters with dropout keep
    a copy of each input and a mask; the fast implementation keeps inputs that adapters share
    (`kept_in_features`) once, and one byte for a mask. Attention with dropout on a CPU keeps
    weights: three arrays (heads, T, T) per row and layer, or one byte for each in the fast
    implementation. Only scored tokens have logits. They are there three times, or twice for one
    chunk in the fast implementation. On a CPU, a share of what is kept is added (`_WORKSPACE`).
    `benchmarks/prediction_2cores_202611` compares the sum with measured peaks.
    """
    on_cpu, n_trained = device.type == "cpu", trained.n_parameters
    rows = _Rows(count_rows_at_once(training, row.length), row.length, row.n_targets)
    is_fast = training.implementation != "reference" and n_trained > 0
    kept = (_count_fast if is_fast else _count_reference)(base, rows, trained, on_cpu=on_cpu)
    if training.activation_checkpointing and n_trained:
        kept = _with_checkpointing(kept, rows.n_positions, base)
    if on_cpu and n_trained:
        is_whole = n_trained == base.total_parameters
        share = _WORKSPACE["fast" if is_fast else "reference"][is_whole]
        beside = round(share * (kept.activations + kept.logits))
        kept = replace(kept, workspace=kept.workspace + beside)
    return replace(
        kept,
        libraries=_LIBRARIES_BYTES if on_cpu else 0,
        weights=_held_bytes(base, trained.base_weights) + 4 * trained.n_added,
        gradients=4 * n_trained,
        optimizer=(8 if training.optimizer.name == "adamw" else 2) * n_trained,
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows that are computed at once, all of full length."""

    n_rows: int
    length: int
    targets_per_row: int

    @property
    def n_positions(self) -> int:
        return self.n_rows * self.length

    @property
    def n_targets(self) -> int:
        return self.n_rows * self.targets_per_row


def count_rows_at_once(training: Training, row_length: int) -> int:
    """Full rows of a micro-batch, or of the part of it that the token budget allows."""
    if training.token_budget is None:
        return training.micro_batch
    return max(1, min(training.micro_batch, training.token_budget // row_length))


def _held_bytes(base: BaseDescription, base_weights: BaseWeights) -> int:
    """Bytes of parameters: linear weights; embeddings, experts and the head; all others."""
    of_linear, of_embedding = _BYTES[base_weights]
    others = base.total_parameters - base.linear_parameters - base.embedding_parameters
    return round(
        of_linear * base.linear_parameters + of_embedding * base.embedding_parameters + 4 * others
    )


# What a CPU needs beside all that is kept, as a share of activations and logits: values of the
# layer that is computed, and holes that freed arrays leave. First where linear weights are frozen,
# then where all are trained: there, gradients come while activations go. Chosen on four families of
# `benchmarks/prediction_2cores_202611`; all of its cells are within 15 % of what was measured.
_WORKSPACE = {"fast": (0.41, 0.25), "reference": (0.55, 0.22)}


_NOTHING = PeakPrediction(0, 0, 0, 0, 0, 0, 0, 0, 0)


def _count_reference(
    base: BaseDescription,
    rows: _Rows,
    trained: TrainedShape,
    *,
    on_cpu: bool,
) -> PeakPrediction:
    """Activations and logits in the reference implementation."""
    positions = rows.n_positions
    if not trained.n_parameters:
        return replace(
            _NOTHING,
            base_activations=positions * base.hidden_size * 16,
            logits=3 * 4 * min(rows.n_targets, SCORE_CHUNK) * base.vocabulary_size,
        )
    activations = 4 * positions * count_kept(base, trained.n_parameters, is_fast=False)
    if on_cpu and base.attention_dropout:
        activations += 3 * 4 * positions * rows.length * base.n_heads * base.n_layers
    adapted = positions * trained.adapted_in_features if trained.has_dropout else 0
    return replace(
        _NOTHING,
        base_activations=activations,
        adapter_inputs=4 * adapted,
        dropout_masks=(4 if on_cpu else 1) * adapted,
        logits=3 * 4 * rows.n_targets * base.vocabulary_size,
    )


def _count_fast(
    base: BaseDescription,
    rows: _Rows,
    trained: TrainedShape,
    *,
    on_cpu: bool,
) -> PeakPrediction:
    """Activations and logits in the fast implementation."""
    positions = rows.n_positions
    is_frozen = trained.n_parameters < base.total_parameters
    activations = 4 * positions * count_kept(base, trained.n_parameters, is_fast=True)
    if on_cpu and base.attention_dropout:
        activations += positions * rows.length * base.n_heads * base.n_layers
    return replace(
        _NOTHING,
        base_activations=activations,
        adapter_inputs=4 * positions * trained.kept_in_features if is_frozen else 0,
        dropout_masks=positions * trained.adapted_in_features
        if is_frozen and trained.has_dropout
        else 0,
        logits=2 * 4 * min(rows.n_targets, HEAD_CHUNK) * base.vocabulary_size,
        workspace=0 if is_frozen else 4 * base.vocabulary_size * base.hidden_size,
    )


def _with_checkpointing(
    kept: PeakPrediction, positions: int, base: BaseDescription
) -> PeakPrediction:
    """With activation checkpointing: the inputs of all layers, and all values of one layer."""
    inputs = 4 * positions * base.hidden_size * base.n_layers
    if inputs + kept.activations // base.n_layers >= kept.activations:
        return kept
    return replace(
        kept,
        base_activations=inputs + kept.base_activations // base.n_layers,
        adapter_inputs=kept.adapter_inputs // base.n_layers,
        dropout_masks=kept.dropout_masks // base.n_layers,
    )
