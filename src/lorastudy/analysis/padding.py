"""How much of what padded scores average over is text."""

from collections.abc import Iterable
from dataclasses import dataclass

from lorastudy.analysis.summary import ScoreKey, score_key
from lorastudy.protocols import TEXT_CLASSES
from lorastudy.store.records import StudyResults


@dataclass(frozen=True, slots=True)
class TextShare:
    """How much of what a padded score averages over is text."""

    key: ScoreKey
    share: float


def find_text_shares(results: StudyResults, keys: Iterable[ScoreKey]) -> tuple[TextShare, ...]:
    """The share of text under each padded one of `keys`, where the records tell it."""
    return tuple(
        TextShare(key, share)
        for key in keys
        if key.scores_padding and (share := _text_share(results, key)) is not None
    )


def _text_share(results: StudyResults, key: ScoreKey) -> float | None:
    """The share of text among the scored targets; None if the records do not tell."""
    for run in results.runs:
        for evaluation in run.evaluations:
            n_targets = sum(part.n_targets for part in evaluation.classes)
            if score_key(evaluation) == key and n_targets:
                text = [c.n_targets for c in evaluation.classes if c.target_class in TEXT_CLASSES]
                return sum(text) / n_targets
    return None
