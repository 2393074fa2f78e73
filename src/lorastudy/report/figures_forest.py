"""Figure 5: how far every arm is from full fine-tuning, with intervals, score by score."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lorastudy.report.figures_style import (
    COLOURS,
    INK,
    MARKERS,
    WIDTH_INCHES,
    DrawnFigure,
    save_figure,
)
from lorastudy.report.pairs import EQUIVALENCE_MARGIN, Comparison
from lorastudy.report.summary import ArmSummary

_NAME, _TITLE = "fig5-differences", "Figure 5. Differences"
_N_COLUMNS = 2
_LONGEST_NAME = 24  # characters; a panel is half a page wide


def draw_differences(arms: Sequence[ArmSummary], comparisons: Sequence[Comparison]) -> DrawnFigure:
    """One panel a score: each arm minus full fine-tuning; or minus the first arm without it."""
    of_full = [arm.arm for arm in arms if any(run.method == "full" for run in arm.runs)]
    reference = (of_full or [arm.arm for arm in arms if arm.runs] or [""])[0]
    others = [(place, arm.arm) for place, arm in enumerate(arms) if arm.arm != reference]
    n_rows = math.ceil(max(len(comparisons), 1) / _N_COLUMNS)
    height = 0.6 + n_rows * (0.75 + 0.24 * max(len(others), 1))
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(n_rows, _N_COLUMNS, squeeze=False).ravel()
    for axes, comparison in zip(panels, comparisons, strict=False):
        _draw_panel(axes, comparison, reference, others)
    for axes in panels[len(comparisons) :]:
        axes.set_axis_off()
    caption = (
        f"Each arm's cross-entropy minus that of {reference or 'no arm'}, in nats a target, with "
        "its 95 % interval (with one seed over documents only; not adjusted for the number of "
        f"pairs). Left of zero is better. Grey: within {EQUIVALENCE_MARGIN} nats. An open marker "
        "has no interval."
    )
    return save_figure(figure, _NAME, _TITLE, caption)


def _draw_panel(
    axes: Axes, comparison: Comparison, reference: str, others: Sequence[tuple[int, str]]
) -> None:
    axes.axvspan(-EQUIVALENCE_MARGIN, EQUIVALENCE_MARGIN, color=INK, alpha=0.12, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.8)
    for row, (place, arm) in enumerate(others):
        pair = comparison.find_pair(arm, reference)
        if pair is None or pair.mean is None:
            axes.annotate(
                "no number", (0, row), xytext=(5, 0), textcoords="offset points", va="center"
            )
            continue
        colour = COLOURS[place % len(COLOURS)]
        if pair.interval is not None:
            axes.plot(
                [pair.interval.low, pair.interval.high], [row, row], color=colour, linewidth=2
            )
        axes.plot(
            pair.mean,
            row,
            MARKERS[place % len(MARKERS)],
            color=colour,
            mec=INK,
            mfc=colour if pair.interval is not None else "none",
        )
    axes.set_yticks(range(len(others)), [_shorten(arm) for _, arm in others])
    axes.set_ylim(max(len(others), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    score = comparison.score
    warning = " (padding scored)" if score.scores_padding else ""
    axes.set_title(f"{_shorten(score.benchmark)}, {score.protocol_name}{warning}", fontsize=9)
    axes.set_xlabel(f"nats a target, minus {_shorten(reference)}")
    axes.grid(axis="x")


def _shorten(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
