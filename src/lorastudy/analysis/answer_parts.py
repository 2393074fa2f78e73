"""What scores of answers are made of: the answers themselves, their ends, and what else is scored.

An arm may write better answers, or only know better where they end. As for padding, a score is
split into what each class of target adds to it; the parts add up to the score.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lorastudy.analysis.padding import Part, split_by_class
from lorastudy.analysis.summary import ArmSummary, ScoreKey
from lorastudy.protocols import ANSWER_CLASSES, AnswerClass


@dataclass(frozen=True, slots=True)
class AnswerParts:
    """One arm under one score of answers; means over `n_seeds` seeds."""

    arm: str
    n_seeds: int
    parts: tuple[Part, ...]  # by ANSWER_CLASSES

    @property
    def score(self) -> float:
        """Nats per target of any class."""
        return sum(part.share_of_score for part in self.parts)

    def part(self, name: AnswerClass) -> Part:
        """What the targets of one class cost."""
        return self.parts[ANSWER_CLASSES.index(name)]


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """The arms under one score of answers."""

    key: ScoreKey
    arms: tuple[AnswerParts, ...]  # in the study's order; arms without the score are left out
    full: AnswerParts | None  # those of full fine-tuning, with which others are compared


def split_answer_scores(
    arms: Sequence[ArmSummary], keys: Iterable[ScoreKey]
) -> tuple[AnswerScore, ...]:
    """The parts of every arm's score under each of `keys` that scores answers."""
    return tuple(_split_score(arms, key) for key in keys if key.scores_answers)


def _split_score(arms: Sequence[ArmSummary], key: ScoreKey) -> AnswerScore:
    groups = [(name,) for name in ANSWER_CLASSES]
    found: list[AnswerParts] = []
    full = None
    for arm in arms:
        n_seeds, parts = split_by_class(arm, key, groups)
        if parts:
            found.append(AnswerParts(arm.arm, n_seeds, parts))
            full = full or (found[-1] if arm.is_full else None)
    return AnswerScore(key, tuple(found), full)
