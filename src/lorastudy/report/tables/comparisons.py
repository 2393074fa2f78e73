"""How comparisons are written for people: pairs, and groups of arms that are not separated."""

import math
from collections.abc import Sequence

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.paired import SIGNIFICANCE
from lorastudy.analysis.pairs import (
    ONE_SEED,
    SMALL_DIFFERENCE,
    Comparison,
    Pair,
    PairVerdict,
)
from lorastudy.analysis.planning import MOST_SEEDS, POWER
from lorastudy.analysis.summary import ScoreKey
from lorastudy.report.numerals import ABSENT, ends_of, write_interval, write_p, write_with_interval
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
from lorastudy.report.wording import describe_evidence, describe_margin, write_size

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
    "over all pairs of the benchmark and protocol (Bonferroni's inequality and Holm's steps), "
    "apart from those of a question that was declared before the runs: an "
    f"interval excludes zero exactly where p is below {SIGNIFICANCE}, and then the pair is "
    "separated. The variance over seeds is drawn towards that of all pairs. With one seed the "
    "interval is over documents only, for one pair by itself. From five seeds on, the bootstrap "
    "(seeds x documents, percentile) is a check."
)
TASKS = (
    "Of a task, a document is an item, and its loss is 1 for a wrong answer: differences are those "
    "of shares of wrong answers."
)
PLAN = (
    f"Seeds that would separate the pair with a chance of {POWER:.0%} if its true difference were "
    f"the observed one, or {SMALL_DIFFERENCE} nats, as judged from the spread of these seeds, "
    "after Holm's adjustment. “documents”: no number of seeds is enough on so few documents."
)
ASKED = "¶"
ASKED_NOTE = Note(ASKED, "the question declared before the runs; other pairs are exploratory.")
LETTERS = "Two arms that share a letter are not separated after Holm's adjustment."
DIFFERENCE_COLUMNS = (
    Column("arms", ("first", "second"), "left"),
    Column("difference", ("difference",)),
    Column("95 % interval, adjusted", ("low", "high")),
    Column("p (Holm)", ("p", "p_holm")),
)
PLAIN_COLUMN = Column("95 % interval, pair alone", ("plain_low", "plain_high"))
PLAIN = (
    "“Pair alone”: the interval without the adjustment. It may exclude zero though the pair is not "
    "separated, since among many pairs some do so by chance. Words and p values are adjusted."
)
COUNT_COLUMNS = (Column("seeds", ("n_seeds",)), Column("documents", ("n_documents",)))


def explain_margin(findings: Findings) -> Note:
    """What it means to be within the margin, and what that is in per cent of perplexity."""
    margin, keys = findings.margin, [c.key for c in findings.comparisons]
    meaning = describe_margin(margin, keys)
    return Note(
        "",
        f"“within {margin:g}”: the adjusted interval lies within {meaning} of "
        "zero. “Tied” is said only of such arms.",
    )


def explain_tasks(findings: Findings) -> tuple[Note, ...]:
    """What a difference is under a task; nothing in a study without one."""
    if not any(c.key.is_task for c in findings.comparisons):
        return ()
    return (Note("", TASKS),)


def _pair_columns(margin: float) -> tuple[Column, ...]:
    return (
        *DIFFERENCE_COLUMNS,
        Column("first arm is", ("verdict",), "left"),
        Column(f"within {margin:g}", ("p_equivalence", "is_equivalent"), "left"),
        *COUNT_COLUMNS,
        Column("seeds to separate it", ("seeds_for_observed",)),
        Column(f"seeds for {SMALL_DIFFERENCE}", ("seeds_for_small",)),
        Column("bootstrap", ("bootstrap_low", "bootstrap_high")),
        Column("remark", ("remark",), "wrap"),
    )


def build_pair_table(comparison: Comparison, *, with_plain: bool = False) -> Table:
    """Every pair of arms under one score; `with_plain` as in `add_plain_intervals`."""
    key = comparison.key
    title = f"{key.benchmark}, {key.protocol_name}: differences of arms"
    notes = [Note("", text) for text in comparison.notes]
    notes += [ASKED_NOTE] if any(pair.is_asked for pair in comparison.pairs) else []
    columns = _pair_columns(comparison.margin)
    rows = tuple(map(_pair_cells, comparison.pairs))
    table = Table(title, columns, rows, tuple(notes))
    return add_plain_intervals(table, comparison.pairs) if with_plain else table


