"""How comparisons are written for people: pairs, and groups of arms that are not separated."""

import math
from collections.abc import Sequence

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.paired import SIGNIFICANCE
from lorastudy.analysis.pairs import (
    EQUIVALENCE_MARGIN,
    ONE_SEED,
    SMALL_DIFFERENCE,
    Comparison,
    Pair,
    PairVerdict,
)
from lorastudy.analysis.planning import MOST_SEEDS, POWER
from lorastudy.report.numerals import ABSENT, ends_of, write_interval, write_p, write_signed
from lorastudy.report.tables.table import (
    SCORE_COLUMNS,
    Cell,
    Column,
    Note,
    Table,
    documents_cell,
    score_cells,
    text_cell,
)
from lorastudy.report.wording import describe_evidence, write_percent

_WORDS: dict[PairVerdict, str] = {
    "lower": "lower",
    "higher": "higher",
    "equivalent": "tied",
    "not separated": "not separated",
    "one seed": "one seed",
    "no verdict": "no verdict",
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
HOW = (
    "Nats per target, first arm minus second, paired by seed and document; below zero the first "
    "arm is better. Intervals and p values are over seeds and documents together, and adjusted "
    "over all pairs of the benchmark and protocol (Bonferroni's inequality and Holm's steps): an "
    f"interval excludes zero exactly where p is below {SIGNIFICANCE}, and then the pair is "
    "separated. The variance over seeds is drawn towards that of all pairs. With one seed the "
    "interval is over documents only, for one pair by itself. From five seeds on, the bootstrap "
    "(seeds x documents, percentile) is a check."
)
PLAN = (
    f"Seeds that would separate the pair with a chance of {POWER:.0%} if its true difference were "
    f"the observed one, or {SMALL_DIFFERENCE} nats, as judged from the spread of these seeds, "
    "after Holm's adjustment. “documents”: no number of seeds is enough on so few documents."
)
EQUIVALENCE = (
    f"“within {EQUIVALENCE_MARGIN}”: the adjusted interval lies within {EQUIVALENCE_MARGIN} nats "
    "of zero. “Tied” is said only of such arms."
)
LETTERS = "Two arms that share a letter are not separated after Holm's adjustment."
DIFFERENCE_COLUMNS = (
    Column("arms", ("first", "second"), "left"),
    Column("difference", ("difference",)),
    Column("95 % interval, adjusted", ("low", "high")),
    Column("p (Holm)", ("p", "p_holm")),
)
COUNT_COLUMNS = (Column("seeds", ("n_seeds",)), Column("documents", ("n_documents",)))
_PAIR_COLUMNS = (
    *DIFFERENCE_COLUMNS,
    Column("first arm is", ("verdict",), "left"),
    Column(f"within {EQUIVALENCE_MARGIN}", ("p_equivalence", "is_equivalent"), "left"),
    *COUNT_COLUMNS,
    Column("seeds to separate it", ("seeds_for_observed",)),
    Column(f"seeds for {SMALL_DIFFERENCE}", ("seeds_for_small",)),
    Column("bootstrap", ("bootstrap_low", "bootstrap_high")),
    Column("remark", ("remark",), "wrap"),
)


def build_pair_table(comparison: Comparison) -> Table:
    """Every pair of arms under one score."""
    key = comparison.key
    title = f"{key.benchmark}, {key.protocol_name}: differences of arms"
    notes = [Note("", text) for text in comparison.notes]
    return Table(title, _PAIR_COLUMNS, tuple(map(_pair_cells, comparison.pairs)), tuple(notes))


def build_reference_table(findings: Findings) -> Table:
    """Every arm minus the reference arm, under protocols that score text alone."""
    reference = findings.reference or ""
    kept = [c for c in findings.comparisons if not c.key.scores_padding] or findings.comparisons
    pairs = [
        (c, pair)
        for c in kept
        for arm in findings.arms
        if (pair := c.find_pair(arm.arm, reference)) is not None
    ]
    columns = (
        *SCORE_COLUMNS,
        *DIFFERENCE_COLUMNS,
        Column("perplexity is", ("perplexity_ratio",)),
        Column("first arm is", ("verdict",), "left"),
        Column("what is known", ("evidence",), "wrap"),
    )
    rows = tuple(
        (
            *score_cells(c.key),
            *difference_cells(pair),
            _percent_cell(pair),
            _word_cell(pair),
            text_cell(describe_evidence(pair) or pair.remark),
        )
        for c, pair in pairs
    )
    title = f"Every arm minus {reference}, text only"
    return Table(title, columns, rows, (Note("", HOW), Note("", EQUIVALENCE)))


def _percent_cell(pair: Pair) -> Cell:
    if pair.mean is None:
        return Cell(ABSENT, (None,))
    return Cell(write_percent(pair.mean), (math.exp(min(pair.mean, 700.0)),))


def _word_cell(pair: Pair) -> Cell:
    """The word of a pair; one within the margin is said to be, if it is separated as well."""
    word = _WORDS[pair.verdict]
    detail = f"within {pair.margin:g}" if pair.is_separated and pair.is_equivalent else ""
    return Cell(word, (pair.verdict,), detail, is_emphasised=pair.is_separated)


def build_all_pairs(comparisons: Sequence[Comparison]) -> Table:
    """Every pair under every score in one table, for programs."""
    columns = (Column("benchmark", ("benchmark",)), Column("protocol", ("protocol",)))
    rows = tuple((*score_cells(c.key), *_pair_cells(pair)) for c in comparisons for pair in c.pairs)
    return Table("Differences of arms", (*columns, *_PAIR_COLUMNS), rows)


def build_group_table(comparisons: Sequence[Comparison]) -> Table:
    """Which arms are not separated, one row per score: the lead, and groups as letters."""
    columns = (
        *SCORE_COLUMNS,
        Column("lead", ("lead",), "wrap"),
        Column("arms, best first, with the letters of their groups", ("groups",), "wrap"),
    )
    rows = tuple(
        (
            *score_cells(c.key),
            text_cell(describe_lead(c)),
            text_cell(", ".join(f"{arm} ({_letters(c, arm)})" for arm in c.ranked)),
        )
        for c in comparisons
    )
    notes = tuple(Note("", text) for text in (LETTERS, HOW, EQUIVALENCE, PLAN))
    return Table("Which arms are not separated", columns, rows, notes)


def describe_lead(comparison: Comparison) -> str:
    """What may be said of the lowest loss, in a few words."""
    if len(comparison.ranked) < 2:
        return "nothing to compare"
    if comparison.n_documents == 0:
        return "not judged: sums by document were not found"
    if comparison.is_one_seed:
        return ONE_SEED
    if comparison.leader is not None:
        return f"{comparison.leader}, separated from every other arm"
    return f"not separated: {', '.join(comparison.not_separated_from_lead)}"


def difference_cells(pair: Pair) -> tuple[Cell, ...]:
    """The cells of DIFFERENCE_COLUMNS."""
    mean, p, p_holm = pair.mean, pair.p, pair.p_holm
    return (
        Cell(f"{pair.first} - {pair.second}", (pair.first, pair.second)),
        Cell(ABSENT if mean is None else write_signed(mean), (mean,)),
        Cell(write_interval(pair.interval), ends_of(pair.interval)),
        Cell(ABSENT if p_holm is None else write_p(p_holm), (p, p_holm)),
    )


def count_cells(pair: Pair) -> tuple[Cell, ...]:
    """The cells of COUNT_COLUMNS."""
    n_documents = pair.difference.n_documents if pair.difference else None
    return Cell(str(len(pair.seeds)), (len(pair.seeds),)), documents_cell(n_documents)


def _pair_cells(pair: Pair) -> tuple[Cell, ...]:
    is_equivalent = None if pair.p_equivalence is None else str(pair.is_equivalent).lower()
    shown = {None: ABSENT, "true": "yes", "false": "not shown"}[is_equivalent]
    return (
        *difference_cells(pair),
        _word_cell(pair),
        Cell(shown, (pair.p_equivalence, is_equivalent)),
        *count_cells(pair),
        _seeds_cell(pair, pair.seeds_for_observed),
        _seeds_cell(pair, pair.seeds_for_small),
        Cell(write_interval(pair.bootstrap), ends_of(pair.bootstrap)),
        text_cell(pair.remark),
    )


def _seeds_cell(pair: Pair, needed: int | None) -> Cell:
    if needed is not None:
        return Cell(str(needed) if needed <= MOST_SEEDS else f">{MOST_SEEDS:,}", (needed,))
    is_known = pair.difference is not None and pair.difference.seed_variance is not None
    return Cell("documents" if is_known else ABSENT, (None,))


def _letters(comparison: Comparison, arm: str) -> str:
    """The letters of the groups that hold `arm`; numbers where letters run out."""
    positions = [i for i, group in enumerate(comparison.groups) if arm in group]
    if len(comparison.groups) <= len(_LETTERS):
        return "".join(_LETTERS[position] for position in positions)
    return " ".join(str(position + 1) for position in positions)
