"""What a run computes, counted from shapes: arithmetic, passes over arrays, and operations.

A matrix product takes two floating-point operations per weight and position in forward, as many
again for the gradient of its input, and as many for the gradient of its weight if it is trained.
Attention multiplies each position with the positions before it, twice. Everything else (norms,
activations, dropout, softmax, the optimizer) is a pass over arrays, whose bytes count.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np

from lorastudy.config.models import Arm, Training
from lorastudy.data.batches import Padding
from lorastudy.data.rows import RowTable
from lorastudy.evaluate.score import MAX_POSITIONS
from lorastudy.machine.speed import MachineSpeed
from lorastudy.model.base import BaseDescription

# Of one layer in forward; chosen for the demo and a model of the size of SmolLM2-135M, which
# `benchmarks/prediction_2cores_202611/seconds.py` compares with runs.
_PASSED_WIDTHS = 60  # hidden widths that are read or written per position
_OPERATIONS = 60
_PASSED_LOGITS = 6  # times that the logits are read or written, forward and backward
_PASSED_BY_OPTIMIZER = 40  # bytes per trained parameter and step, clipping included


@dataclass(frozen=True, slots=True)
class Work:
    """An amount of computing."""

    flops: float = 0.0
    passed_bytes: float = 0.0
    operations: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        """Both."""
        return Work(
            self.flops + other.flops,
            self.passed_bytes + other.passed_bytes,
            self.operations + other.operations,
        )

    def __mul__(self, times: float) -> "Work":
        """The same, several times."""
        return Work(self.flops * times, self.passed_bytes * times, self.operations * times)

    def seconds_at(self, speed: MachineSpeed) -> float:
        """Seconds that it takes."""
        return (
            self.flops / speed.flops
            + self.passed_bytes / speed.passed_bytes
            + self.operations / speed.operations
        )


@dataclass(frozen=True, slots=True)
class Passage:
    """Rows that go through a model once."""

    n_positions: int
    n_scored: int
    n_pairs: float  # of positions, one of which attends to the other
    n_batches: int

    @classmethod
    def of(cls, table: RowTable, padding: Padding, *, positions_at_once: float) -> "Passage":
        """The passage of all rows of `table`; padding counts only if it is scored."""
        lengths = np.full(table.n_rows, padding.scored_length or 0)
        lengths = lengths if padding.scored_length else table.lengths - 1
        n_positions = int(lengths.sum())
        n_scored = n_positions if padding.scored_length else int(table.n_scored.sum())
        pairs = float(np.square(lengths, dtype=np.float64).sum()) / 2
        return cls(n_positions, n_scored, pairs, ceil(n_positions / positions_at_once))


def count_forward(base: BaseDescription, rows: Passage, added_parameters: int) -> Work:
    """The work of `rows` without gradients, through a model with an adapter of this size."""
    head = base.vocabulary_size * base.hidden_size
    products = (base.linear_parameters + added_parameters) * rows.n_positions
    attention = 2 * base.hidden_size * base.n_layers * rows.n_pairs
    values = _PASSED_WIDTHS * base.hidden_size * base.n_layers * rows.n_positions
    logits = _PASSED_LOGITS / 2 * base.vocabulary_size * rows.n_scored
    return Work(
        flops=2.0 * (products + attention + head * rows.n_scored),
        passed_bytes=4.0 * (values + logits),
        operations=float(_OPERATIONS * base.n_layers * rows.n_batches),
    )


def count_evaluation(
    base: BaseDescription, table: RowTable, padding: Padding, added_parameters: int
) -> Work:
    """The work of scoring a table once."""
    rows = Passage.of(table, padding, positions_at_once=MAX_POSITIONS)
    return count_forward(base, rows, added_parameters)


def count_task(
    base: BaseDescription, n_positions: int, n_steps: int, added_parameters: int
) -> Work:
    """The work of answering items: tokens that are read or may be generated, step by step.

    Attention is left out, since prompts are short.
    """
    rows = Passage(n_positions, n_positions, 0.0, n_steps)
    return count_forward(base, rows, added_parameters)


def count_epoch(
    base: BaseDescription,
    arm: Arm,
    training: Training,
    table: RowTable,
    padding: Padding,
    *,
    trained_parameters: int,
    added_parameters: int,
) -> Work:
    """The work of one epoch: forward, backward, and the optimizer's steps."""
    mean_length = float(table.lengths.mean())
    at_once = training.micro_batch * (padding.scored_length or mean_length)
    at_once = min(at_once, training.token_budget or at_once)
    rows = Passage.of(table, padding, positions_at_once=at_once)
    forward = count_forward(base, rows, added_parameters)
    # the gradient goes back through the layers above the lowest trained one
    share = _share_with_gradients(arm, base)
    backward = forward * share + Work(flops=2.0 * trained_parameters * rows.n_positions)
    again = forward * share if training.activation_checkpointing else Work()
    n_steps = ceil(table.n_rows / training.rows_per_step)
    steps = Work(passed_bytes=float(_PASSED_BY_OPTIMIZER * trained_parameters * n_steps))
    return forward + backward + again + steps


def _share_with_gradients(arm: Arm, base: BaseDescription) -> float:
    """The share of layers through which a gradient goes."""
    if arm.method == "head":
        return 0.0
    if arm.method == "last-layers" and arm.layers is not None:
        return min(1.0, int(arm.layers.removeprefix("last-")) / base.n_layers)
    return 1.0
