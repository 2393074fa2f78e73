"""Table I: what every arm trains, reaches and costs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.pairs import Comparison
from lorastudy.analysis.statistics import Estimate, Sample, estimate_score, mean
from lorastudy.analysis.summary import ArmSummary, ScoreKey, score_key
from lorastudy.protocols import protocol_of_rows
from lorastudy.report.numerals import (
    ABSENT,
    perplexity_decimals,
    write_estimate,
    write_range,
    write_rate,
    write_share,
)
from lorastudy.report.tables.comparisons import describe_lead
from lorastudy.report.tables.score_notes import warn_of_scores
from lorastudy.report.tables.table import Cell, Column, Note, Table, score_column
from lorastudy.report.wording import list_placement, name_best
from lorastudy.store.records import RunResult
from lorastudy.units import MIB

_LARGEST_NATS = 27.0  # exp of it is a million million

MARKS = {
    "†": "not separated from the lowest loss, in paired comparisons over seeds and documents, "
    "adjusted over all pairs.",
    "‡": "the lowest loss of the column. With one seed nothing is bold: another seed may change "
    "the order, so there is no claim about training.",
}
SCORE_NOTE = (
    "Perplexity: exp(mean loss over seeds), each run at the epoch and each arm at the learning "
    "rate with the {best}. Bold: separated from every other arm of the column."
)
ELSEWHERE_NOTE = (
    "Perplexity: exp(mean loss over seeds), of models that were trained elsewhere; training times "
    "and memory are not known. Bold: separated from every other arm of the column."
)
INTERVAL_NOTE = (
    "Brackets: 95 % interval of the arm by itself, over seeds and documents (with one seed over "
    "documents only); without an interval, ± sample standard deviation over seeds (number of "
    "seeds). Arms share their documents, so two such intervals may overlap though the arms are "
    "separated: differences are judged in pairs."
)
_PADDED = protocol_of_rows(scored_padding=True).pattern
TASK_NOTE = (
    "Accuracy: the share of items with a right answer, the mean over seeds. Arms are compared by "
    "the share of wrong answers, so that a lower loss is better everywhere."
)
PADDING_NOTE = f"{_PADDED} scores padding as text: compare it with that protocol only."


def build_table1(findings: Findings) -> Table:
    """Table I: what every arm trains, costs and reaches; failed arms keep their row."""
    results, arms, kind = findings.results, findings.arms, findings.memory_kind
    comparisons = findings.comparisons
    n_seeds = len(results.seeds)
    score_cells = [[_score_cell(arm, c, n_seeds) for arm in arms] for c in comparisons]
    rows = tuple(
        (
            Cell(arm.arm, (arm.arm,), detail=", ".join(list_placement(findings, arm.arm))),
            *(cells[position] for cells in score_cells),
            *_arm_cells(arm),
            _seconds_cell(arm, is_reliable=arm.arm not in findings.doubts),
            _estimate_cell(arm.peak_memory_bytes(kind), unit=MIB, decimals=0),
            _finished_cell(arm),
        )
        for position, arm in enumerate(arms)
    )
    rows = tuple(
        row
        for arm, of_arm in zip(arms, rows, strict=True)
        for row in (of_arm, *_served_rows(arm, comparisons, of_arm))
    )
    shown = ", ".join(dict.fromkeys(c.key.quantity for c in comparisons)) or "perplexity"
    title = f"Table I. {results.name}: {shown} and cost of every arm"
    scores = (score_column(c.key, _score_parts(c.key)) for c in comparisons)
    columns = (Column("arm", ("arm",), "left"), *scores, *_ARM_COLUMNS, *_cost_columns(kind))
    of_scores = SCORE_NOTE.format(best=name_best(findings))
    of_scores = ELSEWHERE_NOTE if findings.is_elsewhere else of_scores
    notes = (*_notes(comparisons, of_scores), *warn_of_scores(results))
    return Table(title, columns, rows, notes)


def _score_parts(key: ScoreKey) -> tuple[str, ...]:
    return ("sd", "n", "low", "high", "error_rate" if key.is_task else "cross_entropy")


_ARM_COLUMNS = (
    Column("trainable parameters", ("trainable_parameters", "total_parameters")),
    Column("share", ("trainable_share",)),
    Column("learning rate", ("learning_rate",)),
    Column("best epoch", ("best_epoch_first", "best_epoch_last")),
)


def _cost_columns(kind: str | None) -> tuple[Column, ...]:
    memory = f"peak_{kind or 'memory'}_bytes"
    return (
        Column("training seconds", ("train_seconds", "train_seconds sd", "train_seconds n")),
        Column(f"peak {kind or 'memory'}, MiB", (memory, f"{memory} sd", f"{memory} n")),
        Column("runs finished", ("runs_finished", "runs_expected", "remark"), "wrap"),
    )


def _arm_cells(arm: ArmSummary) -> tuple[Cell, ...]:
    trained, total, rate = arm.trainable_parameters, arm.total_parameters, arm.learning_rate
    epochs = arm.best_epochs
    return (
        Cell(ABSENT if trained is None else f"{trained:,}", (trained, total)),
        Cell(
            write_share(trained, total),
            (trained / total if trained is not None and total else None,),
        ),
        Cell(
            ABSENT if rate is None else write_rate(rate),
            (rate,),
            detail=f"of {arm.n_rates_tried} tried" if arm.n_rates_tried > 1 else "",
        ),
        Cell(write_range(epochs), (epochs[0], epochs[-1]) if epochs else (None, None)),
    )


def _score_cell(arm: ArmSummary, comparison: Comparison, n_seeds: int) -> Cell:
    sample = arm.sample(comparison.key)
    estimate = estimate_score(sample)
    if estimate is None:
        is_failed = bool(arm.failed) and not arm.runs
        is_damaged = all(run.status == "damaged" for run in arm.failed)
        text = ("damaged" if is_damaged else "failed") if is_failed else ABSENT
        return Cell(text, (None, None, 0, None, None, None), is_bad=is_failed)
    decimals = perplexity_decimals(estimate.mean)
    text, spread = write_estimate(estimate, decimals)
    low, high = _shown_ends(arm, comparison)
    is_known = low is not None and high is not None
    is_short = not arm.is_baseline and estimate.n < n_seeds
    detail = f"[{low:,.{decimals}f}, {high:,.{decimals}f}]" if is_known else spread
    if is_short and is_known:
        detail += f" ({estimate.n} of {n_seeds})"
    elif is_short:
        detail = spread.replace(f"({estimate.n})", f"({estimate.n} of {n_seeds})")
    return Cell(
        text,
        (estimate.mean, estimate.sd, estimate.n, low, high, mean(sample.losses)),
        detail=detail,
        is_emphasised=comparison.leader == arm.arm,
        mark=_mark(arm.arm, comparison),
        hint=spread.replace(f"({estimate.n})", f"over {estimate.n} seeds") if estimate.sd else "",
    )


def _served_rows(
    arm: ArmSummary, comparisons: Sequence[Comparison], of_arm: Sequence[Cell]
) -> Iterator[tuple[Cell, ...]]:
    """A row for each form in which the arm's merged weights would be served: scores alone."""
    forms = dict.fromkeys(score.merged for run in arm.runs for score in run.served)
    for form in forms:
        name = Cell(f"{arm.arm}, merged to {form}", (f"{arm.arm} merged {form}",))
        scores = [_served_cell(arm, form, comparison) for comparison in comparisons]
        others = [Cell(ABSENT, (None,) * len(c.values)) for c in of_arm[1 + len(scores) :]]
        yield (name, *scores, *others)


