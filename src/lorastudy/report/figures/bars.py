"""Figures 1, 3 and 4: what an arm trains, needs and takes, as bars."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lorastudy.analysis.evidence import FLOAT32_BYTES
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.statistics import Estimate, estimate_mean
from lorastudy.analysis.summary import ArmSummary
from lorastudy.report.figures.style import HATCHES, INK, colour_of, label_rows, mark, new_figure
from lorastudy.report.figures.writing import DrawnFigure, save_figure
from lorastudy.units import MIB, write_duration

_MOMENTS = 3  # numbers in addition to each trained one: its gradient and two moments
_DOUBT = " ?"  # after timings that are unreliable
_PART_ALPHAS = (1.0, 0.6, 0.25)  # from left to right


@dataclass(frozen=True, slots=True)
class _Bar:
    arm: str
    position: int  # in the study, which fixes the arm's colour
    value: Estimate | None
    label: str
    parts: tuple[float, ...] = ()  # of the value, from left to right


def draw_parameters(findings: Findings) -> DrawnFigure:
    """Figure 1: trained parameters of every arm."""
    bars = [
        _bar(position, arm, _exact(arm.trainable_parameters), lambda v: f"{v:,.0f}")
        for position, arm in enumerate(findings.arms)
    ]
    figure = _draw_bars(bars, "trained parameters")
    caption = "Parameters that receive gradients."
    name = "fig1-trainable-parameters"
    return save_figure(figure, name, "Figure 1. Trainable parameters", caption)


def draw_memory(findings: Findings) -> DrawnFigure:
    """Figure 3: peak memory, with the parts that follow from counting."""
    arms, kind = findings.arms, findings.memory_kind
    peaks = [_scaled(arm.peak_memory_bytes(kind), MIB) for arm in arms]
    bars = [
        replace(
            _bar(position, arm, peak, lambda v: f"{v:,.0f}"),
            parts=split_memory(arm, peak.mean) if peak else (),
        )
        for position, (arm, peak) in enumerate(zip(arms, peaks, strict=True))
    ]
    figure = _draw_bars(bars, f"peak {kind or 'memory'}, MiB")
    if any(bar.parts for bar in bars):
        _add_part_legend(figure)
    caption = (
        f"Peak memory ({kind or 'none measured'}): mean over seeds, whiskers from the lowest to "
        "the highest seed. 1 MiB = 1,048,576 bytes. The first two parts are counted: 4 bytes "
        "per parameter, and 12 per trained parameter for its gradient and two moments. The rest "
        "is measured: activations, logits, "
        + ("libraries" if kind == "resident" else "what the allocator kept")
        + ". A bar without parts has a lower peak than what is counted."
    )
    return save_figure(figure, "fig3-peak-memory", "Figure 3. Peak memory", caption)


def draw_time(findings: Findings) -> DrawnFigure:
    """Figure 4: seconds in optimizer steps; a question mark where they are unreliable."""
    doubts = findings.doubts
    bars = [
        _bar(position, arm, arm.train_seconds, write_duration, of_baseline="not trained")
        for position, arm in enumerate(findings.arms)
    ]
    bars = [replace(bar, label=bar.label + _DOUBT) if bar.arm in doubts else bar for bar in bars]
    figure = _draw_bars(bars, "training time, H:MM:SS", tick=write_duration)
    caption = (
        "Time in optimizer steps, without validation, checkpoints and scoring: mean over "
        "seeds, whiskers from the lowest to the highest seed."
    )
    if doubts:
        caption += " A question mark: unreliable, since other programs may have used the CPU."
    return save_figure(figure, "fig4-training-time", "Figure 4. Training time", caption)


def split_memory(arm: ArmSummary, peak_mib: float) -> tuple[float, ...]:
    """The peak as weights, gradients and moments, and the rest, in MiB; empty if it is lower.

    Weights are float32 in every precision; bfloat16 concerns what is computed from them.
    """
    total, trained = arm.total_parameters, arm.trainable_parameters
    if total is None or trained is None:
        return ()
    weights = FLOAT32_BYTES * total / MIB
    moments = _MOMENTS * FLOAT32_BYTES * trained / MIB
    rest = peak_mib - weights - moments
    return (weights, moments, rest) if rest >= 0 else ()


def _draw_bars(
    bars: Sequence[_Bar], axis_label: str, *, tick: Callable[[float], str] | None = None
) -> Figure:
    """Horizontal bars, first arm on top; the axis begins at zero, so lengths are proportional."""
    figure = new_figure(0.9 + 0.42 * max(len(bars), 1))
    axes = figure.subplots()
    drawn = [bar.value.mean for bar in bars if bar.value is not None and bar.value.mean > 0]
    axes.set_xlim(0, max(drawn, default=1.0) * 1.22)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 1.5, 2, 3, 5, 6, 10]))
    write = tick or (lambda value: f"{value:,.10g}")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    for row, bar in enumerate(bars):
        _draw_bar(axes, row, bar)
    label_rows(axes, [(bar.position, bar.arm) for bar in bars])
    axes.set_xlabel(axis_label)
    axes.grid(axis="x")
    return figure


def _draw_bar(axes: Axes, row: int, bar: _Bar) -> None:
    end = bar.value.highest if bar.value is not None else 0.0
    hint = f"{bar.arm}: {bar.label}"
    if bar.value is not None and bar.value.mean > 0:
        left = 0.0
        for part, alpha in zip(bar.parts or (bar.value.mean,), _PART_ALPHAS, strict=False):
            _draw_part(axes, row, bar.position, left=left, width=part, alpha=alpha, hint=hint)
            left += part
    if bar.value is not None and bar.value.n > 1 and bar.value.highest > bar.value.lowest:
        (line,) = axes.plot(
            [bar.value.lowest, bar.value.highest], [row, row], color=INK, marker="|"
        )
        spread = f"{bar.arm}: seeds from {bar.value.lowest:,.1f} to {bar.value.highest:,.1f}"
        mark(line, bar.position, [spread])
    label = axes.annotate(
        bar.label,
        (end, row),
        xytext=(5, 0),
        textcoords="offset points",
        verticalalignment="center",
    )
    mark(label, bar.position)


def _draw_part(
    axes: Axes, row: int, position: int, *, left: float, width: float, alpha: float, hint: str
) -> None:
    """One part of a bar: paler to the right, hatched as its arm."""
    patches = axes.barh(
        row,
        width,
        left=left,
        height=0.66,
        color=(colour_of(position), alpha),
        edgecolor=INK,
        hatch=HATCHES[position % len(HATCHES)] if alpha == 1.0 else "",
        linewidth=0.8,
    )
    for patch in patches:
        mark(patch, position, [hint])


def _add_part_legend(figure: Figure) -> None:
    names = ("weights", "gradients and moments", "the rest")
    handles = [
        Patch(facecolor=(INK, 0.7 * alpha), edgecolor=INK, label=name)
        for name, alpha in zip(names, _PART_ALPHAS, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)


def _bar(
    position: int,
    arm: ArmSummary,
    value: Estimate | None,
    write: Callable[[float], str],
    *,
    of_baseline: str = "no result",
) -> _Bar:
    finite = value if value is not None and math.isfinite(value.mean) else None
    missing = of_baseline if arm.is_baseline else "no result"
    return _Bar(arm.arm, position, finite, write(finite.mean) if finite else missing)


def _exact(value: int | None) -> Estimate | None:
    return estimate_mean([] if value is None else [float(value)])


def _scaled(estimate: Estimate | None, unit: int) -> Estimate | None:
    if estimate is None:
        return None
    return Estimate(
        estimate.mean / unit, None, estimate.n, estimate.lowest / unit, estimate.highest / unit
    )
