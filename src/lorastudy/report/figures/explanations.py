"""Figure 10: which parts of a trained model carry what it learned, and how its weights moved."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lorastudy.analysis.explanations import ArmExplanation
from lorastudy.analysis.findings import Findings
from lorastudy.report.figures.style import (
    add_legend,
    draw_dot,
    mark,
    new_figure,
    shorten,
    style_of,
)
from lorastudy.report.figures.writing import DrawnFigure, save_figure


def draw_explanations(findings: Findings) -> DrawnFigure:
    """Four panels: worth by layer and by modules, norms by modules, spectra."""
    found = findings.explanations
    names = list(dict.fromkeys(m.modules for explained in found for m in explained.modules))
    figure = new_figure(4.2 + 0.28 * len(names))
    panels = figure.subplots(2, 2, gridspec_kw={"height_ratios": [1, 0.5 + 0.12 * len(names)]})
    _draw_layers(panels[0, 0], found)
    _draw_spectra(panels[0, 1], found)
    _draw_modules(panels[1, 0], found, names, "worth")
    _draw_modules(panels[1, 1], found, names, "moved")
    panels[1, 1].set_yticklabels([])
    add_legend(figure, [(e.position, findings.arms[e.position]) for e in found])
    caption = (
        "Worth: nats per target that the trained model loses on validation rows without the change "
        "of one layer, or of these modules in all layers. Moved: norm of the change divided by "
        "that of the old weights. Top right: share of the squared norm of a change in its largest "
        "singular values, mean over matrices. An adapter was added into the weights first."
    )
    return save_figure(
        figure, "fig10-what-training-changed", "Figure 10. What training changed", caption
    )


def _draw_layers(axes: Axes, found: Sequence[ArmExplanation]) -> None:
    for explained in found:
        places = [int(part.name) for part in explained.layers]
        values = [part.value.mean for part in explained.layers]
        (line,) = axes.plot(places, values, linewidth=1.3, **style_of(explained.position))
        hints = [
            f"{explained.arm}, layer {place}: {value:+.4f} nats"
            for place, value in zip(places, values, strict=True)
        ]
        mark(line, explained.position, hints)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layer")
    axes.set_ylabel("worth, nats per target")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.grid(axis="y")


def _draw_spectra(axes: Axes, found: Sequence[ArmExplanation]) -> None:
    for explained in found:
        if not explained.held:
            continue
        places = range(1, len(explained.held) + 1)
        style = style_of(explained.position) | {"marker": ""}
        (line,) = axes.plot(places, explained.held, linewidth=1.3, **style)
        mark(line, explained.position, [f"{explained.arm}: share held by the largest values"])
    axes.axhline(0.9, linewidth=0.6, color="0.5")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("largest singular values")
    axes.set_ylabel("share of squared norm")
    axes.grid(axis="y")


def _draw_modules(
    axes: Axes, found: Sequence[ArmExplanation], names: Sequence[str], what: str
) -> None:
    for number, explained in enumerate(found):
        offset = (number - (len(found) - 1) / 2) * 0.8 / max(len(found), 1)
        for modules in explained.modules:
            value = modules.value.mean if what == "worth" else modules.relative_norm
            at = (value, names.index(modules.modules) + offset)
            hint = f"{explained.arm}, {modules.modules}: {value:.4g}"
            draw_dot(axes, at, explained.position, hint, markersize=4.5)
    axes.set_yticks(range(len(names)), [shorten(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.set_xlabel("worth, nats per target" if what == "worth" else "moved, share of old norm")
    axes.grid()
