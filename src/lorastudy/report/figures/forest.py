"""Figure 5: how far every arm is from full fine-tuning, with intervals, score by score."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.pairs import Comparison, Pair
from lorastudy.report.figures.style import (
    INK,
    draw_dot,
    draw_line,
    label_rows,
    new_figure,
    shorten,
)
from lorastudy.report.figures.writing import DrawnFigure, save_figure
from lorastudy.report.numerals import write_p, write_with_interval

_N_COLUMNS = 2


def draw_differences(findings: Findings) -> DrawnFigure:
    """One panel per score of text: each arm minus the reference arm (all scores if none is)."""
    text = tuple(c for c in findings.comparisons if not c.key.scores_padding)
    comparisons, reference = text or findings.comparisons, findings.reference or ""
    others = [(p, arm.arm) for p, arm in enumerate(findings.arms) if arm.arm != reference]
    n_rows = math.ceil(max(len(comparisons), 1) / _N_COLUMNS)
    figure = new_figure(0.6 + n_rows * (0.75 + 0.24 * max(len(others), 1)))
    panels = figure.subplots(n_rows, _N_COLUMNS, squeeze=False).ravel()
    for axes, comparison in zip(panels, comparisons, strict=False):
        _draw_panel(axes, comparison, reference, others)
    for axes in panels[len(comparisons) :]:
        axes.set_axis_off()
    has_tasks = any(c.key.is_task for c in comparisons)
    what, unit = (
        ("loss", "nats or wrong answers per item") if has_tasks else ("cross-entropy", "nats")
    )
    caption = (
        f"Each arm's {what} minus that of {reference or 'no arm'}, in {unit}, "
        "with its 95 % interval, adjusted as its word is (with one seed over documents only, and "
        f"not adjusted). Left of zero is better. Grey: within {findings.margin:g} {unit}. An open "
        "marker has no interval."
    )
    return save_figure(figure, "fig5-differences", "Figure 5. Differences", caption)


def _draw_panel(
    axes: Axes, comparison: Comparison, reference: str, others: Sequence[tuple[int, str]]
) -> None:
    axes.axvspan(-comparison.margin, comparison.margin, color=INK, alpha=0.12, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.8)
    for row, (position, arm) in enumerate(others):
        pair = comparison.find_pair(arm, reference)
        if pair is None or pair.mean is None:
            axes.annotate(
                "no number", (0, row), xytext=(5, 0), textcoords="offset points", va="center"
            )
            continue
        _draw_pair(axes, row, position, pair, pair.mean)
    label_rows(axes, others)
    key = comparison.key
    warning = " (padding scored)" if key.scores_padding else ""
    axes.set_title(f"{shorten(key.benchmark)}, {key.protocol_name}{warning}", fontsize=9)
    axes.set_xlabel(f"{key.unit}, minus {shorten(reference)}")
    axes.grid(axis="x")


def _draw_pair(axes: Axes, row: int, position: int, pair: Pair, mean: float) -> None:
    interval = pair.interval
    if interval is not None:
        draw_line(axes, [interval.low, interval.high], [row, row], position, linewidth=2)
    p = f", p {write_p(pair.p_holm)} after Holm" if pair.p_holm is not None else ""
    hint = f"{pair.first} minus {pair.second}: {' '.join(write_with_interval(mean, interval))}{p}"
    draw_dot(axes, (mean, row), position, hint, is_filled=interval is not None)
