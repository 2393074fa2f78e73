"""Figure 6: loss against what it costs, with the arms that no cheaper arm beats."""

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.fronts import UNITS, CostName, Front
from lorastudy.report.figures.style import (
    INK,
    add_legend,
    count_on_logarithmic_axis,
    draw_dot,
    draw_line,
    new_figure,
    shorten,
)
from lorastudy.report.figures.writing import DrawnFigure, save_figure

_LOGARITHMIC: tuple[CostName, ...] = ("trainable parameters", "stored size")


def draw_fronts(findings: Findings) -> DrawnFigure:
    """One row of panels for each benchmark, one column for each cost."""
    fronts = {(front.key, front.cost): front for front in findings.fronts}
    keys = [comparison.key for comparison in findings.main]
    costs = [cost for cost in UNITS if cost != "forgotten" or any(cost == c for _, c in fronts)]
    n_rows = max(len(keys), 1)
    figure = new_figure(0.7 + 2.0 * n_rows)
    panels = figure.subplots(n_rows, len(costs), squeeze=False, sharey="row", sharex="col")
    for row, axes_of_row in enumerate(panels):
        key = keys[row] if keys else None
        for axes, cost in zip(axes_of_row, costs, strict=True):
            front = fronts.get((key, cost)) if key else None
            if (
                cost != "forgotten" or front
            ):  # else left empty: the row itself is what was forgotten
                _draw_panel(axes, cost, front)
            if row == n_rows - 1:
                axes.set_xlabel(f"{cost}, {UNITS[cost]}" if cost != costs[0] else cost)
        if key:
            label = f"{shorten(key.benchmark)}\n{key.protocol_name}, {key.unit}"
            axes_of_row[0].set_ylabel(label)
    shown = {point.arm for front in findings.fronts for point in front.points}
    add_legend(figure, [(p, arm) for p, arm in enumerate(findings.arms) if arm.arm in shown])
    caption = (
        "Cross-entropy against cost, mean over seeds, bars from the lowest to the highest seed: "
        "down and left is better. The line joins the arms that no cheaper arm beats. Open markers: "
        "excluded, since an arm of equal or lower cost is better and separated from it. Parameters "
        "and stored size have logarithmic axes. Forgotten: loss minus that of the baseline, mean "
        "over benchmarks with the role forgetting."
    )
    return save_figure(figure, "fig6-fronts", "Figure 6. Quality against cost", caption)


def _draw_panel(axes: Axes, cost: CostName, front: Front | None) -> None:
    axes.grid()
    points = front.points if front else ()
    if not points:
        axes.text(0.5, 0.5, "no value", ha="center", transform=axes.transAxes)
        return
    if cost in _LOGARITHMIC and all(point.cost > 0 for point in points):
        count_on_logarithmic_axis(axes, n_ticks=4)
        axes.margins(x=0.2)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.margins(x=0.15)
    best = [point for point in points if point.standing == "front"]
    axes.plot([p.cost for p in best], [p.loss.mean for p in best], color=INK, lw=0.8, zorder=1)
    for point in points:
        position, loss = point.position, point.loss
        if loss.highest > loss.lowest:
            ends = [loss.lowest, loss.highest]
            draw_line(axes, [point.cost] * 2, ends, position, linewidth=1.2)
        hint = f"{point.arm}: {loss.mean:.4f} nats at {point.cost:,.6g} {UNITS[cost]}; "
        is_kept = point.standing != "excluded"
        at = (point.cost, loss.mean)
        draw_dot(axes, at, position, f"{hint}{point.standing}", is_filled=is_kept)
