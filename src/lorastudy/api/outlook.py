"""What a study can find out, for the benchmarks that a check has cut into rows."""

from collections.abc import Iterator

from lorastudy.analysis.outlook import Outlook, Score, Spreads, look_out
from lorastudy.config.models import Study
from lorastudy.study.check import StudyCheck


def look_out_for(
    study: Study, checked: StudyCheck, spreads: Spreads, wanted: float | None
) -> Iterator[Outlook]:
    """What each benchmark can find out under its first protocol that scores text alone."""
    n_trained = sum(arm.method != "baseline" for arm in study.arms)
    for score in _list_scores(study, checked):
        yield look_out(
            score,
            spreads.of(score),
            n_seeds=len(study.seeds),
            n_trained=n_trained,
            n_arms=len(study.arms),
            wanted=wanted,
        )


def _list_scores(study: Study, checked: StudyCheck) -> Iterator[Score]:
    if len(study.arms) < 2 or all(arm.method == "baseline" for arm in study.arms):
        return
    for benchmark in study.benchmarks:
        for protocol in benchmark.protocols:
            part = checked.scored[f"{benchmark.name}--{protocol}"]
            kind = part.protocol.kind
            if kind.scores_padding:
                continue
            yield Score(benchmark.name, protocol, part.n_units, kind.joins_documents, kind.is_task)
            break
