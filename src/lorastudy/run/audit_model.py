"""The work of `lorastudy audit`: score a model by class of target, or only count targets."""

from dataclasses import dataclass
from pathlib import Path

from lorastudy.config.models import BaseModelRef, Benchmark, Rows, Source
from lorastudy.data.corpus import Corpus, prepare_corpus
from lorastudy.data.rows import cut_lines
from lorastudy.data.text_counts import count_text
from lorastudy.errors import InputError
from lorastudy.evaluate.audit import TargetCounts, Undone, count_targets, undo_padding
from lorastudy.loss import perplexity_of
from lorastudy.model.base import quieten_libraries
from lorastudy.model.base_folder import find_base_folder, find_tokenizer_folder
from lorastudy.model.tokenizer import Tokenizer, load_tokenizer
from lorastudy.protocols import TEXT_CLASSES, Form, form_of_rows
from lorastudy.run.evaluate_model import evaluate_model
from lorastudy.run.inputs import read_source
from lorastudy.store.counts import TextCounts
from lorastudy.store.places import Places
from lorastudy.store.records import EvaluationRecord


@dataclass(frozen=True, slots=True)
class Reading:
    """The padded rows of a benchmark, with white space around texts removed or kept."""

    strip: bool
    text: TextCounts
    counts: TargetCounts
    undone: Undone | None  # None: no number was reported


@dataclass(frozen=True, slots=True)
class Audit:
    """What a perplexity over padded rows of a benchmark consists of."""

    benchmark: str
    length: int
    readings: tuple[Reading, Reading]  # the one that was asked for, and the other one
    records: tuple[EvaluationRecord, ...]  # of the first reading; empty if no model was scored

    @property
    def counts(self) -> TargetCounts:
        """Targets of the reading that was asked for."""
        return self.readings[0].counts

    @property
    def undone(self) -> Undone | None:
        """What the reported number stands for in the reading that was asked for."""
        return self.readings[0].undone

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
    rows: Rows,
    *,
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
    readings = _read_both(folder, benchmark, places, rows, reported)
    records = evaluate_model(
        *(model, adapter, benchmark, places),
        length=rows.length,
        device=device,
        precision=precision,
        strip=rows.strip,
    )
    return Audit(benchmark.name, rows.length, readings, records)


def audit_report(
    reported: float, tokenizer: BaseModelRef, benchmark: Benchmark, places: Places, rows: Rows
) -> Audit:
    """Count the targets that `reported` was averaged over; reads no weights.

    Raises:
        InputError: The tokenizer or data cannot be used.
        ConfigError: `reported` is not a perplexity.
    """
    folder = find_tokenizer_folder(
        tokenizer, mirror=places.mirror, offline=places.offline, base=places.base
    )
    readings = _read_both(folder, benchmark, places, rows, reported)
    return Audit(benchmark.name, rows.length, readings, ())


def _read_both(
    folder: Path, benchmark: Benchmark, places: Places, rows: Rows, reported: float | None
) -> tuple[Reading, Reading]:
    quieten_libraries()
    tokenizer = load_tokenizer(folder)

    def read(*, strip: bool) -> Reading:
        corpus = _open_corpus(benchmark, form_of_rows(strip=strip), tokenizer, places)
        table = cut_lines(corpus.offsets, rows.length, tokenizer.start_id)
        if table.n_rows == 0:
            raise InputError(
                f"benchmark {benchmark.name!r} has no scored token. Check its split and column."
            )
        counts = count_targets(table, rows.length)
        undone = None if reported is None else undo_padding(reported, counts)
        text = count_text(corpus, table, tokenizer.unknown_id)
        return Reading(strip, text, counts, undone)

    return read(strip=rows.strip), read(strip=not rows.strip)


def _open_corpus(source: Source, form: Form, tokenizer: Tokenizer, places: Places) -> Corpus:
    """The documents that `form` makes of `source`, tokenised.

    Raises:
        InputError: The source cannot be read.
    """
    documents = read_source(source, form, places)
    if documents.examples:
        raise InputError(
            f"{source.label} holds rows with answers, and text is needed here. Set `column` to "
            "one that holds text."
        )
    return prepare_corpus(documents, tokenizer, places.cache / "corpora", form=form)
