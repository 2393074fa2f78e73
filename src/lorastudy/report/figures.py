"""The figures of a study, the same bytes whenever the same results are drawn.

Drawn with `Figure` objects, so there is no global state and no display.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lorastudy.report.figures_forest import draw_differences
from lorastudy.report.figures_style import (
    COLOURS,
    DASHES,
    HATCHES,
    INK,
    MARKERS,
    SETTINGS,
    WIDTH_INCHES,
    DrawnFigure,
    save_figure,
)
from lorastudy.report.numerals import MIB, write_duration
from lorastudy.report.pairs import Comparison
from lorastudy.report.statistics import Estimate, estimate_mean
from lorastudy.report.summary import ArmSummary, memory_kind, summarise_arms
from lorastudy.store.records import RunResult, StudyResults

_LOG_RATIO = 20  # largest over smallest bar, from which a linear axis hides the small ones


@dataclass(frozen=True, slots=True)
class _Bar:
    arm: str
    place: int  # in the study, which fixes the arm's colour
    value: Estimate | None
    label: str


def draw_figures(
    results: StudyResults, comparisons: Sequence[Comparison]
) -> tuple[DrawnFigure, ...]:
    """Figures 1 to 5; what has no value is drawn as a labelled gap."""
    arms = summarise_arms(results)
    with matplotlib.rc_context(SETTINGS):
        return (
            _draw_parameters(arms),
            _draw_losses(arms, results.training_protocol),
            _draw_memory(arms, memory_kind(results)),
            _draw_time(arms),
            draw_differences(arms, comparisons),
        )


def _draw_parameters(arms: Sequence[ArmSummary]) -> DrawnFigure:
    bars = [
        _bar(place, arm, _exact(arm.trainable_parameters), lambda v: f"{v:,.0f}")
        for place, arm in enumerate(arms)
    ]
    figure, is_log = _draw_bars(bars, "trainable parameters", may_be_log=True)
    caption = "Parameters that receive gradients." + (
        " Logarithmic axis: equal steps are equal factors, so bar lengths are not proportional."
        if is_log
        else ""
    )
    return save_figure(
        figure, "fig1-trainable-parameters", "Figure 1. Trainable parameters", caption
    )


def _draw_memory(arms: Sequence[ArmSummary], kind: str | None) -> DrawnFigure:
    bars = [
        _bar(place, arm, _scaled(arm.peak_memory_bytes(kind), MIB), lambda v: f"{v:,.0f}")
        for place, arm in enumerate(arms)
    ]
    figure, _ = _draw_bars(bars, f"peak {kind or 'memory'}, MiB")
    caption = f"Peak memory ({kind or 'none measured'}): mean over seeds, whiskers from the "
    caption += "lowest to the highest seed. 1 MiB = 1,048,576 bytes."
    return save_figure(figure, "fig3-peak-memory", "Figure 3. Peak memory", caption)


def _draw_time(arms: Sequence[ArmSummary]) -> DrawnFigure:
    bars = [
        _bar(place, arm, arm.train_seconds, write_duration, of_baseline="not trained")
        for place, arm in enumerate(arms)
    ]
    figure, _ = _draw_bars(bars, "training time, H:MM:SS", tick=write_duration)
    caption = (
        "Time in optimizer steps, without validation, checkpoints and scoring: mean over "
        "seeds, whiskers from the lowest to the highest seed."
    )
    return save_figure(figure, "fig4-training-time", "Figure 4. Training time", caption)


def _draw_losses(arms: Sequence[ArmSummary], protocol: str) -> DrawnFigure:
    figure = Figure(figsize=(WIDTH_INCHES, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharex=True)
    trained = [(p, arm) for p, arm in enumerate(arms) if any(run.epochs for run in arm.runs)]
    for place, arm in trained:
        _draw_curve(left, place, arm.losses(_train_losses))
        validation = arm.losses(_validation_losses)
        _draw_curve(right, place, validation)
        _draw_dots(right, place, arm.losses(_train_losses_eval))
        _mark_best(right, place, validation)
    for axes, name in ((left, "training loss"), (right, "validation loss")):
        _finish_curves(axes, f"{name}, nats a target ({protocol})", has_curves=bool(trained))
    if trained:
        _add_legend(figure, trained)
    caption = (
        "Mean over seeds; bands from the lowest to the highest seed; rings at the epoch with the "
        "lowest mean validation loss. Training loss is a running mean over the epoch with "
        "dropout on, validation loss is taken after the epoch with dropout off; dotted: the same "
        "measurement on a fixed slice of the training rows."
    )
    return save_figure(figure, "fig2-losses", "Figure 2. Losses", caption)


def _draw_bars(
    bars: Sequence[_Bar],
    axis_label: str,
    *,
    may_be_log: bool = False,
    tick: Callable[[float], str] | None = None,
) -> tuple[Figure, bool]:
    """Horizontal bars, first arm on top, and whether the axis is logarithmic."""
    figure = Figure(figsize=(WIDTH_INCHES, 0.9 + 0.42 * max(len(bars), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    drawn = [bar.value.mean for bar in bars if bar.value is not None and bar.value.mean > 0]
    is_log = may_be_log and bool(drawn) and max(drawn) > _LOG_RATIO * min(drawn)
    if is_log:
        axes.set_xscale("log")
        start = 10.0 ** (math.ceil(math.log10(min(drawn))) - 1)
        axes.set_xlim(start, max(drawn) * 12)
    else:
        axes.set_xlim(0, max(drawn, default=1.0) * 1.22)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 1.5, 2, 3, 5, 6, 10]))
    write = tick or (lambda value: f"{value:,.10g}")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    for row, bar in enumerate(bars):
        _draw_bar(axes, row, bar)
    axes.set_yticks(range(len(bars)), [bar.arm for bar in bars])
    axes.set_ylim(max(len(bars), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(axis_label)
    axes.grid(axis="x")
    return figure, is_log


def _draw_bar(axes: Axes, row: int, bar: _Bar) -> None:
    low = axes.get_xlim()[0]
    end = bar.value.highest if bar.value is not None else low
    if bar.value is not None and bar.value.mean > 0:
        axes.barh(
            row,
            bar.value.mean - low,
            left=low,
            height=0.66,
            color=COLOURS[bar.place % len(COLOURS)],
            edgecolor=INK,
            hatch=HATCHES[bar.place % len(HATCHES)],
            linewidth=0.8,
        )
    if bar.value is not None and bar.value.n > 1 and bar.value.highest > bar.value.lowest:
        axes.plot([bar.value.lowest, bar.value.highest], [row, row], color=INK, marker="|")
    axes.annotate(
        bar.label,
        (max(end, low), row),
        xytext=(5, 0),
        textcoords="offset points",
        verticalalignment="center",
    )


def _draw_curve(axes: Axes, place: int, curve: dict[int, Estimate]) -> None:
    epochs = list(curve)
    colour = COLOURS[place % len(COLOURS)]
    if any(point.n > 1 for point in curve.values()):
        lowest, highest = (
            [getattr(p, end) for p in curve.values()] for end in ("lowest", "highest")
        )
        axes.fill_between(epochs, lowest, highest, color=colour, alpha=0.18, linewidth=0)
    axes.plot(epochs, [point.mean for point in curve.values()], **_line_style(place))


def _draw_dots(axes: Axes, place: int, curve: dict[int, Estimate]) -> None:
    means = [point.mean for point in curve.values()]
    axes.plot(list(curve), means, ":", color=COLOURS[place % len(COLOURS)], linewidth=1.0)


def _mark_best(axes: Axes, place: int, curve: dict[int, Estimate]) -> None:
    if curve:
        best = min(curve, key=lambda epoch: curve[epoch].mean)
        axes.plot(best, curve[best].mean, "o", ms=11, mfc="none", mew=1.4, color=INK, zorder=5)


def _line_style(place: int) -> dict[str, Any]:
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place % len(DASHES)],
        "markersize": 4.5,
        "linewidth": 1.5,
    }


def _finish_curves(axes: Axes, label: str, *, has_curves: bool) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    axes.margins(x=0.08)
    if not has_curves:
        axes.set_xlim(0.5, 1.5)
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finished run", ha="center", transform=axes.transAxes)
    elif math.isclose(*axes.dataLim.intervalx):
        axes.set_xlim(axes.dataLim.x0 - 0.5, axes.dataLim.x0 + 0.5)


def _add_legend(figure: Figure, arms: Sequence[tuple[int, ArmSummary]]) -> None:
    handles = [Line2D([], [], **_line_style(place)) for place, _ in arms]
    blank = ["arm"] * len(arms)  # names go in below: a legend leaves out "_x"
    legend = figure.legend(
        handles, blank, loc="outside lower center", ncols=min(6, len(arms)), frameon=False
    )
    for text, (_, arm) in zip(legend.get_texts(), arms, strict=True):
        text.set_text(arm.arm)


def _bar(
    place: int,
    arm: ArmSummary,
    value: Estimate | None,
    write: Callable[[float], str],
    *,
    of_baseline: str = "no result",
) -> _Bar:
    finite = value if value is not None and math.isfinite(value.mean) else None
    missing = of_baseline if arm.is_baseline else "no result"
    return _Bar(arm.arm, place, finite, write(finite.mean) if finite else missing)


def _exact(value: int | None) -> Estimate | None:
    return estimate_mean([] if value is None else [float(value)])


def _scaled(estimate: Estimate | None, unit: int) -> Estimate | None:
    if estimate is None:
        return None
    return Estimate(
        estimate.mean / unit, None, estimate.n, estimate.lowest / unit, estimate.highest / unit
    )


def _train_losses(run: RunResult) -> dict[int, float]:
    return {record.epoch: record.train_loss for record in run.epochs}


def _train_losses_eval(run: RunResult) -> dict[int, float]:
    return {e.epoch: e.train_loss_eval for e in run.epochs if e.train_loss_eval is not None}


def _validation_losses(run: RunResult) -> dict[int, float]:
    return {record.epoch: record.validation_loss for record in run.epochs}
