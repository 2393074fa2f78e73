"""Answers of all arms to the same items, side by side: the first items, and where arms disagree.

What an arm wrote is that of its first run; how often it was right is a mean over its seeds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorastudy.analysis.summary import ArmSummary, ScoreKey, score_key
from lorastudy.errors import StorageError
from lorastudy.store.document_sums import ItemRecord, read_document_sums
from lorastudy.store.files import read_record
from lorastudy.store.folders import StudyFolder
from lorastudy.store.records import RunResult
from lorastudy.store.sample_records import SamplesRecord

N_FIRST, N_APART = 3, 7  # items that are shown for each task


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """What one arm answers to one item."""

    text: str
    share_right: float  # of its seeds


@dataclass(frozen=True, slots=True)
class ItemAnswers:
    """One item, and the answers of every arm to it."""

    place: str
    prompt: str
    answer: str  # the right one
    by_arm: tuple[ArmAnswer, ...]

    @property
    def disagreement(self) -> float:
        """How far the arms' shares of right answers are apart, from 0 to 1."""
        shares = [answer.share_right for answer in self.by_arm]
        return max(shares) - min(shares)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Some items of one task: its first ones, and those on which arms disagree most."""

    key: ScoreKey
    arms: tuple[str, ...]  # with answers, in the study's order
    first: tuple[ItemAnswers, ...]
    apart: tuple[ItemAnswers, ...]  # most disagreement first; only where there is any
    n_apart: int  # items on which arms disagree
    n_items: int


@dataclass(frozen=True, slots=True)
class Samples:
    """What every arm's first run wrote after the prompts of the study."""

    prompts: tuple[str, ...]
    texts: tuple[tuple[str, tuple[str, ...]], ...]  # by arm, in the study's order: one per prompt


def read_samples(arms: Sequence[ArmSummary], folder: Path | None) -> Samples | None:
    """The samples of the runs in `folder`; None if there are none."""
    prompts: tuple[str, ...] = ()
    texts: list[tuple[str, tuple[str, ...]]] = []
    if folder is None:
        return None
    for arm in arms:
        for run in arm.runs[:1]:
            path = StudyFolder(folder).run(run.run_id).samples
            found = read_record(path, SamplesRecord).samples if path.is_file() else ()
            prompts = prompts or tuple(sample.prompt for sample in found)
            if found:
                texts.append((arm.arm, tuple(sample.text for sample in found)))
    return Samples(prompts, tuple(texts)) if texts else None


def lay_side_by_side(
    arms: Sequence[ArmSummary], keys: Iterable[ScoreKey], folder: Path | None
) -> tuple[SideBySide, ...]:
    """The answers to each benchmark under its first task; none without the run folders."""
    first: dict[str, ScoreKey] = {}
    for key in keys:
        if key.is_task:
            first.setdefault(key.benchmark, key)
    found = (_lay_out(arms, key, folder) for key in first.values())
    return tuple(each for each in found if each is not None)


def _lay_out(arms: Sequence[ArmSummary], key: ScoreKey, folder: Path | None) -> SideBySide | None:
    of_arms: dict[str, list[tuple[ItemRecord, ...]]] = {}
    for arm in arms:
        answered = [items for run in arm.runs if (items := _read_items(run, key, folder))]
        if answered:
            of_arms[arm.arm] = answered
    places = [tuple(i.place for i in items) for runs in of_arms.values() for items in runs]
    if not places or len(set(places)) > 1:
        return None  # other items in some runs, which comparisons say
    found = [_collect(number, list(of_arms.values())) for number in range(len(places[0]))]
    ranked = sorted(found[N_FIRST:], key=lambda item: -item.disagreement)
    n_apart = sum(item.disagreement > 0 for item in found)
    apart = tuple(item for item in ranked[:N_APART] if item.disagreement > 0)
    return SideBySide(key, tuple(of_arms), tuple(found[:N_FIRST]), apart, n_apart, len(found))


def _read_items(run: RunResult, key: ScoreKey, folder: Path | None) -> tuple[ItemRecord, ...]:
    evaluation = next((e for e in run.evaluations if score_key(e) == key), None)
    if evaluation is None or folder is None:
        return ()
    try:
        return read_document_sums(StudyFolder(folder).run(run.run_id), evaluation).items
    except StorageError:
        return ()  # comparisons say so


def _collect(number: int, of_arms: Sequence[Sequence[tuple[ItemRecord, ...]]]) -> ItemAnswers:
    first = of_arms[0][0][number]
    by_arm = tuple(
        ArmAnswer(runs[0][number].text, sum(items[number].right for items in runs) / len(runs))
        for runs in of_arms
    )
    return ItemAnswers(first.place, first.prompt, first.answer, by_arm)
