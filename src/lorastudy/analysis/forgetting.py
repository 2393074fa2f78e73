"""What tuning did to each benchmark: every trained arm minus the baseline.

On a benchmark with the role `forgetting` (text unlike the training data) a loss above the
baseline's is what was forgotten; on a test it is what was gained, with the sign turned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lorastudy.analysis.pairs import Comparison, Pair
from lorastudy.analysis.summary import ScoreKey, summarise_arms
from lorastudy.report.numerals import ABSENT
from lorastudy.report.tables.comparisons import ends_of, write_interval, write_p, write_signed
from lorastudy.report.tables.table import Cell, Column, Note, Table
from lorastudy.store.records import StudyResults

Role = Literal["test", "forgetting"]
HOW = (
    "Nats a target, tuned arm minus baseline, paired by document; above zero the tuned arm is "
    "worse than the base model. 95 % intervals and p values as in the table of all pairs."
)
_WORDS = {
    "lower": "better than the base model",
    "higher": "worse than the base model",
    "not separated": "not separated",
    "one seed": "one seed: no claim about training",
    "no interval": ABSENT,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One trained arm minus the baseline under one score."""

    key: ScoreKey
    role: Role
    pair: Pair  # the trained arm first


def measure_changes(results: StudyResults, comparisons: Sequence[Comparison]) -> tuple[Change, ...]:
    """Every trained arm minus the baseline, forgetting first; none without a baseline."""
    arms = summarise_arms(results)
    baselines = [arm.arm for arm in arms if arm.is_baseline]
    trained = [arm.arm for arm in arms if not arm.is_baseline]
    changes = [
        Change(c.key, _role(results, c.key), pair)
        for c in comparisons
        for baseline in baselines
        for arm in trained
        if (pair := c.find_pair(arm, baseline)) is not None
    ]
    return tuple(sorted(changes, key=lambda change: change.role))


def build_change_table(changes: Sequence[Change]) -> Table:
    """One row for each change."""
    columns = (
        Column("benchmark", ("benchmark",), "left"),
        Column("role", ("role",), "left"),
        Column("protocol", ("protocol",), "left"),
        Column("arms", ("first", "second"), "left"),
        Column("difference", ("difference",)),
        Column("95 % interval", ("low", "high")),
        Column("p (Holm)", ("p", "p_holm")),
        Column("tuned arm is", ("verdict",), "left"),
        Column("seeds", ("n_seeds",)),
        Column("documents", ("n_documents",)),
    )
    title = "Tuned minus baseline: what was gained, and what was forgotten"
    return Table(title, columns, tuple(map(_cells, changes)), (Note("", HOW),))


def _role(results: StudyResults, key: ScoreKey) -> Role:
    return "forgetting" if key.benchmark in results.forgetting else "test"


def _cells(change: Change) -> tuple[Cell, ...]:
    pair, key = change.pair, change.key
    n_documents = pair.difference.n_documents if pair.difference else None
    return (
        Cell(key.benchmark, (key.benchmark,)),
        Cell(change.role, (change.role,)),
        Cell(key.protocol_name, (key.protocol_name,)),
        Cell(f"{pair.first} - {pair.second}", (pair.first, pair.second)),
        Cell(ABSENT if pair.mean is None else write_signed(pair.mean), (pair.mean,)),
        Cell(write_interval(pair.interval), ends_of(pair.interval)),
        Cell(ABSENT if pair.p_holm is None else write_p(pair.p_holm), (pair.p, pair.p_holm)),
        Cell(_WORDS[pair.verdict], (pair.verdict,), is_emphasised=pair.is_separated),
        Cell(str(len(pair.seeds)), (len(pair.seeds),)),
        Cell(ABSENT if n_documents is None else f"{n_documents:,}", (n_documents,)),
    )
