"""Score a model on every benchmark under every protocol, one file each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lorastudy.config.models import Benchmark
from lorastudy.evaluate.score import RowScores, average_nats, score_rows
from lorastudy.evaluate.subset import estimate_error
from lorastudy.evaluate.text_units import convert_nats, measure_coverage
from lorastudy.loss import perplexity_of
from lorastudy.machine.team import ALONE, Team
from lorastudy.model.sharing import AnyScorer
from lorastudy.protocols import Protocol
from lorastudy.run.context import RunContext
from lorastudy.run.inputs import BenchmarkRows
from lorastudy.run.tasks import AskedModel, TaskItems, describe_items, time_answers
from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.files import read_record, write_record
from lorastudy.store.records import ClassSum, EvaluationRecord


@dataclass(frozen=True, slots=True)
class ScorePlace:
    """A benchmark under a protocol, and the file of its score."""

    benchmark: Benchmark
    protocol: str
    path: Path


def list_places(context: RunContext, form: str = "") -> tuple[ScorePlace, ...]:
    """One place for each score of the run; `form`: of its model in this form, if not as trained."""
    suffix = f"--merged-{form}" if form else ""
    return tuple(
        ScorePlace(
            benchmark, name, context.folder.evaluations / f"{benchmark.name}--{name}{suffix}.json"
        )
        for benchmark in context.spec.benchmarks
        for name in benchmark.protocols
    )


def score_benchmarks(
    context: RunContext, scorer: AnyScorer, places: Sequence[ScorePlace] | None = None
) -> tuple[EvaluationRecord, ...]:
    """The evaluations at `places`, or all of the run; those that have a file are not repeated."""
    records, team = [], context.team
    for place in list_places(context) if places is None else places:
        if team.any(team.is_first and place.path.exists()):
            records.append(read_record(place.path, DocumentSums).evaluation)
            continue
        rows = context.spec.data.rows
        stored = score_part(
            scorer,
            context.reader.benchmark_part(place.benchmark, place.protocol, rows),
            place.benchmark.name,
            context.device,
            poll=context.stop.poll,
            team=team,
        )
        if team.is_first:
            write_record(place.path, stored)
            context.folder.note_written()
        records.append(stored.evaluation)
    return tuple(records)


def score_part(
    scorer: AnyScorer,
    part: BenchmarkRows | TaskItems,
    benchmark: str,
    device: torch.device,
    *,
    poll: Callable[[], None] = lambda: None,
    team: Team = ALONE,
) -> DocumentSums:
    """The stored form of a model's score on a benchmark under one protocol."""
    if isinstance(part, TaskItems):
        model = AskedModel(scorer, device, poll, team)
        return describe_items(benchmark, part, *time_answers(part, model))
    return describe_scores(benchmark, part, score_benchmark_rows(scorer, part, device, poll, team))


def score_benchmark_rows(
    scorer: AnyScorer,
    rows: BenchmarkRows,
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
    team: Team = ALONE,
) -> RowScores:
    """Sums of a model on a benchmark under one protocol."""
    return score_rows(
        scorer,
        rows.corpus.tokens,
        rows.table,
        rows.padding,
        device=device,
        poll=poll,
        count_first_choices=rows.protocol.kind.has_accuracy,
        team=team,
    )


def describe_scores(benchmark: str, rows: BenchmarkRows, scores: RowScores) -> DocumentSums:
    """The stored form of a score."""
    protocol, pooled = rows.protocol.kind, scores.sums
    cross_entropy = average_nats(protocol, scores)
    coverage = measure_coverage(protocol, rows.corpus, rows.table)
    # nats of unknown tokens and of other letters say nothing about the words and bytes of the text
    units = convert_nats(pooled.sum_nats, coverage) if rows.text.has_units else None
    evaluation = EvaluationRecord(
        benchmark=benchmark,
        protocol=rows.protocol.name,
        protocol_version=protocol.version,
        cross_entropy=cross_entropy,
        perplexity=perplexity_of(cross_entropy),
        n_tokens=pooled.n_tokens,
        n_documents=len(set(rows.table.documents.tolist())),
        sum_nats=pooled.sum_nats,
        seconds=scores.seconds,
        classes=_classes(protocol, scores),
        averaged_over=protocol.average,
        n_unscored=coverage.n_unscored,
        n_documents_cut=coverage.n_documents_cut,
        n_words=coverage.n_words,
        n_bytes=coverage.n_bytes,
        word_perplexity=units.word_perplexity if units else None,
        byte_perplexity=units.byte_perplexity if units else None,
        bits_per_byte=units.bits_per_byte if units else None,
        accuracy=scores.accuracy,
        tokenizer_digest=rows.corpus.record.tokenizer_digest,
        n_population=rows.n_population,
        text=rows.text,
        standard_error=estimate_error(protocol, scores, rows.table, rows.n_population)
        if rows.n_population
        else None,
    )
    parts = scores if protocol.joins_documents else scores.pooled_by(rows.table.documents)
    return DocumentSums(
        evaluation=evaluation,
        unit="window" if protocol.joins_documents else "document",
        n_targets=tuple(parts.n_scored.tolist()),
        nats=tuple(parts.sum_nats.tolist()),
    )


def _classes(protocol: Protocol, scores: RowScores) -> tuple[ClassSum, ...]:
    """Sums by class of target; none if the protocol does not tell classes apart."""
    if not protocol.classes:
        return ()
    sums = zip(protocol.classes, scores.class_counts, scores.class_nats, strict=True)
    return tuple(
        ClassSum(target_class=name, n_targets=int(n), sum_nats=float(nats))
        for name, n, nats in sums
    )
