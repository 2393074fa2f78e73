"""What a study can find out, for the benchmarks that a check has cut into rows."""

from collections.abc import Iterator
from pathlib import Path

from lorastudy.analysis.outlook import DEFAULT_SPREAD, Outlook, Score, look_out, read_spread
from lorastudy.config.models import Study
from lorastudy.evaluate.subset import units_of
from lorastudy.study.check import StudyCheck


def look_out_for(
    study: Study, checked: StudyCheck, like: Path | None, wanted: float | None
) -> Iterator[Outlook]:
    """What each benchmark can find out under its first protocol that scores text alone.

    The spread is that of the study in the folder `like`; None: the one that is assumed.

    Raises:
        ConfigError: There is no spread in that folder.
    """
    n_trained = sum(arm.method != "baseline" for arm in study.arms)
    spread = DEFAULT_SPREAD if like is None else read_spread(like)
    for score in _list_scores(study, checked):
        key = (score.benchmark, score.protocol)
        yield look_out(
            score,
            spread if like is None else read_spread(like, key),
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
            rows = checked.scored[f"{benchmark.name}--{protocol}"]
            kind = rows.protocol.kind
            if kind.scores_padding:
                continue
            n_documents = len(set(units_of(kind, rows.table).tolist()))
            yield Score(benchmark.name, protocol, n_documents, kind.joins_documents)
            break
