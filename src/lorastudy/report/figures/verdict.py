"""The picture beside the verdict: quality beside the reference, against trained parameters."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.pairs import Comparison, Pair
from lorastudy.analysis.recommendation import list_tests, recommend
from lorastudy.analysis.summary import ArmSummary, ScoreKey
from lorastudy.report.figures.style import (
    COLOURS,
    INK,
    MARKERS,
    count_on_logarithmic_axis,
    mark,
    new_figure,
    shorten,
)
from lorastudy.report.figures.writing import DrawnFigure, save_figure
from lorastudy.report.wording import name_unit, start

_WIDTH_INCHES = 5.2
_MOST_TESTS = 3
_FAR = 1.6  # the base model is drawn up to this multiple of the largest value of a tuned arm


def has_verdict_figure(findings: Findings) -> bool:
    """Whether there are two arms to draw beside each other."""
    return bool(recommend(findings).tests)


def draw_verdict(findings: Findings) -> DrawnFigure:
    """One panel for each of the first three tests, one dot for each trained arm."""
    tests, reference = list_tests(findings)[:_MOST_TESTS], recommend(findings).reference or ""
    figure = new_figure(0.55 + 1.65 * len(tests), width_inches=_WIDTH_INCHES)
    panels = figure.subplots(len(tests), 1, squeeze=False, sharex=True).ravel()
    for axes, comparison in zip(panels, tests, strict=True):
        _draw_panel(axes, comparison, reference, findings.arms)
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
    axes: Axes, comparison: Comparison, reference: str, arms: Sequence[ArmSummary]
) -> None:
    axes.axhline(0, color=INK, linewidth=0.8)
    key = comparison.key
    tops, margin = [1.0], 0.0
    for position, arm in enumerate(arms):
        pair = comparison.find_pair(arm.arm, reference)
        if arm.is_baseline or not arm.trainable_parameters:
            continue
        if arm.arm == reference:
            _draw_dot(axes, key, position, arm.arm, (arm.trainable_parameters, 0.0))
        elif pair is not None and pair.mean is not None:
            margin = pair.margin
            tops.append(_draw_arm(axes, key, position, arm.trainable_parameters, pair))
    axes.axhspan(key.percent(-margin), key.percent(margin), color=INK, alpha=0.12, linewidth=0)
    _draw_baseline(axes, comparison, reference, arms, top=max(tops))
    count_on_logarithmic_axis(axes, n_ticks=5)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _write_tick(value, key)))
    axes.margins(x=0.14, y=0.16)
    axes.set_title(f"{shorten(key.benchmark)}: {key.compared}", fontsize=9, loc="left")
    axes.grid(axis="y")


def _draw_arm(axes: Axes, key: ScoreKey, position: int, x: float, pair: Pair) -> float:
    """One arm with its interval; returns the highest value that is drawn."""
    mean = pair.mean or 0.0
    ends = [mean]
    if (interval := pair.interval) is not None:
        ends = [interval.low, interval.high]
        colour = COLOURS[position % len(COLOURS)]
        (line,) = axes.plot([x, x], list(map(key.percent, ends)), color=colour, linewidth=2)
        mark(line, position)
    _draw_dot(axes, key, position, pair.first, (x, mean), is_judged=pair.is_judged)
    return key.percent(max(ends))


def _draw_dot(
    axes: Axes,
    key: ScoreKey,
    position: int,
    arm: str,
    at: tuple[float, float],
    *,
    is_judged: bool = True,
) -> None:
    x, value = at[0], key.percent(at[1])
    colour = COLOURS[position % len(COLOURS)]
    style = MARKERS[position % len(MARKERS)]
    face = colour if is_judged else "none"
    (dot,) = axes.plot(x, value, style, color=colour, mec=INK, mfc=face)
    mark(dot, position, [f"{arm}: {x:,.0f} trained parameters, {value:+.1f} {key.percent_sign}"])
    is_right = position % 2 == 1  # neighbours stay apart
    label = axes.annotate(
        shorten(arm),
        (x, value),
        xytext=(7, 3) if is_right else (-6, -10),
        textcoords="offset points",
        ha="left" if is_right else "right",
        fontsize=8,
    )
    mark(label, position)


def _draw_baseline(
    axes: Axes,
    comparison: Comparison,
    reference: str,
    arms: Sequence[ArmSummary],
    *,
    top: float,
) -> None:
    """A dashed line, or words in a corner where the line would set the scale."""
    for position, arm in enumerate(arms):
        pair = comparison.find_pair(arm.arm, reference) if arm.is_baseline else None
        if pair is None or pair.mean is None:
            continue
        value, sign = comparison.key.percent(pair.mean), comparison.key.percent_sign
        if abs(value) <= _FAR * top:
            line = axes.axhline(value, color=INK, linestyle="--", linewidth=0.9)
            mark(line, position, [f"{arm.arm}: {value:+.1f} {sign}"])
        where = "" if abs(value) <= _FAR * top else (", above" if value > 0 else ", below")
        y = value if not where else 1.0
        label = axes.annotate(
            f"{shorten(arm.arm)} {value:+,.0f} {sign}{where}",
            (0.72 if not where else 1.0, y),
            xycoords=axes.get_yaxis_transform() if not where else "axes fraction",
            xytext=(-2, 2 if not where else 6),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
        mark(label, position)


def _write_tick(percent: float, key: ScoreKey) -> str:
    return f"{percent:+,.10g} {key.percent_sign}" if percent else f"0 {key.percent_sign}"
