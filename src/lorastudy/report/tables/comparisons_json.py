"""Comparisons as JSON for programs, at full precision."""

import json
import math

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.forgetting import Change
from lorastudy.analysis.pairs import SMALL_DIFFERENCE, Comparison, Pair
from lorastudy.analysis.summary import ScoreKey
from lorastudy.report.numerals import ends_of
from lorastudy.report.wording import describe_question

_STEP = 5  # percent


def write_comparisons_json(findings: Findings) -> str:
    """All comparisons at full precision, and the tuned arms minus the baseline."""
    content = {
        "unit": "nats per target, first arm minus second",
        "confidence": 0.95,
        "equivalence_margin": findings.margin,
        "question": _describe_question(findings),
        "small_difference": SMALL_DIFFERENCE,
        "tuned_minus_baseline": [_describe_change(change) for change in findings.changes],
        "comparisons": [_describe(comparison) for comparison in findings.comparisons],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _describe_question(findings: Findings) -> dict[str, object] | None:
    """What the study declared before its runs; null if it declared no question."""
    question = findings.question
    if question is None:
        return None
    return {
        "arms": question.arms,
        "question": describe_question(question),
        "pairs": sorted(sorted(pair) for pair in question.pairs),
        "tests": list(map(_describe_key, question.tests)),
    }


def _describe_key(key: ScoreKey) -> dict[str, object]:
    return {
        "benchmark": key.benchmark,
        "protocol": key.protocol,
        "protocol_version": key.version,
    }


def _describe(comparison: Comparison) -> dict[str, object]:
    return {
        **_describe_key(comparison.key),
        "n_documents": comparison.n_documents,
        "ranked": comparison.ranked,
        "leader": comparison.leader,
        "tied_for_lead": comparison.tied_for_lead,
        "not_separated_from_lead": comparison.not_separated_from_lead,
        "groups": comparison.groups,
        "levels": [
            {"arm": level.arm, "cross_entropy": level.mean, "interval": ends_of(level.interval)}
            for level in comparison.levels
        ],
        "notes": comparison.notes,
        "pairs": [_describe_pair(pair) for pair in comparison.pairs],
    }


def _describe_change(change: Change) -> dict[str, object]:
    return {
        **_describe_key(change.key),
        "role": change.role,
        **_describe_pair(change.pair),
    }


def _describe_pair(pair: Pair) -> dict[str, object]:
    difference = pair.difference
    return {
        "first": pair.first,
        "second": pair.second,
        "difference": pair.mean,
        "interval": ends_of(pair.interval),
        "plain_interval": ends_of(pair.plain),
        "level": pair.level,
        "n_family": pair.n_family,
        "family": _name_family(pair),
        "bootstrap": ends_of(pair.bootstrap),
        "p": pair.p,
        "p_holm": pair.p_holm,
        "verdict": pair.verdict,
        "reason": pair.reason,
        "p_equivalence": pair.p_equivalence,
        "is_equivalent": pair.is_equivalent,
        "seeds": pair.seeds,
        "n_seeds_lower": pair.n_seeds_lower,
        "spread_ratio": pair.spread_ratio,
        "smallest_shown": pair.smallest_shown,
        "n_documents": difference.n_documents if difference else None,
        "seed_se": _root(difference.seed_variance) if difference else None,
        "document_se": _root(difference.document_variance) if difference else None,
        "shared_se": _root(difference.shared_variance) if difference else None,
        "seeds_for_observed": pair.seeds_for_observed,
        "seeds_for_equivalence": pair.seeds_for_equivalence,
        "seeds_for_small": pair.seeds_for_small,
        "documents": {
            "share_lower": documents.share_lower,
            "quantiles": documents.quantiles[::_STEP],  # at 0, 5, ... 100 %
        }
        if (documents := pair.documents)
        else None,
        "remark": pair.remark,
    }


def _name_family(pair: Pair) -> str | None:
    """The family that the pair was judged in; None if it was not judged."""
    if not pair.n_family:
        return None
    return "question" if pair.is_asked else "exploratory"


def _root(variance: float | None) -> float | None:
    return None if variance is None else math.sqrt(variance)
