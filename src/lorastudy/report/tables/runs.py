"""The list of all runs, and the runs that failed."""

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.summary import missing_of
from lorastudy.report.numerals import ABSENT, write_number, write_rate
from lorastudy.report.tables.table import Cell, Column, Note, Table, text_cell
from lorastudy.report.wording import RIGHT, name_measure
from lorastudy.store.rates import best_validation
from lorastudy.store.records import RunResult, StudyResults
from lorastudy.units import MIB

TUNING = (
    "“Tuning”: a run that only helped to choose the learning rate of its arm by {measure}. "
    "It is not scored, and is in no other number than the cost of the choice."
)


def build_run_table(findings: Findings) -> Table:
    """Every run on its own, arms in the study's order, with those that are still missing."""
    results, kind = findings.results, findings.memory_kind
    rows: list[tuple[Cell, ...]] = []
    for arm in results.arms:
        rows += [
            _run_cells(run, findings, is_tuning=run.seed in results.tuning_seeds)
            for run in (*results.runs, *results.stopped)
            if run.arm == arm
        ]
        rows += [_missing_cells(run_id, arm, findings) for run_id in missing_of(arm, results)]
    columns = (
        Column("run", ("run_id",), "left"),
        Column("arm", ("arm",), "left"),
        Column("seed", ("seed",)),
        Column("learning rate", ("learning_rate",)),
        Column("status", ("status",), "left"),
        Column("best epoch", ("best_epoch",)),
        Column("best validation loss", ("best_validation_loss",)),
        *([Column(RIGHT, ("best_validation_accuracy",))] if findings.is_by_answers else []),
        Column("training seconds", ("train_seconds",)),
        Column("tokens per second", ("tokens_per_second",)),
        Column(f"peak {kind or 'memory'}, MiB", ("peak_memory_bytes",)),
    )
    tuning = Note("", TUNING.format(measure=name_measure(findings)))
    notes = (tuning,) if results.tuning_seeds else ()
    return Table("All runs", columns, tuple(rows), notes)


def build_failure_table(results: StudyResults) -> Table:
    """The runs that did not finish, each with its whole reason; no rows if all did."""
    columns = (
        Column("run", ("run_id",), "left"),
        Column("what happened", ("status",), "left"),
        Column("reason", ("reason",), "wrap"),
    )
    rows = tuple(
        (text_cell(run.run_id), text_cell(run.status), text_cell(run.reason or ABSENT))
        for run in results.runs
        if run.status != "done"
    )
    return Table("Runs that did not finish", columns, rows)


def _run_cells(run: RunResult, findings: Findings, *, is_tuning: bool) -> tuple[Cell, ...]:
    best, memory = best_validation(run), run.peak_memory_bytes.get(findings.memory_kind or "")
    validated = [(best.loss if best else None, 4)]
    validated += [(best.accuracy if best else None, 3)] if findings.is_by_answers else []
    rate, seconds, speed = run.learning_rate, run.train_seconds, run.tokens_per_second
    return (
        text_cell(run.run_id),
        text_cell(run.arm),
        Cell(str(run.seed), (run.seed,), detail="tuning" if is_tuning else ""),
        Cell(ABSENT if rate is None else write_rate(rate), (rate,)),
        text_cell(_status(run)),
        Cell(ABSENT if run.best_epoch is None else str(run.best_epoch), (run.best_epoch,)),
        *(
            Cell(ABSENT if found is None else write_number(found, decimals), (found,))
            for found, decimals in validated
        ),
        Cell(ABSENT if seconds is None else write_number(seconds, 1), (seconds,)),
        Cell(ABSENT if speed is None else write_number(speed, 0), (speed,)),
        Cell(ABSENT if memory is None else write_number(memory / MIB, 0), (memory,)),
    )


def _status(run: RunResult) -> str:
    """The status, an early stop, and whether the run continued in another environment."""
    parts: list[str] = [run.status]
    if run.planned_steps is not None:
        parts.append(f"stopped early after step {run.optimizer_steps:,} of {run.planned_steps:,}")
    if run.drift:
        parts.append(f"resumed with {'; '.join(run.drift)}")
    return ", ".join(parts)


def _missing_cells(run_id: str, arm: str, findings: Findings) -> tuple[Cell, ...]:
    n_unknown = 6 if findings.is_by_answers else 5
    known = (text_cell(run_id), text_cell(arm), Cell(ABSENT, (None,)), Cell(ABSENT, (None,)))
    return (*known, text_cell("not run yet"), *(Cell(ABSENT, (None,)) for _ in range(n_unknown)))
