"""Sums of single documents and answers to single items: one file for each score of a run.

They are read back for comparisons, and checked against their score.
"""

import math
from typing import Literal

from lorastudy.config.syntax import IfAny
from lorastudy.errors import StorageError
from lorastudy.store.files import read_record
from lorastudy.store.folders import RunFolder
from lorastudy.store.records import EvaluationRecord, Record

_TOLERANCE = 1e-6  # relative; the sums are the same numbers added in another order


class ItemRecord(Record):
    """One item of a task: what was answered, and whether that is right."""

    place: str  # "items.jsonl, line 3"
    prompt: str  # of a conversation: its last question
    answer: str  # the right one
    text: str  # what the model answered: generated, or the choice that it took
    right: float  # 1 or 0; metrics of lm-evaluation-harness also have what lies between
    # generation ended only at `max_new_tokens`
    is_cut: IfAny[bool] = False
    # of each choice, or of each text whose likelihood was asked for
    nats: IfAny[tuple[float, ...]] = ()


class DocumentSums(Record):
    """`evaluations/<benchmark>--<protocol>.json`: a score with its sums per document.

    If the protocol joins all documents, the sums are per window. A task has items instead.
    """

    evaluation: EvaluationRecord
    # "row": written before this was recorded
    unit: Literal["document", "window", "item", "row"] = "row"
    n_targets: tuple[int, ...] = ()
    nats: tuple[float, ...] = ()
    items: IfAny[tuple[ItemRecord, ...]] = ()

    @property
    def weights(self) -> tuple[int, ...]:
        """What the losses of documents are divided by: their targets, or one per item."""
        return (1,) * len(self.items) if self.unit == "item" else self.n_targets

    @property
    def losses(self) -> tuple[float, ...]:
        """What is lost on each document: its nats; of an item, 1 if its answer is wrong."""
        return tuple(1 - item.right for item in self.items) if self.unit == "item" else self.nats


def read_document_sums(run: RunFolder, evaluation: EvaluationRecord) -> DocumentSums:
    """The sums by document behind `evaluation` of a run.

    Raises:
        StorageError: The file is missing or damaged, belongs to another score, or its
            parts do not add up to the score.
    """
    path = run.evaluations / f"{evaluation.benchmark}--{evaluation.protocol}.json"
    if not path.is_file():
        raise StorageError(f"{path} is missing. Restore it to compare document by document.")
    found = read_record(path, DocumentSums)
    if (problem := _find_problem(found, evaluation)) is not None:
        raise StorageError(f"{path} {problem}. Restore the file that the run wrote.")
    return found


def _find_problem(found: DocumentSums, evaluation: EvaluationRecord) -> str | None:
    if evaluation.cross_entropy is None:
        return _find_problem_of_items(found, evaluation)
    if len(found.nats) != len(found.n_targets):
        return f"has {len(found.nats)} sums of nats for {len(found.n_targets)} counts of targets"
    if found.evaluation.protocol_version != evaluation.protocol_version:
        return f"is of version {found.evaluation.protocol_version} of its protocol"
    if sum(found.n_targets) != evaluation.n_tokens:
        return f"counts {sum(found.n_targets)} targets, its score {evaluation.n_tokens}"
    total = math.fsum(found.nats) if all(map(math.isfinite, found.nats)) else math.nan
    if (
        evaluation.sum_nats is not None
        and math.isfinite(evaluation.sum_nats)
        and not math.isclose(total, evaluation.sum_nats, rel_tol=_TOLERANCE)
    ):
        return f"adds up to {total:.6g} nats, its score to {evaluation.sum_nats:.6g}"
    return None


def _find_problem_of_items(found: DocumentSums, evaluation: EvaluationRecord) -> str | None:
    if len(found.losses) != evaluation.n_documents:
        return f"has {len(found.losses)} items, its score {evaluation.n_documents}"
    share = math.fsum(found.losses) / len(found.losses)
    if not math.isclose(share, evaluation.loss, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
        return f"has {share:.6g} of its answers wrong, its score {evaluation.loss:.6g}"
    return None
