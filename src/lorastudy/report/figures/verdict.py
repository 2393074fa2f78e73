"""The picture beside the verdict: quality beside the reference, against trained parameters."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.pairs import Comparison, Pair
from lorastudy.analysis.recommendation import list_tests, recommend
from lorastudy.analysis.summary import ArmSummary, ScoreKey
from lorastudy.report.figures.labels import LINE_POINTS, Label, label_at_right
from lorastudy.report.figures.style import (
    INK,
    count_on_logarithmic_axis,
    draw_dot,
    draw_line,
    mark,
    new_figure,
    shorten,
)
from lorastudy.report.figures.writing import DrawnFigure, save_figure
from lorastudy.report.wording import name_unit, start

_WIDTH_INCHES = 5.2
_PANEL_POINTS = 88.0  # height of a panel at least; more where there are many names
_TITLE_POINTS, _SCALE_POINTS = 31.0, 40.0  # above each panel; below the last one
_MOST_TESTS = 3
_FAR = 1.6  # the base model is drawn up to this multiple of the largest value of a tuned arm


def has_verdict_figure(findings: Findings) -> bool:
    """Whether there are two arms to draw beside each other."""
    return bool(recommend(findings).tests)


def draw_verdict(findings: Findings) -> DrawnFigure:
    """One panel for each of the first three tests, one dot for each trained arm."""
    tests, reference = list_tests(findings)[:_MOST_TESTS], recommend(findings).reference or ""
    names_points = LINE_POINTS * sum(arm.trainable_parameters is not None for arm in findings.arms)
    panel_points = max(_PANEL_POINTS, names_points)
    height_inches = (_SCALE_POINTS + (_TITLE_POINTS + panel_points) * len(tests)) / 72
    figure = new_figure(height_inches, width_inches=_WIDTH_INCHES)
    panels = figure.subplots(len(tests), 1, squeeze=False, sharex=True).ravel()
    for axes, comparison in zip(panels, tests, strict=True):
        _draw_panel(axes, comparison, reference, findings.arms, height_points=panel_points)
    panels[-1].set_xlabel("trained parameters")
    margin = next((p.margin for c in tests for p in c.pairs), 0.0)
    is_one_seed = all(c.is_one_seed for c in tests)
    interval = (
        "95 % interval over documents (one seed)" if is_one_seed else "adjusted 95 % interval"
    )
    kinds = " or ".join(dict.fromkeys(c.key.compared for c in tests)) or "perplexity"
    shown, units = start(kinds), " or ".join(dict.fromkeys(name_unit(c.key) for c in tests))
    caption = (
        f"{shown} compared with {reference}, with the {interval}: lower is better, left is "
        f"cheaper. Grey: equal within {margin:g} {units}. Logarithmic horizontal axis."
    )
    return save_figure(
        figure, "fig0-verdict", "Figure 0. Quality against trained parameters", caption
    )


def _draw_panel(
    axes: Axes,
    comparison: Comparison,
    reference: str,
    arms: Sequence[ArmSummary],
    *,
    height_points: float,
) -> None:
    axes.axhline(0, color=INK, linewidth=0.8)
    key = comparison.key
    tops, margin, labels = [1.0], 0.0, []
    for position, arm in enumerate(arms):
        pair = comparison.find_pair(arm.arm, reference)
        if arm.is_baseline or not arm.trainable_parameters:
            continue
        at = (arm.trainable_parameters, 0.0)
        if arm.arm == reference:
            labels.append(_draw_dot(axes, key, position, arm.arm, at))
        elif pair is not None and pair.mean is not None:
            margin = pair.margin
            tops.append(_draw_interval(axes, position, arm.trainable_parameters, key, pair))
            at = (arm.trainable_parameters, pair.mean)
            is_judged = pair.is_judged
            labels.append(_draw_dot(axes, key, position, arm.arm, at, is_judged=is_judged))
    axes.axhspan(key.percent(-margin), key.percent(margin), color=INK, alpha=0.12, linewidth=0)
    labels += _draw_baseline(axes, comparison, reference, arms, top=max(tops))
    count_on_logarithmic_axis(axes, n_ticks=5)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _write_tick(value, key)))
    axes.margins(x=0.08, y=0.08)
    axes.set_title(f"{shorten(key.benchmark)}: {key.compared}", fontsize=9, loc="left")
    axes.grid(axis="y")
    label_at_right(axes, labels, height_points=height_points)


def _draw_interval(axes: Axes, position: int, x: float, key: ScoreKey, pair: Pair) -> float:
    """The interval of one arm, if it has one; returns the highest value that is drawn."""
    if (interval := pair.interval) is None:
        return key.percent(pair.mean or 0.0)
    ends = [key.percent(interval.low), key.percent(interval.high)]
    draw_line(axes, [x, x], ends, position, linewidth=2)
    return max(ends)


def _draw_dot(
    axes: Axes,
    key: ScoreKey,
    position: int,
    arm: str,
    at: tuple[float, float],
    *,
    is_judged: bool = True,
) -> Label:
    """The dot of one arm; returns the label that belongs to it."""
    x, value = at[0], key.percent(at[1])
    hint = f"{arm}: {x:,.0f} trained parameters, {value:+.1f} {key.percent_sign}"
    draw_dot(axes, (x, value), position, hint, is_filled=is_judged)
    return Label(position, arm, value, x, hint=hint, is_filled=is_judged)


def _draw_baseline(
    axes: Axes,
    comparison: Comparison,
    reference: str,
    arms: Sequence[ArmSummary],
    *,
    top: float,
) -> list[Label]:
    """A dashed line for each baseline, unless the line would set the scale; returns the labels."""
    labels = []
    for position, arm in enumerate(arms):
        pair = comparison.find_pair(arm.arm, reference) if arm.is_baseline else None
        if pair is None or pair.mean is None:
            continue
        value, sign = comparison.key.percent(pair.mean), comparison.key.percent_sign
        where = ""
        if abs(value) <= _FAR * top:
            line = axes.axhline(value, color=INK, linestyle="--", linewidth=0.9)
            mark(line, position, [f"{arm.arm}: {value:+.1f} {sign}"])
        else:
            where = ", above" if value > 0 else ", below"
        note = f" {value:+,.0f} {sign}{where}"
        labels.append(Label(position, arm.arm, value, None, note))
    return labels


def _write_tick(percent: float, key: ScoreKey) -> str:
    return f"{percent:+,.10g} {key.percent_sign}" if percent else f"0 {key.percent_sign}"
