"""What a look sees of the question: the pairs as the report will show them."""

from pathlib import Path

from lorastudy.analysis.compare import compare_study
from lorastudy.analysis.looks import Look
from lorastudy.analysis.question import find_question, list_pairs
from lorastudy.analysis.summary import list_score_keys, summarise_arms
from lorastudy.analysis.until_decided import find_fate
from lorastudy.config.models import Study
from lorastudy.store.decisions import Plan, SeenPair
from lorastudy.store.records import StudyResults


def look_at(
    results: StudyResults, folder: Path, study: Study, looks: tuple[Look, ...], plan: Plan
) -> tuple[SeenPair, ...]:
    """The pairs of the plan's question on every test, as the last of `looks` leaves them.

    In a pair with full fine-tuning, that arm comes first. Pairs that no look could judge are left
    out.
    """
    arms, keys = summarise_arms(results), list_score_keys(results)
    question = find_question(plan.question, study, arms, keys, results.forgetting)
    if question is None:
        return ()
    compared = compare_study(
        arms,
        keys,
        folder,
        with_bootstrap=False,
        margin=study.margin,
        question=question,
        looks=looks,
    )
    found = (
        (c.key, pair)
        for c in compared
        if c.key in question.tests
        for names in list_pairs(plan.question, study)
        if (pair := c.find_pair(*names)) is not None
    )
    return tuple(
        SeenPair(
            benchmark=key.benchmark,
            protocol=key.protocol,
            first=pair.first,
            second=pair.second,
            difference=pair.mean,
            low=pair.interval.low,
            high=pair.interval.high,
            fate=find_fate(pair, looks[-1], plan.most_seeds),
        )
        for key, pair in found
        if pair.mean is not None and pair.interval is not None and pair.is_judged
    )
