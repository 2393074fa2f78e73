"""Where a trained model differs from its base, and what each difference is worth.

    STUDY_DIR/explanations/<run>.json    one `Explanation`; derived from best/, so it may be deleted

`lorastudy explain` writes them. They are not records of a run: a report without them is whole. A
damaged file counts as missing, and the same command makes it again.
"""

from collections.abc import Iterable
from typing import Literal

from lorastudy.errors import StorageError
from lorastudy.store.files import read_record
from lorastudy.store.folders import RunFolder
from lorastudy.store.records import Record

PartKind = Literal["layer", "modules"]


class PartRecord(Record):
    """The model without the changes in one layer, or in the same modules of all layers."""

    name: str  # "3" of a layer, "attn.c_attn" of modules
    kind: PartKind
    cross_entropy: float  # without it, nats per target


class UpdateRecord(Record):
    """What training changed in one weight: W = W_base + D."""

    path: str  # of the tensor, "transformer.h.0.attn.c_attn.weight"
    layer: int | None  # None: it is in no layer
    modules: str  # its path within the layer, without the name of the tensor
    norm: float  # Frobenius norm of D
    base_norm: float  # of W_base
    rank: int  # of D at most: the smaller of its two sizes; 0 for vectors
    rank_90: int | None  # fewest singular values of D that hold 90 % of norm²; None: not known
    singular_values: tuple[float, ...]  # of D, largest first, 64 at most


class Explanation(Record):
    """The parts of one run's trained model."""

    run_id: str
    arm: str
    seed: int
    n_asked: int  # rows at most
    n_rows: int  # of the validation split, always the same ones
    n_targets: int
    cross_entropy: float  # of the trained model on these rows, nats per target
    base_cross_entropy: float  # of the base model
    parts: tuple[PartRecord, ...]  # layers in order, then modules
    updates: tuple[UpdateRecord, ...]  # in model order; only of tensors that changed


def read_explanation(run: RunFolder) -> Explanation | None:
    """What is known of a run; None if it has no such file, or a damaged one."""
    try:
        return read_record(run.explanation, Explanation) if run.explanation.is_file() else None
    except StorageError:
        return None


def list_damaged(runs: Iterable[RunFolder]) -> list[str]:
    """The runs whose file cannot be read."""
    return [r.path.name for r in runs if r.explanation.is_file() and read_explanation(r) is None]
