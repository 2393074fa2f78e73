"""A decision as JSON for programs, at full precision."""

import math
from collections.abc import Iterable, Mapping

from lorastudy.analysis.costs import CostRatio
from lorastudy.analysis.decision import Decision
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.recommendation import OnTest
from lorastudy.report.numerals import ends_of
from lorastudy.report.page.headline import state_headline
from lorastudy.report.page.verdict import state_decision


def describe_decision(decision: Decision, findings: Findings, folder: str) -> Mapping[str, object]:
    """What `lorastudy decide --json` prints; sizes are bytes, times seconds, losses nats."""
    found, step = decision.found, decision.found.step
    statements = state_decision(decision, findings, folder=folder)
    return {
        "outcome": found.outcome,
        "recommended": found.recommended,
        "headline": state_headline(findings, found.limits),
        "weights": decision.find_weights(folder),
        "asked": found.lora,
        "reference": found.reference,
        "margin": decision.margin,
        "margin_of_study": decision.margin_of_study,
        "limits": found.limits.given,
        "left_out": [
            {"arm": e.arm, "limit": e.limit, "needed": e.needed, "allowed": e.allowed}
            for e in found.excesses
        ],
        "tests": _describe_tests(found.tests),
        "costs": _describe_costs(found.costs),
        "gives_up": _describe_tests(decision.gives_up),
        "as_good": [
            {"arm": other.arm, "cheaper": _describe_costs(other.cheaper)}
            for other in decision.as_good
        ],
        "would_change": [
            {
                "option": other.option,
                "outcome": other.found.outcome,
                "recommended": other.found.recommended,
            }
            for other in decision.would_change
        ],
        "next": {
            "kind": step.kind,
            "command": step.write_command(folder),
            "n_seeds": step.n_seeds,
            "n_more": step.n_more,
            "seconds": step.seconds,
        },
        "statements": [
            {"question": statement.question, "sentences": statement.sentences}
            for statement in statements
        ],
    }


def _describe_tests(tests: Iterable[OnTest]) -> list[dict[str, object]]:
    described: list[dict[str, object]] = []
    for test in tests:
        pair = test.pair
        low, high = ends_of(pair.interval)
        described.append(
            {
                "benchmark": test.key.benchmark,
                "protocol": test.key.protocol,
                "first": pair.first,
                "second": pair.second,
                "difference": pair.mean,
                "low": low,
                "high": high,
                "verdict": pair.verdict,
                "within_margin": pair.is_equivalent,
            }
        )
    return described


def _describe_costs(costs: Iterable[CostRatio]) -> dict[str, float]:
    return {cost.name: cost.ratio for cost in costs if math.isfinite(cost.ratio)}
