"""Predicted beside measured memory, by part."""

from collections.abc import Sequence

from lorastudy.analysis.memory_parts import ArmMemory
from lorastudy.report.numerals import write_number
from lorastudy.report.tables.table import Cell, Column, Note, Table, text_cell
from lorastudy.units import MIB

_HOW = (
    "Each cell: predicted / measured. Predicted from shapes when the study started. Weights, "
    "gradients and optimizer state are counted from a run’s tensors; what comes and goes within a "
    "step (activations, logits, workspace) is its peak without these. On a CPU, the peak is that "
    "of the process, less what it held before the model was loaded and the code of libraries. The "
    "run of a small model also holds what libraries allocate as they go, which no part predicts. "
    "Of several seeds: the one with the highest peak."
)


def build_memory_table(arms: Sequence[ArmMemory]) -> Table:
    """One row for each arm whose prediction and measurement are known."""
    columns = (
        Column("arm", ("arm",), "left"),
        *(
            Column(title, (f"predicted_{name}_bytes", f"measured_{name}_bytes"))
            for title, name in _PARTS.items()
        ),
        Column("of it: activations", ("predicted_activations_bytes",)),
        Column("logits", ("predicted_logits_bytes",)),
        Column("workspace", ("predicted_workspace_bytes",)),
    )
    return Table(
        "Memory by part, MiB: predicted / measured",
        columns,
        tuple(map(_cells, arms)),
        (Note("", _HOW),),
    )


_PARTS = {
    "all but libraries": "peak",
    "weights": "weights",
    "gradients": "gradients",
    "optimizer state": "optimizer",
    "within a step": "passing",
}


def _cells(arm: ArmMemory) -> tuple[Cell, ...]:
    predicted, held = arm.predicted, arm.held
    pairs = (
        (arm.predicted_peak, arm.peak),
        (predicted.weights, held.weights),
        (predicted.gradients, held.gradients),
        (predicted.optimizer, held.optimizer),
        (predicted.passing, arm.passing),
    )
    alone = (predicted.activations, predicted.logits, predicted.workspace)
    return (
        text_cell(arm.arm),
        *(Cell(f"{_write(before)} / {_write(after)}", (before, after)) for before, after in pairs),
        *(Cell(_write(n_bytes), (n_bytes,)) for n_bytes in alone),
    )


def _write(n_bytes: int) -> str:
    return write_number(n_bytes / MIB, 0 if n_bytes >= 10 * MIB else 1)
