"""Figures 2 and 8: losses over epochs, and over learning rates."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.statistics import Estimate
from lorastudy.analysis.summary import ArmSummary
from lorastudy.report.figures.style import INK, add_legend, colour_of, mark, new_figure, style_of
from lorastudy.report.figures.writing import DrawnFigure, save_figure
from lorastudy.report.numerals import write_rate
from lorastudy.store.records import RunResult

Curve = Mapping[int, Estimate] | Mapping[float, Estimate]


def draw_losses(findings: Findings) -> DrawnFigure:
    """Figure 2: training and validation loss over epochs."""
    figure = new_figure(4.2)
    left, right = figure.subplots(1, 2, sharex=True)
    trained = [(p, a) for p, a in enumerate(findings.arms) if any(run.epochs for run in a.runs)]
    for position, arm in trained:
        validation = arm.losses(_validation_losses)
        _draw_curve(left, position, arm=arm, curve=arm.losses(_train_losses), what="training loss")
        _draw_curve(right, position, arm=arm, curve=validation, what="validation loss")
        _draw_dots(right, position, arm.losses(_train_losses_eval))
        hint = "lowest validation loss" if findings.is_by_answers else "best epoch"
        _mark_best(right, position, f"{arm.arm}: {hint}", validation)
    for axes, name in ((left, "training loss"), (right, "validation loss")):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _finish(
            axes,
            f"{name}, nats per target ({findings.results.training_protocol})",
            has_curves=bool(trained),
        )
        if math.isclose(*axes.dataLim.intervalx):
            axes.set_xlim(axes.dataLim.x0 - 0.5, axes.dataLim.x0 + 0.5)
    add_legend(figure, trained)
    caption = (
        "Mean over seeds; bands from the lowest to the highest seed; rings at the epoch with the "
        "lowest mean validation loss. The training loss is a running mean over the epoch, with "
        "dropout. The validation loss is measured after the epoch, without dropout. Dotted: the "
        "same measurement on a fixed part of the training rows."
    )
    if findings.budget is not None and findings.budget.budget.kind != "peak_memory":
        caption += " With a budget, the last epoch of an arm may be a part of one."
    log_axes = [axes for axes in (left, right) if 0 < axes.dataLim.y0 < math.inf]
    return save_figure(figure, "fig2-losses", "Figure 2. Losses", caption, log_axes=log_axes)


def draw_rates(findings: Findings) -> DrawnFigure:
    """Figure 8: the best validation loss of every arm over its learning rates."""
    rates = findings.rates
    figure = new_figure(4.0)
    axes = figure.subplots()
    drawn = []
    for position, arm in enumerate(findings.arms):
        of_arm = [rate for rate in rates if rate.arm == arm.arm]
        curve = {
            rate.learning_rate: rate.validation_loss
            for rate in of_arm
            if rate.validation_loss is not None and math.isfinite(rate.validation_loss.mean)
        }
        if curve:
            drawn.append((position, arm))
            _draw_curve(
                axes, position, arm=arm, curve=curve, what="learning rate", write=write_rate
            )
            _mark_best(axes, position, f"{arm.arm}: chosen", curve)
    if drawn:
        axes.set_xscale("log")
        tried = sorted({rate.learning_rate for rate in rates})
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(tried)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write_rate(value)))
    axes.set_xlabel("peak learning rate")
    _finish(axes, "best validation loss, nats per target", has_curves=bool(drawn))
    if len({rate.learning_rate for rate in rates}) == 1:
        axes.set_xlim(rates[0].learning_rate / 3, rates[0].learning_rate * 3)
    add_legend(figure, drawn)
    caption = (
        "Best validation loss of every learning rate: mean over seeds, bands from the lowest to "
        "the highest seed; rings at the chosen rate. An arm with one point was tried at one rate."
    )
    return save_figure(figure, "fig8-learning-rates", "Figure 8. Learning rates", caption)


def _draw_curve(
    axes: Axes,
    position: int,
    *,
    arm: ArmSummary,
    curve: Curve,
    what: str,
    write: Callable[[float], str] = lambda epoch: f"epoch {epoch:g}",
) -> None:
    x_values, points = list(curve), list(curve.values())
    if any(point.n > 1 for point in points):
        lowest, highest = ([getattr(p, end) for p in points] for end in ("lowest", "highest"))
        colour = colour_of(position)
        band = axes.fill_between(x_values, lowest, highest, color=colour, alpha=0.18, linewidth=0)
        mark(band, position)
    means = [point.mean for point in points]
    (line,) = axes.plot(x_values, means, markersize=4.5, linewidth=1.5, **style_of(position))
    hints = [
        f"{arm.arm}, {what}, {write(x)}: {point.mean:.4f} nats"
        + (f", seeds from {point.lowest:.4f} to {point.highest:.4f}" if point.n > 1 else "")
        for x, point in curve.items()
    ]
    mark(line, position, hints)


def _draw_dots(axes: Axes, position: int, curve: Curve) -> None:
    means = [point.mean for point in curve.values()]
    if means:
        style = style_of(position) | {"linestyle": ":", "markersize": 2.5, "linewidth": 1.0}
        (line,) = axes.plot(list(curve), means, **style)
        mark(line, position)


def _mark_best(axes: Axes, position: int, hint: str, curve: Curve) -> None:
    if curve:
        best, lowest = min(curve.items(), key=lambda item: item[1].mean)
        style: dict[str, Any] = {"ms": 11, "mfc": "none", "mew": 1.4, "color": INK, "zorder": 5}
        (ring,) = axes.plot(best, lowest.mean, "o", **style)
        mark(ring, position, [hint])


def _finish(axes: Axes, label: str, *, has_curves: bool) -> None:
    axes.set_ylabel(label)
    axes.grid(axis="y")
    axes.margins(x=0.08)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.10g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:.10g}"))
    if not has_curves:
        axes.set_xlim(0.5, 1.5)
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finished run", ha="center", transform=axes.transAxes)


def _train_losses(run: RunResult) -> dict[int, float]:
    return {record.epoch: record.train_loss for record in run.epochs}


def _train_losses_eval(run: RunResult) -> dict[int, float]:
    return {e.epoch: e.train_loss_eval for e in run.epochs if e.train_loss_eval is not None}


def _validation_losses(run: RunResult) -> dict[int, float]:
    return {record.epoch: record.validation_loss for record in run.epochs}
