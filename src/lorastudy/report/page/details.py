"""Sentences of the page's sections: placements, leads, forgetting, limits."""

from collections.abc import Sequence

from lorastudy.analysis.claims import arms_in_role
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.pairs import Comparison
from lorastudy.analysis.recommendation import list_tests
from lorastudy.report.numerals import decimals_off_zero
from lorastudy.report.wording import (
    describe_margin,
    describe_question,
    join,
    name_arm,
    name_unit,
    write_difference,
)


def compare_placements(findings: Findings) -> tuple[str, ...]:
    """For each test, which LoRA placements are separated from the one with the lowest loss."""
    loras = {arm.arm for arm in arms_in_role("every LoRA", findings.arms)}
    sentences = []
    for comparison in list_tests(findings):
        ranked = [arm for arm in comparison.ranked if arm in loras]
        if len(ranked) > 1 and _is_judged(comparison):
            said = _describe_rest(comparison, ranked[0], ranked[1:])
            # variants such as DoRA may be on the same modules
            plain = all(name_arm(findings, arm).startswith("LoRA on ") for arm in ranked)
            what = "placements" if plain or findings.study is None else "arms"
            sentences.append(
                f"On {comparison.key.benchmark}, {ranked[0]} has the lowest loss of the LoRA "
                f"{what}: {said}."
            )
    return tuple(sentences)


def _describe_rest(comparison: Comparison, lead: str, others: Sequence[str]) -> str:
    """The other arms, grouped by what is shown: worse, equivalent, or neither."""
    worse, tied, rest = [], [], []
    for arm in others:
        pair = comparison.find_pair(lead, arm)
        if pair is not None and pair.verdict == "lower":
            worse.append(arm)
        elif pair is not None and pair.verdict == "equivalent":
            tied.append(arm)
        else:
            rest.append(arm)
    parts = [
        f"{join(arms)} {'is' if len(arms) == 1 else 'are'} {words}"
        for arms, words in (
            (worse, "separated from it"),
            (tied, "tied with it"),
            (rest, "not separated from it"),
        )
        if arms
    ]
    return "; ".join(parts)


def state_lead(comparison: Comparison) -> str:
    """What can be said about the arm with the lowest loss under one score."""
    key, ranked = comparison.key, comparison.ranked
    where = f"On {key.benchmark} ({key.protocol_name}), "
    if len(ranked) < 2:
        return f"{where}there is nothing to compare."
    if not _is_judged(comparison):
        why = (
            "one seed supports no claim about training"
            if comparison.is_one_seed
            else "the differences cannot be judged"
        )
        return f"{where}{ranked[0]} has the lowest loss, but {why}."
    if comparison.leader is not None:
        return f"{where}{comparison.leader} is best, separated from every other arm."
    said = _describe_rest(comparison, ranked[0], ranked[1:])
    return f"{where}no arm is best. {ranked[0]} has the lowest loss: {said}."


def state_families(findings: Findings) -> str:
    """Which pairs answer a declared question, and that all others are exploratory."""
    exploratory = (
        "exploratory: adjusted for the pairs of arms of its benchmark and protocol, and to be "
        "confirmed by another study that declares it as its question"
    )
    if findings.question is None:
        return (
            "The study declared no question before its runs (key question of the study file), so "
            f"every comparison is {exploratory}."
        )
    looks = (
        " All of them are adjusted for the looks that were taken while seeds were added, too."
        if findings.decisions
        else ""
    )
    return (
        f"The study declared one question before its runs: {describe_question(findings.question)} "
        "Its comparisons (marked ¶) are adjusted for each other alone, over all tests. Every other "
        f"comparison is {exploratory}.{looks}"
    )


def state_forgetting(findings: Findings) -> tuple[str, ...]:
    """For each benchmark for forgetting, the arms that are worse than the base model."""
    changes = findings.restrict(findings.main).changes
    asked = [change for change in changes if change.role == "forgetting"]
    sentences = []
    for benchmark in dict.fromkeys(change.key.benchmark for change in asked):
        found = [c for c in asked if c.key.benchmark == benchmark and c.pair.mean is not None]
        pairs = [change.pair for change in found]
        if not pairs:
            continue
        worst = max(pairs, key=lambda pair: pair.mean or 0.0)
        lost = [pair.first for pair in pairs if pair.verdict == "higher"]
        said = f"worse than the base model: {join(lost)}" if lost else "no arm is shown to be worse"
        size = write_difference(worst.mean or 0.0, None, found[0].key)
        sentences.append(
            f"On {benchmark}, {said}. The highest difference is {size}, that of {worst.first}."
        )
    return tuple(sentences)


def _say_pairing(findings: Findings) -> str:
    """What arms of one seed share."""
    if not findings.is_elsewhere:
        return "every arm of a seed saw the same data in the same order"
    return (
        "they are numbered in the order in which folders were given. The arms were trained "
        "elsewhere, so equal numbers share nothing; pairing them by number is valid all the same"
    )


def state_limits(findings: Findings) -> tuple[str, ...]:
    """What can be concluded from a study of this design."""
    results, comparisons = findings.results, findings.comparisons
    if not comparisons:
        return ()
    n = len(results.seeds)
    margin = next((p.margin for c in comparisons for p in c.pairs), None)
    sentences = [
        "There is one seed, so it is not known what another seed would give, and no order of arms "
        "is supported."
        if n == 1
        else f"There are {n} seeds, and {_say_pairing(findings)}. "
        "“Better” and “worse” are said only of separated arms, after an adjustment for the "
        "number of pairs."
    ]
    if margin is not None:
        sentences.append(
            "“Tied” is said only of arms that are shown to differ by less than "
            f"{describe_margin(margin, [c.key for c in comparisons])}."
        )
    sentences += [
        f"On {c.key.benchmark}, this study separates true differences of {_write_nats(low)} "
        f"{name_unit(c.key)} or more between its most exact pair of arms, and of "
        f"{_write_nats(high)} between its least exact one, with a chance of 80 %."
        for c in list_tests(findings)
        if c.smallest_shown is not None
        for low, high in (c.smallest_shown,)
    ]
    padded = [c for c in comparisons if c.key.scores_padding]
    if padded and len(padded) < len(comparisons):
        sentences.append(
            "Scores that count padding as text take no part in the verdict. They are folded below "
            "Table I."
        )
    return tuple(sentences)


def _write_nats(size: float) -> str:
    return f"{size:.{decimals_off_zero((size,), 3)}f}"


def _is_judged(comparison: Comparison) -> bool:
    return comparison.n_documents > 0 and not comparison.is_one_seed
