"""What scores over padded rows are made of: language, the end of a text, and repeated padding.

A padded protocol averages over text and padding alike, so two arms may differ although they
know language equally well. With N targets in all,

    score (nats per target) = sum over classes of (nats paid for the class / N)

and a difference of two arms is split the same way. Sums come from the records of runs; an arm's
figures are means over its seeds, as everywhere in the report.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from lorastudy.analysis.statistics import mean
from lorastudy.analysis.summary import ArmSummary, ScoreKey, score_key
from lorastudy.protocols import TEXT_CLASSES
from lorastudy.store.records import ClassSum, StudyResults

_GROUPS = (TEXT_CLASSES, ("first-padding",), ("other-padding",))


@dataclass(frozen=True, slots=True)
class Part:
    """What one class of target costs, or a group of classes."""

    nats: float | None  # per target of the class; None: there is none
    share_of_score: float  # nats of the class per target of any class; adds up to the score


@dataclass(frozen=True, slots=True)
class PaddedParts:
    """One arm under one padded score; means over `n_seeds` seeds."""

    arm: str
    n_seeds: int
    text: Part
    first_padding: Part
    other_padding: Part

    @property
    def from_padding(self) -> float:
        """What padding adds to the score."""
        return self.first_padding.share_of_score + self.other_padding.share_of_score

    @property
    def score(self) -> float:
        """Nats per target, text and padding together."""
        return self.text.share_of_score + self.from_padding


@dataclass(frozen=True, slots=True)
class PaddedScore:
    """The arms under one padded score."""

    key: ScoreKey
    parts: tuple[PaddedParts, ...]  # in the study's order; arms without the score are left out
    full: PaddedParts | None  # those of full fine-tuning, with which others are compared


@dataclass(frozen=True, slots=True)
class TextShare:
    """How much of what a padded score averages over is text."""

    key: ScoreKey
    share: float


def split_padded_scores(
    arms: Sequence[ArmSummary], keys: Iterable[ScoreKey]
) -> tuple[PaddedScore, ...]:
    """The parts of every arm's score under each padded one of `keys`."""
    return tuple(_split_score(arms, key) for key in keys if key.scores_padding)


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


def _split_score(arms: Sequence[ArmSummary], key: ScoreKey) -> PaddedScore:
    found = {arm.arm: parts for arm in arms if (parts := _split_arm(arm, key)) is not None}
    full = next((found[arm.arm] for arm in arms if arm.arm in found and arm.is_full), None)
    return PaddedScore(key, tuple(found.values()), full)


def _split_arm(arm: ArmSummary, key: ScoreKey) -> PaddedParts | None:
    n_seeds, parts = split_by_class(arm, key, _GROUPS)
    return PaddedParts(arm.arm, n_seeds, *parts) if parts else None


def split_by_class(
    arm: ArmSummary, key: ScoreKey, groups: Sequence[Collection[str]]
) -> tuple[int, tuple[Part, ...]]:
    """How many seeds of an arm have sums by class under `key`, and their mean for each group.

    No parts if there is no such seed.
    """
    of_seeds = [
        [_split(evaluation.classes, group) for group in groups]
        for run in arm.runs
        for evaluation in run.evaluations
        if score_key(evaluation) == key and evaluation.classes
    ]
    return len(of_seeds), tuple(map(_average, zip(*of_seeds, strict=True)))


def _split(classes: Sequence[ClassSum], group: Collection[str]) -> Part:
    """The classes of one group in one run."""
    total = sum(c.n_targets for c in classes)
    n_targets = sum(c.n_targets for c in classes if c.target_class in group)
    nats = sum(c.sum_nats for c in classes if c.target_class in group)
    return Part(nats / n_targets if n_targets else None, nats / total)


def _average(parts: Sequence[Part]) -> Part:
    known = [part.nats for part in parts if part.nats is not None]
    return Part(mean(known) if known else None, mean([part.share_of_score for part in parts]))