def add_plain_intervals(table: Table, pairs: Sequence[Pair]) -> Table:
    """The table with the interval of each pair by itself beside the adjusted one.

    `pairs` are those of its rows. Words and p values stay those of the adjusted intervals, so the
    table says that a plain interval may exclude zero though its pair is not separated.
    """
    place = 1 + next(i for i, c in enumerate(table.columns) if c.names == ("low", "high"))
    columns = (*table.columns[:place], PLAIN_COLUMN, *table.columns[place:])
    rows = (
        (*row[:place], Cell(write_interval(p.plain), ends_of(p.plain)), *row[place:])
        for row, p in zip(table.rows, pairs, strict=True)
    )
    return Table(table.title, columns, tuple(rows), (*table.notes, Note("", PLAIN)))


def build_reference_table(findings: Findings, *, with_plain: bool = False) -> Table:
    """Every arm minus the reference arm, under protocols that score text alone.

    `with_plain` as in `add_plain_intervals`.
    """
    reference = findings.reference or ""
    kept = [c for c in findings.comparisons if not c.key.scores_padding] or findings.comparisons
    pairs = [
        (c, pair)
        for c in kept
        for arm in findings.arms
        if (pair := c.find_pair(arm.arm, reference)) is not None
    ]
    shown = " or ".join(dict.fromkeys(c.key.compared for c in kept)) or "perplexity"
    columns = (
        *SCORE_COLUMNS,
        *DIFFERENCE_COLUMNS,
        Column(f"{shown} is", ("perplexity_ratio",)),
        Column("first arm is", ("verdict",), "left"),
        Column("what is known", ("evidence",), "wrap"),
    )
    rows = tuple(
        (
            *score_cells(c.key),
            *difference_cells(pair),
            _percent_cell(pair, c.key),
            _word_cell(pair),
            text_cell(describe_evidence(pair) or pair.remark),
        )
        for c, pair in pairs
    )
    title = f"Every arm minus {reference}, text only"
    asked = (ASKED_NOTE,) if any(pair.is_asked for _, pair in pairs) else ()
    notes = (*asked, Note("", HOW), *explain_tasks(findings), explain_margin(findings))
    table = Table(title, columns, rows, notes)
    return add_plain_intervals(table, [pair for _, pair in pairs]) if with_plain else table


def _percent_cell(pair: Pair, key: ScoreKey) -> Cell:
    """How much higher the perplexity is; only perplexities have a ratio."""
    if pair.mean is None:
        return Cell(ABSENT, (None,))
    ratio = None if key.is_task else math.exp(min(pair.mean, 700.0))
    return Cell(write_size(pair.mean, key), (ratio,))


def _word_cell(pair: Pair) -> Cell:
    """The word of a pair; one within the margin is said to be, if it is separated as well."""
    word = _WORDS[pair.verdict]
    detail = f"within {pair.margin:g}" if pair.is_separated and pair.is_equivalent else ""
    return Cell(word, (pair.verdict,), detail, is_emphasised=pair.is_separated)


def build_all_pairs(findings: Findings, *, with_plain: bool = False) -> Table:
    """Every pair under every score in one table, for programs."""
    pairs = [(c.key, pair) for c in findings.comparisons for pair in c.pairs]
    columns = (Column("benchmark", ("benchmark",)), Column("protocol", ("protocol",)))
    rows = tuple((*score_cells(key), *_pair_cells(pair)) for key, pair in pairs)
    table = Table("Differences of arms", (*columns, *_pair_columns(findings.margin)), rows)
    return add_plain_intervals(table, [pair for _, pair in pairs]) if with_plain else table


def build_group_table(findings: Findings) -> Table:
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
        for c in findings.comparisons
    )
    how = (Note("", HOW), *explain_tasks(findings), explain_margin(findings))
    notes = (Note("", LETTERS), *how, Note("", PLAN))
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
    shown, interval = (ABSENT, ABSENT) if mean is None else write_with_interval(mean, pair.interval)
    return (
        Cell(
            f"{pair.first} - {pair.second}",
            (pair.first, pair.second),
            mark=ASKED if pair.is_asked else "",
        ),
        Cell(shown, (mean,)),
        Cell(interval, ends_of(pair.interval)),
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
