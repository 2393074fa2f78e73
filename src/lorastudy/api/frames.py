"""The findings of a study as pandas tables: one row per run, epoch, score or pair of arms."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pandas import DataFrame
from pydantic import BaseModel

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.pairs import Comparison, Pair
from lorastudy.config.spec import expand_study
from lorastudy.store.records import EpochRecord, EvaluationRecord, RunResult

_RUN = ("run_id", "arm", "seed")  # lead every table of runs
_NESTED = frozenset(
    {"epochs", "validations", "evaluations", "peak_memory_bytes", "drift", "classes"}
)
_PAIR = (
    *("benchmark", "protocol", "protocol_version", "first", "second", "difference", "low", "high"),
    *("p", "p_holm", "p_equivalence", "verdict", "n_seeds", "remark"),
)


def make_runs(findings: Findings) -> DataFrame:
    """One row per run of the study, missing ones included.

    `is_counted` says whether the report's means include the run: it has finished, at the
    learning rate that was chosen for its arm.
    """
    results = findings.results
    counted = {run.run_id for arm in findings.arms for run in arm.runs}
    kinds = dict.fromkeys(kind for run in results.runs for kind in run.peak_memory_bytes)
    peaks = [f"peak_{kind}_bytes" for kind in kinds]
    rows = [
        {
            **_flat(run),
            **{f"peak_{kind}_bytes": n for kind, n in run.peak_memory_bytes.items()},
            "is_counted": run.run_id in counted,
        }
        for run in results.runs
    ]
    rows += [row for row in _missing_rows(findings) if row["run_id"] in results.missing]
    return _frame(rows, [*_fields(RunResult), *peaks, "is_counted"])


def make_epochs(findings: Findings) -> DataFrame:
    """One row per epoch of a run: losses in nats per target, seconds."""
    rows = [
        {**_names(run), **_flat(epoch)} for run in findings.results.runs for epoch in run.epochs
    ]
    return _frame(rows, [*_RUN, *_fields(EpochRecord)])


def make_scores(findings: Findings) -> DataFrame:
    """One row per run, benchmark and protocol."""
    rows = [
        {**_names(run), **_flat(evaluation)}
        for run in findings.results.runs
        for evaluation in run.evaluations
    ]
    return _frame(rows, [*_RUN, *_fields(EvaluationRecord)])


def make_pairs(findings: Findings) -> DataFrame:
    """One row per score and pair of arms: the cross-entropy of `first` minus that of `second`."""
    rows = [
        _pair_row(comparison, pair)
        for comparison in findings.comparisons
        for pair in comparison.pairs
    ]
    return _frame(rows, _PAIR)


def _pair_row(comparison: Comparison, pair: Pair) -> dict[str, object]:
    key, interval = comparison.key, pair.interval
    return {
        "benchmark": key.benchmark,
        "protocol": key.protocol,
        "protocol_version": key.version,
        "first": pair.first,
        "second": pair.second,
        "difference": pair.mean,  # nats per target, or per document
        "low": interval and interval.low,
        "high": interval and interval.high,
        "p": pair.p,
        "p_holm": pair.p_holm,
        "p_equivalence": pair.p_equivalence,
        "verdict": pair.verdict,
        "n_seeds": len(pair.seeds),
        "remark": pair.remark,
    }


def _missing_rows(findings: Findings) -> Iterator[dict[str, object]]:
    rates = {arm.arm: rate for arm in findings.arms if (rate := arm.learning_rate) is not None}
    for spec in expand_study(findings.study, rates) if findings.study else ():
        yield {
            "run_id": spec.run_id,
            "arm": spec.arm.name,
            "method": spec.arm.method,
            "seed": spec.seed,
            "learning_rate": spec.learning_rate,
            "status": "missing",
            "is_counted": False,
        }


def _names(run: RunResult) -> dict[str, object]:
    return {name: getattr(run, name) for name in _RUN}


def _flat(record: BaseModel) -> dict[str, Any]:
    return record.model_dump(exclude=set(_NESTED))


def _fields(kind: type[BaseModel]) -> list[str]:
    return [name for name in kind.model_fields if name not in _NESTED]


def _frame(rows: Iterable[Mapping[str, object]], columns: Iterable[str]) -> DataFrame:
    return DataFrame(list(rows), columns=list(columns))