def _served_cell(arm: ArmSummary, form: str, comparison: Comparison) -> Cell:
    scores = [score for run in arm.runs for score in run.served if score.merged == form]
    found = [s.evaluation for s in scores if score_key(s.evaluation) == comparison.key]
    losses, shown = tuple(e.loss for e in found), tuple(e.shown for e in found)
    estimate = estimate_score(Sample(arm.arm, shown, losses, comparison.key.is_task))
    if estimate is None:
        return Cell(ABSENT, (None, None, 0, None, None, None))
    text, spread = write_estimate(estimate, perplexity_decimals(estimate.mean))
    values = (estimate.mean, estimate.sd, estimate.n, None, None, mean(losses))
    return Cell(text, values, detail=spread)


def _shown_ends(arm: ArmSummary, comparison: Comparison) -> tuple[float, float] | tuple[None, None]:
    """The ends of the arm's own interval; none where they are beyond all bounds or not known."""
    level = comparison.find_level(arm.arm)
    if level is None or level.interval.high > _LARGEST_NATS:
        return None, None
    low, high = sorted(map(comparison.key.show, (level.interval.low, level.interval.high)))
    if not comparison.key.is_task:
        return low, high
    # all answers right, or all wrong: these items do not say how far from that others are
    return (max(low, 0.0), min(high, 1.0)) if low < high else (None, None)


