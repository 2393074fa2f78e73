"""What a score is made of: what each class of its targets adds to it.

A padded protocol averages over text and padding alike, so two arms may differ although they
know language equally well. An arm may write better answers, or only know better where they end.
With N targets in all,

    score (nats per target) = sum over classes of (nats paid for the class / N)

and a difference of two arms is split the same way. Sums come from the records of runs; an arm's
figures are means over its seeds, as everywhere in the report.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lorastudy.analysis.statistics import mean
from lorastudy.analysis.summary import ArmSummary, ScoreKey, score_key
from lorastudy.protocols import ANSWER_CLASSES, TEXT_CLASSES
from lorastudy.store.records import ClassSum

_Groups = Mapping[str, Collection[str]]  # classes of target that are one part, by its name
_OF_PADDED: _Groups = {
    "text": TEXT_CLASSES,
    "first-padding": ("first-padding",),
    "other-padding": ("other-padding",),
}
_OF_ANSWERS: _Groups = {name: (name,) for name in ANSWER_CLASSES}


@dataclass(frozen=True, slots=True)
class Part:
    """What one class of target costs, or a group of classes."""

    nats: float | None  # per target of the class; None: there is none
    share_of_score: float  # nats of the class per target of any class; adds up to the score


@dataclass(frozen=True, slots=True)
class ArmParts:
    """One arm under one score; means over `n_seeds` seeds."""

    arm: str
    n_seeds: int
    parts: Mapping[str, Part]  # "text", "first-padding", "other-padding"; or ANSWER_CLASSES

    @property
    def score(self) -> float:
        """Nats per target of any class."""
        return self.add("")

    def add(self, ending: str) -> float:
        """What the parts whose names end like this add to the score."""
        return sum(p.share_of_score for name, p in self.parts.items() if name.endswith(ending))


@dataclass(frozen=True, slots=True)
class SplitScore:
    """The arms under one score, split by class of target."""

    key: ScoreKey
    arms: tuple[ArmParts, ...]  # in the study's order; arms without the score are left out
    full: ArmParts | None  # those of full fine-tuning, with which others are compared


def split_padded_scores(
    arms: Sequence[ArmSummary], keys: Iterable[ScoreKey]
) -> tuple[SplitScore, ...]:
    """Text and padding in every arm's score under each padded one of `keys`."""
    return tuple(_split_score(arms, key, _OF_PADDED) for key in keys if key.scores_padding)


def split_answer_scores(
    arms: Sequence[ArmSummary], keys: Iterable[ScoreKey]
) -> tuple[SplitScore, ...]:
    """The classes in every arm's score under each of `keys` that scores answers."""
    return tuple(_split_score(arms, key, _OF_ANSWERS) for key in keys if key.scores_answers)


def _split_score(arms: Sequence[ArmSummary], key: ScoreKey, groups: _Groups) -> SplitScore:
    found, full = list[ArmParts](), None
    for arm in arms:
        of_seeds = [
            [_split(evaluation.classes, group) for group in groups.values()]
            for run in arm.runs
            for evaluation in run.evaluations
            if score_key(evaluation) == key and evaluation.classes
        ]
        if of_seeds:
            means = map(_average, zip(*of_seeds, strict=True))
            found.append(ArmParts(arm.arm, len(of_seeds), dict(zip(groups, means, strict=True))))
            full = full or (found[-1] if arm.is_full else None)
    return SplitScore(key, tuple(found), full)


def _split(classes: Sequence[ClassSum], group: Collection[str]) -> Part:
    """The classes of one group in one run."""
    total = sum(c.n_targets for c in classes)
    n_targets = sum(c.n_targets for c in classes if c.target_class in group)
    nats = sum(c.sum_nats for c in classes if c.target_class in group)
    return Part(nats / n_targets if n_targets else None, nats / total)


def _average(parts: Sequence[Part]) -> Part:
    known = [part.nats for part in parts if part.nats is not None]
    return Part(mean(known) if known else None, mean([part.share_of_score for part in parts]))
