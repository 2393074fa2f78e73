"""Figure 7: differences from full fine-tuning, document by document, in ascending order."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.pairs import PERCENTS, Comparison
from lorastudy.analysis.summary import ArmSummary
from lorastudy.report.figures.style import INK, add_legend, mark, new_figure, shorten, style_of
from lorastudy.report.figures.writing import DrawnFigure, save_figure

_N_COLUMNS = 2
_LOWEST, _HIGHEST = 2, 98  # percent; single documents beyond would set the scale


def draw_documents(findings: Findings) -> DrawnFigure:
    """One panel per benchmark, one line per arm: the quantiles of its documents' differences."""
    comparisons, reference = findings.main, findings.reference or ""
    others = [(p, arm) for p, arm in enumerate(findings.arms) if arm.arm != reference]
    n_rows = math.ceil(max(len(comparisons), 1) / _N_COLUMNS)
    figure = new_figure(0.6 + 2.4 * n_rows)
    panels = figure.subplots(n_rows, _N_COLUMNS, squeeze=False).ravel()
    for axes, comparison in zip(panels, comparisons, strict=False):
        _draw_panel(axes, comparison, reference, others)
    for axes in panels[max(len(comparisons), 1) :]:
        axes.set_axis_off()
    add_legend(figure, others)
    caption = (
        f"Each document's difference from {reference or 'no arm'} in nats, averaged "
        "over seeds, documents in ascending order, without the outermost 2 % on either side. A "
        "line crosses zero at the share of documents on which the arm is better."
    )
    return save_figure(figure, "fig7-documents", "Figure 7. Differences by document", caption)


def _draw_panel(
    axes: Axes, comparison: Comparison, reference: str, others: Sequence[tuple[int, ArmSummary]]
) -> None:
    axes.axhline(0, color=INK, linewidth=0.8)
    kept = slice(_LOWEST, _HIGHEST + 1)
    n_drawn = 0
    for position, arm in others:
        pair = comparison.find_pair(arm.arm, reference)
        if pair is None or pair.documents is None:
            continue
        n_drawn += 1
        style = style_of(position) | {"markevery": 16, "markersize": 4}
        (line,) = axes.plot(PERCENTS[kept], pair.documents.quantiles[kept], lw=1.3, **style)
        share = f"{100 * pair.documents.share_lower:.0f} %"
        mark(line, position, [f"{arm.arm}: better than {reference} on {share} of the documents"])
    if n_drawn == 0:
        axes.text(0.5, 0.5, "no sums by document", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
    axes.set_title(f"{shorten(comparison.key.benchmark)}, {comparison.key.protocol_name}", size=9)
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    axes.set_xlabel("share of documents")
    axes.set_ylabel(f"{comparison.key.unit}, minus {shorten(reference)}")
    axes.grid(axis="y")