def _mark(arm: str, comparison: Comparison) -> str:
    if len(comparison.ranked) < 2 or comparison.n_documents == 0 or comparison.leader is not None:
        return ""
    if comparison.is_one_seed:
        return "‡" if arm == comparison.ranked[0] else ""
    return "†" if arm in comparison.not_separated_from_lead else ""


def _estimate_cell(estimate: Estimate | None, *, unit: int = 1, decimals: int = 1) -> Cell:
    """The estimate in units of `unit` for people, and as it is for programs."""
    if estimate is None:
        return Cell(ABSENT, (None, None, 0))
    sd = None if estimate.sd is None else estimate.sd / unit
    shown = Estimate(
        estimate.mean / unit, sd, estimate.n, estimate.lowest / unit, estimate.highest / unit
    )
    text, detail = write_estimate(shown, 0 if shown.mean >= 1000 else decimals)
    return Cell(text, (estimate.mean, estimate.sd, estimate.n), detail=detail)


def _seconds_cell(arm: ArmSummary, *, is_reliable: bool) -> Cell:
    """Seconds of training; said to be unreliable where something else was measured too."""
    cell = _estimate_cell(arm.train_seconds)
    return cell if is_reliable else replace(cell, detail="unreliable", hint=cell.detail)


def _finished_cell(arm: ArmSummary) -> Cell:
    reasons = [f"seed {run.seed}{_at_rate(arm, run)} {_why(run)}" for run in arm.failed]
    if arm.n_missing:
        reasons.append(f"{arm.n_missing} not run yet")
    remark = "; ".join(reasons)
    text = f"{arm.n_finished} of {arm.n_expected}"
    return Cell(text, (arm.n_finished, arm.n_expected, remark), detail=remark)


def _at_rate(arm: ArmSummary, run: RunResult) -> str:
    several = arm.n_rates_tried > 1 and run.learning_rate is not None
    return f" at {write_rate(run.learning_rate)}" if several and run.learning_rate else ""


def _why(run: RunResult) -> str:
    """Status and the first sentence or so of the reason; the failure table has all of it."""
    lines = (run.reason or "").strip().splitlines()
    if not lines:
        return run.status
    first = lines[0] if len(lines[0]) <= 140 else f"{lines[0][:139]}…"
    return f"{run.status}: {first}"


def _notes(comparisons: Sequence[Comparison], of_scores: str) -> tuple[Note, ...]:
    used = {_mark(arm, c) for c in comparisons for arm in c.ranked}
    marked = [Note(mark, text) for mark, text in MARKS.items() if mark in used]
    leads = [
        Note("", f"{c.key.benchmark}, {c.key.protocol_name}: {describe_lead(c)}.")
        for c in comparisons
    ]
    general = [Note("", of_scores)] if comparisons else []
    general += [Note("", TASK_NOTE)] if any(c.key.is_task for c in comparisons) else []
    general += [Note("", INTERVAL_NOTE)] if any(c.levels for c in comparisons) else []
    has_padding = any(c.key.scores_padding for c in comparisons)
    padded = [Note("", PADDING_NOTE)] if has_padding else []
    return (*leads, *marked, *general, *padded)
