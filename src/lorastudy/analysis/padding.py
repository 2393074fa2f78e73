"""What scores over padded rows are made of: language, the end of a text, and repeated padding.

A padded protocol averages over text and padding alike, so two arms may differ although they
know language equally well. With N targets in all,

    score (nats a target) = sum over classes of (nats paid for the class / N)

and a difference of two arms is split the same way. Sums come from the records of runs; an arm's
figures are means over its seeds, as everywhere in the report.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorastudy.analysis.statistics import mean
from lorastudy.analysis.summary import TEXT_CLASSES, ArmSummary, ScoreKey, score_key, summarise_arms
from lorastudy.report.numerals import ABSENT, perplexity_decimals, write_number
from lorastudy.report.tables.comparisons import write_signed
from lorastudy.report.tables.table import Cell, Column, Note, Table
from lorastudy.store.records import ClassSum, StudyResults

HOW = (
    "Means over seeds. Text: all tokens of the documents. The last columns split the arm's padded "
    "loss minus full fine-tuning's into what text and what padding contribute, in nats a target of "
    "any kind; only the part from text is about language."
)
_CLASSES = (TEXT_CLASSES, ("first-padding",), ("other-padding",))


@dataclass(frozen=True, slots=True)
class Part:
    """What one class of target costs."""

    nats: float | None  # a target of the class; None: there is none
    share_of_score: float  # nats of the class over all targets; adds up to the score


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
        """Nats a target, text and padding together."""
        return self.text.share_of_score + self.from_padding


def split_padded_score(results: StudyResults, key: ScoreKey) -> tuple[PaddedParts, ...]:
    """The parts of every arm's score, in the study's order; arms without one are left out."""
    found = (_split_arm(arm, key) for arm in summarise_arms(results))
    return tuple(parts for parts in found if parts is not None)


def build_padding_table(results: StudyResults, keys: Sequence[ScoreKey]) -> Table:
    """One row for each arm under each padded one of `keys`; no rows if none is padded."""
    columns = (
        Column("benchmark", ("benchmark",), "left"),
        Column("protocol", ("protocol",), "left"),
        Column("arm", ("arm", "n_seeds"), "left"),
        Column("padded loss", ("padded_cross_entropy",)),
        Column("text", ("text_nats", "text_perplexity"), group="nats a target of"),
        Column("first padding", ("first_padding_nats",), group="nats a target of"),
        Column("other padding", ("other_padding_nats",), group="nats a target of"),
        Column("all", ("minus_full",), group="minus full"),
        Column("from text", ("minus_full_text",), group="minus full"),
        Column("from padding", ("minus_full_padding",), group="minus full"),
    )
    full = {arm.arm for arm in summarise_arms(results) if any(r.method == "full" for r in arm.runs)}
    rows: list[tuple[Cell, ...]] = []
    for key in keys:
        found = split_padded_score(results, key) if key.scores_padding else ()
        reference = next((parts for parts in found if parts.arm in full), None)
        rows += [_cells(key, parts, reference) for parts in found]
    return Table("What padded scores are made of", columns, tuple(rows), (Note("", HOW),))


def _split_arm(arm: ArmSummary, key: ScoreKey) -> PaddedParts | None:
    of_seeds = [
        _split(evaluation.classes)
        for run in arm.runs
        for evaluation in run.evaluations
        if score_key(evaluation) == key and evaluation.classes
    ]
    if not of_seeds:
        return None
    return PaddedParts(arm.arm, len(of_seeds), *map(_average, zip(*of_seeds, strict=True)))


def _split(classes: Sequence[ClassSum]) -> list[Part]:
    """Text, first padding and other padding of one run."""
    total = sum(c.n_targets for c in classes)
    parts = []
    for names in _CLASSES:
        n_targets = sum(c.n_targets for c in classes if c.target_class in names)
        nats = sum(c.sum_nats for c in classes if c.target_class in names)
        parts.append(Part(nats / n_targets if n_targets else None, nats / total))
    return parts


def _average(parts: Sequence[Part]) -> Part:
    known = [part.nats for part in parts if part.nats is not None]
    return Part(mean(known) if known else None, mean([part.share_of_score for part in parts]))


def _cells(key: ScoreKey, parts: PaddedParts, full: PaddedParts | None) -> tuple[Cell, ...]:
    def minus_full(read: Callable[[PaddedParts], float]) -> Cell:
        if full is None or full.arm == parts.arm:
            return Cell(ABSENT, (None,))
        difference = read(parts) - read(full)
        return Cell(write_signed(difference), (difference,))

    text = parts.text.nats
    perplexity = math.exp(text) if text is not None and text < 700 else math.inf
    return (
        Cell(key.benchmark, (key.benchmark,)),
        Cell(key.protocol_name, (key.protocol_name,)),
        Cell(parts.arm, (parts.arm, parts.n_seeds), detail=f"({parts.n_seeds})"),
        _nats_cell(parts.score),
        Cell(
            ABSENT if text is None else write_number(text, 4),
            (text, perplexity),
            detail=f"perplexity {write_number(perplexity, perplexity_decimals(perplexity))}",
        ),
        _nats_cell(parts.first_padding.nats),
        _nats_cell(parts.other_padding.nats),
        minus_full(lambda p: p.score),
        minus_full(lambda p: p.text.share_of_score),
        minus_full(lambda p: p.from_padding),
    )


def _nats_cell(value: float | None) -> Cell:
    return Cell(ABSENT if value is None else write_number(value, 4), (value,))
