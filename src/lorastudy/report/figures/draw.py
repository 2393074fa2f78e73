"""The figures of a study, the same bytes whenever the same results are drawn.

Drawn with `Figure` objects, so there is no global state and no display. Numbers 1 to 4 are
those of the published study; what has no value is drawn as a labelled gap.
"""

from collections.abc import Sequence

import matplotlib

from lorastudy.analysis.evidence import Evidence, doubts_of_arms, read_evidence
from lorastudy.analysis.fronts import find_fronts
from lorastudy.analysis.pairs import Comparison, choose_main
from lorastudy.analysis.rates import summarise_rates
from lorastudy.analysis.summary import memory_kind, summarise_arms
from lorastudy.report.figures.bars import draw_memory, draw_parameters, draw_time
from lorastudy.report.figures.curves import draw_losses, draw_rates
from lorastudy.report.figures.documents import draw_documents
from lorastudy.report.figures.forest import draw_differences
from lorastudy.report.figures.fronts import draw_fronts
from lorastudy.report.figures.style import SETTINGS, DrawnFigure
from lorastudy.store.records import StudyResults


def draw_figures(
    results: StudyResults, comparisons: Sequence[Comparison], evidence: Evidence | None = None
) -> tuple[DrawnFigure, ...]:
    """Figures 1 to 7, and 8 where an arm was tried at several learning rates.

    Without `evidence` nothing is known beyond the results.
    """
    arms = summarise_arms(results)
    evidence = evidence or read_evidence(results, None)
    fronts = find_fronts(results, comparisons, evidence)
    main = choose_main(comparisons)
    with matplotlib.rc_context(SETTINGS):
        figures = (
            draw_parameters(arms),
            draw_losses(arms, results.training_protocol),
            draw_memory(arms, memory_kind(results)),
            draw_time(arms, doubts_of_arms(results, evidence)),
            draw_differences(arms, comparisons),
            draw_fronts(fronts, arms, main),
            draw_documents(arms, main),
        )
        has_several_rates = any(arm.n_rates_tried > 1 for arm in arms)
        rates = (draw_rates(arms, summarise_rates(results)),) if has_several_rates else ()
        return (*figures, *rates)
