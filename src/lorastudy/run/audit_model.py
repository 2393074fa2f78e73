"""The work of `lorastudy audit`: score a model by class of target, or only count targets."""

from dataclasses import dataclass
from pathlib import Path

from lorastudy.config.models import BaseModelRef, Benchmark
from lorastudy.data.rows import cut_lines
from lorastudy.errors import InputError
from lorastudy.evaluate.audit import TargetCounts, Undone, count_targets, undo_padding
from lorastudy.loss import perplexity_of
from lorastudy.model.base import quieten_libraries
from lorastudy.model.base_folder import find_base_folder, find_tokenizer_folder
from lorastudy.model.tokenizer import load_tokenizer
from lorastudy.protocols import TEXT_CLASSES
from lorastudy.run.evaluate_model import evaluate_model
from lorastudy.run.inputs import open_corpus_of
from lorastudy.store.places import Places
from lorastudy.store.records import EvaluationRecord


@dataclass(frozen=True, slots=True)
class Audit:
    """What a perplexity over padded rows of a benchmark consists of."""

    benchmark: str
    length: int
    counts: TargetCounts
    records: tuple[EvaluationRecord, ...]  # empty if no model was scored
    undone: Undone | None

    @property
    def class_nats(self) -> dict[str, float | None]:
        """Nats per target, for each class that has targets; empty without a model."""
        return {
            part.target_class: part.sum_nats / part.n_targets if part.n_targets else None
            for record in self.records
            for part in record.classes
        }

    @property
    def text_perplexity(self) -> float | None:
        """Exp of the nats per text token in the padded rows; None without a model."""
        text = [
            part
            for record in self.records
            for part in record.classes
            if part.target_class in TEXT_CLASSES
        ]
        n_targets = sum(part.n_targets for part in text)
        if not n_targets:
            return None
        return perplexity_of(sum(part.sum_nats for part in text) / n_targets)


def audit_model(
    model: BaseModelRef,
    adapter: Path | None,
    benchmark: Benchmark,
    places: Places,
    *,
    length: int,
    reported: float | None,
    device: str,
    precision: str,
) -> Audit:
    """Score `model` under the protocols of `benchmark`, one of which scores padding.

    Raises:
        InputError: The model, adapter or data cannot be used.
        ConfigError: A protocol does not fit the model, or `reported` is not a perplexity.
    """
    folder = find_base_folder(model, mirror=places.mirror, offline=places.offline, base=places.base)
    counts = _count(folder, benchmark, places, length)
    undone = None if reported is None else undo_padding(reported, counts)
    records = evaluate_model(
        model, adapter, benchmark, places, length=length, device=device, precision=precision
    )
    return Audit(benchmark.name, length, counts, records, undone)


def audit_report(
    reported: float, tokenizer: BaseModelRef, benchmark: Benchmark, places: Places, *, length: int
) -> Audit:
    """Count the targets that `reported` was averaged over; reads no weights.

    Raises:
        InputError: The tokenizer or data cannot be used.
        ConfigError: `reported` is not a perplexity.
    """
    folder = find_tokenizer_folder(
        tokenizer, mirror=places.mirror, offline=places.offline, base=places.base
    )
    counts = _count(folder, benchmark, places, length)
    return Audit(benchmark.name, length, counts, (), undo_padding(reported, counts))


def _count(folder: Path, benchmark: Benchmark, places: Places, length: int) -> TargetCounts:
    quieten_libraries()
    tokenizer = load_tokenizer(folder)
    corpus = open_corpus_of(benchmark, "texts", tokenizer, places)
    table = cut_lines(corpus.offsets, length, tokenizer.start_id)
    if table.n_rows == 0:
        raise InputError(
            f"benchmark {benchmark.name!r} has no scored token. Check its split and column."
        )
    return count_targets(table, length)
