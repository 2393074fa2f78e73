"""What training and scoring took, and whether the timings are reliable."""

from lorastudy.analysis.evidence import CONTENDED, SEEDS_APART, SLOW_TENTH
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.statistics import Estimate, estimate_mean
from lorastudy.analysis.summary import ArmSummary
from lorastudy.report.numerals import ABSENT, write_estimate
from lorastudy.report.tables.table import Cell, Column, Note, Table, text_cell
from lorastudy.units import write_duration

HOW = (
    "Means over seeds ± sample standard deviation. Timings of an arm are unreliable if a tenth of "
    f"the steps of a run took at least {SLOW_TENTH:g} times as long per token as the median step, "
    f"if the speeds of its seeds differ by {100 * (SEEDS_APART - 1):.0f} % or more, if its threads "
    f"waited for the CPU {CONTENDED:.0%} of the time or more, or if its seeds ran on different "
    "devices. They then depend on more than the arm, such as on other programs."
)


def build_time_table(findings: Findings) -> Table:
    """Seconds of training and of everything else, speed, and signs of contention."""
    columns: tuple[Column, ...] = (
        Column("arm", ("arm",), "left"),
        Column("training", ("train_seconds", "train_seconds sd", "n")),
        Column("validation, checkpoints, scoring", ("other_seconds",)),
        Column("tokens per second", ("tokens_per_second", "tokens_per_second sd")),
        Column("slowest tenth of steps", ("slow_tenth",)),
        Column("unreliable", ("doubts",), "wrap"),
    )
    rows = tuple(_cells(arm, findings) for arm in findings.arms)
    # results of earlier versions do not have this time, so their table has no column for it
    published = [_published_cell(arm) for arm in findings.arms]
    if any(cell.values != (None,) for cell in published):
        name = "training, validation, checkpoints (as in the published Figure 4)"
        columns += (Column(name, ("train_and_validate_seconds",)),)
        rows = tuple((*row, cell) for row, cell in zip(rows, published, strict=True))
    return Table("Time, and whether the timings are reliable", columns, rows, (Note("", HOW),))


def _cells(arm: ArmSummary, findings: Findings) -> tuple[Cell, ...]:
    seconds, speed = arm.train_seconds, _speed(arm)
    others = [r.total_seconds - (r.train_seconds or 0.0) for r in arm.runs if r.total_seconds]
    other = estimate_mean(others)
    paces = [e.pace.slow_tenth for e in findings.evidence.of_arm(arm) if e.pace is not None]
    slowest = max(paces, default=None)
    doubts = "; ".join(findings.doubts.get(arm.arm, ()))
    return (
        text_cell(arm.arm),
        _seconds_cell(seconds, (seconds.mean, seconds.sd, seconds.n) if seconds else None),
        Cell(write_duration(other.mean) if other else ABSENT, (other.mean if other else None,)),
        _speed_cell(speed),
        Cell(f"{slowest:.2f} x median" if slowest else ABSENT, (slowest,)),
        Cell(doubts or "no sign of this", (doubts,), is_bad=bool(doubts)),
    )


def _published_cell(arm: ArmSummary) -> Cell:
    seconds = (run.train_and_validate_seconds for run in arm.runs)
    mean = estimate_mean([s for s in seconds if s is not None])
    return Cell(write_duration(mean.mean) if mean else ABSENT, (mean.mean if mean else None,))


def _speed(arm: ArmSummary) -> Estimate | None:
    return estimate_mean([r.tokens_per_second for r in arm.runs if r.tokens_per_second])


def _seconds_cell(
    estimate: Estimate | None, values: tuple[float, float | None, int] | None
) -> Cell:
    if estimate is None or values is None:
        return Cell(ABSENT, (None, None, 0))
    spread = f"± {estimate.sd:,.1f} s " if estimate.sd is not None else ""
    return Cell(write_duration(estimate.mean), values, detail=f"{spread}({estimate.n})")


def _speed_cell(speed: Estimate | None) -> Cell:
    if speed is None:
        return Cell(ABSENT, (None, None))
    text, detail = write_estimate(speed, 0)
    return Cell(text, (speed.mean, speed.sd), detail=detail)
