"""Score a model on every benchmark under every protocol, one file each."""

from lorastudy.evaluate.score import TARGET_CLASSES, RowScores, average_nats, score_rows
from lorastudy.inputs import BenchmarkRows, Reader
from lorastudy.interrupts import StopFlag
from lorastudy.loss import perplexity_of
from lorastudy.run.setup import RunSetup
from lorastudy.spec import RunSpec
from lorastudy.store.files import read_record, write_record
from lorastudy.store.folders import RunFolder
from lorastudy.store.records import ClassSum, DocumentScores, EvaluationRecord


def score_benchmarks(
    spec: RunSpec, folder: RunFolder, reader: Reader, setup: RunSetup, stop: StopFlag
) -> tuple[EvaluationRecord, ...]:
    """All evaluations of the run; those whose file exists already are not repeated."""
    records = []
    for benchmark in spec.benchmarks:
        for protocol in benchmark.protocols:
            path = folder.evaluations / f"{benchmark.name}--{protocol}.json"
            if path.exists():
                records.append(read_record(path, DocumentScores).evaluation)
                continue
            rows = reader.benchmark_rows(benchmark, protocol, spec.data.rows)
            scores = score_rows(
                setup.scorer,
                rows.corpus.tokens,
                rows.table,
                rows.padding,
                device=setup.device,
                poll=stop.poll,
            )
            stored = describe_scores(benchmark.name, rows, scores)
            write_record(path, stored)
            records.append(stored.evaluation)
    return tuple(records)


def describe_scores(benchmark: str, rows: BenchmarkRows, scores: RowScores) -> DocumentScores:
    """The stored form of a score."""
    protocol, pooled = rows.protocol, scores.sums
    cross_entropy = average_nats(protocol, scores)
    evaluation = EvaluationRecord(
        benchmark=benchmark,
        protocol=protocol.name,
        protocol_version=protocol.version,
        cross_entropy=cross_entropy,
        perplexity=perplexity_of(cross_entropy),
        n_tokens=pooled.n_tokens,
        n_documents=len(set(rows.table.documents.tolist())),
        sum_nats=pooled.sum_nats,
        seconds=scores.seconds,
        classes=_classes(scores) if protocol.scores_padding else (),
    )
    return DocumentScores(
        evaluation=evaluation,
        n_targets=tuple(scores.n_scored.tolist()),
        nats=tuple(scores.sum_nats.tolist()),
    )


def _classes(scores: RowScores) -> tuple[ClassSum, ...]:
    return tuple(
        ClassSum(target_class=name, n_targets=int(n), sum_nats=float(nats))  # type: ignore[arg-type]
        for name, n, nats in zip(
            TARGET_CLASSES, scores.class_counts, scores.class_nats, strict=True
        )
    )
