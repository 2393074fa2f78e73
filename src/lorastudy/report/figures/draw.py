"""The figures of a study, the same bytes whenever the same results are drawn.

Drawn with `Figure` objects, so there is no global state and no display. Numbers 1 to 4 are
those of the published study; what has no value is drawn as a labelled gap.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import matplotlib

from lorastudy.analysis.findings import Findings
from lorastudy.report.figures.bars import draw_memory, draw_parameters, draw_time
from lorastudy.report.figures.curves import draw_losses, draw_rates
from lorastudy.report.figures.documents import draw_documents
from lorastudy.report.figures.explanations import draw_explanations
from lorastudy.report.figures.forest import draw_differences
from lorastudy.report.figures.fronts import draw_fronts
from lorastudy.report.figures.in_two import draw_all
from lorastudy.report.figures.steps import draw_steps, has_steps
from lorastudy.report.figures.style import SETTINGS
from lorastudy.report.figures.verdict import draw_verdict, has_verdict_figure
from lorastudy.report.figures.writing import DrawnFigure

_FIGURES = (
    draw_parameters,
    draw_losses,
    draw_memory,
    draw_time,
    draw_differences,
    draw_fronts,
    draw_documents,
)
_OF_TRAINING = (draw_losses, draw_memory, draw_time)  # left out where nothing was trained


def draw_figures(findings: Findings) -> tuple[DrawnFigure, ...]:
    """Figures 1 to 7, and four more where there is something to draw.

    Figure 0, of the verdict, needs two arms with a test in common. Figure 8 needs several learning
    rates of one arm, Figure 9 the losses of single steps, and Figure 10 what `lorastudy explain`
    found.
    """
    drawing = [
        *((draw_verdict,) * has_verdict_figure(findings)),
        *(f for f in _FIGURES if not (findings.is_elsewhere and f in _OF_TRAINING)),
        *((draw_rates,) * any(arm.n_rates_tried > 1 for arm in findings.arms)),
        *((draw_steps,) * has_steps(findings)),
        *((draw_explanations,) * bool(findings.explanations)),
    ]
    with matplotlib.rc_context(SETTINGS), _without_collector():
        return draw_all([partial(draw, findings) for draw in drawing])


@contextmanager
def _without_collector() -> Iterator[None]:
    """Drawing makes many objects and no garbage, so searching for unused cycles is in vain."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
