"""A recommendation with all that belongs to it: where the arm is, what else would do, and why.

    recommendation ──► the arm, and the folder of its weights
    pairs on the tests, costs ──► arms that are as good and cheaper; what the arm gives up
    the same rules with one limit changed ──► what would change the answer

The rules:

1. The weights are those of the arm's run with the lowest validation loss.
2. Another arm is named if it is better than the recommended one on some test and worse on none,
   or shown to be as good within the margin on every test; if it keeps the limits; and if something
   that it costs is lower by more than 3 %.
3. On each test, the recommended arm gives up its difference from the arm with the lowest mean
   loss, whether that arm keeps the limits or not.
4. What would change the answer is found by applying the rules of a recommendation again: with a
   limit at what an arm needs that does not keep it, with no limit, or with the smallest larger
   margin within which two more arms are shown to be as good. Values are rounded up first, so that
   the printed value gives the answer that is named. Only answers that differ from this one are
   named: another arm, or another reason to recommend none.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lorastudy.analysis.claims import arms_in_role
from lorastudy.analysis.costs import CostRatio
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.forgetting import measure_changes
from lorastudy.analysis.limits import NO_LIMITS, LimitName, Limits, refuse_unknown
from lorastudy.analysis.pairs import Pair
from lorastudy.analysis.recommendation import (
    OnTest,
    Outcome,
    Recommendation,
    compare_arm_costs,
    list_tests,
    recommend,
)
from lorastudy.analysis.standings import stand
from lorastudy.analysis.summary import ArmSummary
from lorastudy.analysis.verdicts import at_another_margin
from lorastudy.config.models import EQUIVALENCE_MARGIN
from lorastudy.units import (
    read_bytes,
    read_seconds,
    write_bytes_up,
    write_nats_up,
    write_seconds_up,
)

LARGEST_MARGIN = 0.1  # nats per token, 11 % of a perplexity: a larger one is never proposed


@dataclass(frozen=True, slots=True)
class Alternative:
    """An arm that is as good as the recommended one, or better, and what is cheaper about it."""

    arm: str
    is_better: bool  # on some test, and worse on none
    cheaper: tuple[CostRatio, ...]  # as multiples of what the recommended arm costs


@dataclass(frozen=True, slots=True)
class OtherAnswer:
    """What the rules recommend if one thing is changed."""

    option: str  # what is changed, as the command line has it; empty: no limit at all
    found: Recommendation


@dataclass(frozen=True, slots=True)
class Decision:
    """Which arm to take, and what belongs to that answer."""

    found: Recommendation
    margin: float  # nats per token
    margin_of_study: float
    weights: str | None  # folder of the recommended weights, as seen from the study's
    n_runs: int  # of the recommended arm, of which these weights are the best
    as_good: tuple[Alternative, ...]
    gives_up: tuple[OnTest, ...]  # the recommended arm minus the one with the lowest loss
    would_change: tuple[OtherAnswer, ...]

    @property
    def recommended(self) -> str | None:
        """The arm to take; None: nothing is recommended."""
        return self.found.recommended

    def find_weights(self, folder: str) -> str | None:
        """Folder of the recommended weights; `folder` is that of the study."""
        return None if self.weights is None else str(Path(folder, self.weights))

    @property
    def outcome(self) -> Outcome:
        """What the answer rests on, in a word."""
        return self.found.outcome


def decide(findings: Findings, limits: Limits = NO_LIMITS) -> Decision:
    """The decision by the rules of this module, at the margin of `findings`.

    Raises:
        ConfigError: The study knows nothing of what a limit is about.
    """
    refuse_unknown(findings, limits)
    found = recommend(findings, limits)
    arm = next((arm for arm in findings.arms if arm.arm == found.recommended), None)
    return Decision(
        found=found,
        margin=findings.margin,
        margin_of_study=findings.study.margin if findings.study else EQUIVALENCE_MARGIN,
        weights=_find_weights(arm, findings) if arm else None,
        n_runs=len(arm.runs) if arm else 0,
        as_good=_find_alternatives(arm, found, findings) if arm else (),
        gives_up=_find_losses(arm, findings) if arm else (),
        would_change=tuple(_find_changes(found, findings)),
    )


def at_margin(findings: Findings, margin: float | None) -> Findings:
    """The findings with another margin of equivalence, in nats per token; None: as they are."""
    if margin is None:
        return findings
    judged = at_another_margin(findings.comparisons, margin)
    changes = measure_changes(findings.arms, judged, findings.results.forgetting)
    return replace(findings, margin=margin, comparisons=judged, changes=changes)


def _find_weights(arm: ArmSummary, findings: Findings) -> str | None:
    best = arm.best_run
    found = (e.weights for e in findings.evidence.runs if best and e.run.run_id == best.run_id)
    return next(found, None)


def _find_alternatives(
    arm: ArmSummary, found: Recommendation, findings: Findings
) -> tuple[Alternative, ...]:
    left_out = {excess.arm for excess in found.excesses}
    others = [
        other
        for other in arms_in_role("every trained", findings.arms)
        if other is not arm and other.arm not in left_out
    ]
    alternatives = []
    for other in others:
        pairs = [pair for c in list_tests(findings) if (pair := c.find_pair(other.arm, arm.arm))]
        costs = compare_arm_costs(findings, other, arm)
        cheaper = tuple(cost for cost in costs if cost.is_lower)
        if cheaper and (standing := stand(pairs)) in ("better", "as good"):
            alternatives.append(Alternative(other.arm, standing == "better", cheaper))
    return tuple(alternatives)


def _find_losses(arm: ArmSummary, findings: Findings) -> tuple[OnTest, ...]:
    """One for each test on which another trained arm has a lower mean loss."""
    trained = {other.arm for other in arms_in_role("every trained", findings.arms)}
    losses = []
    for comparison in list_tests(findings):
        lead = next((name for name in comparison.ranked if name in trained), None)
        pair = comparison.find_pair(arm.arm, lead) if lead else None
        if pair is not None:
            losses.append(OnTest(comparison.key, pair, comparison.n_documents))
    return tuple(losses)


def _find_changes(found: Recommendation, findings: Findings) -> Iterator[OtherAnswer]:
    """Every other answer, the least change of a limit first."""
    for limit in found.limits.given:
        before = _answer_of(found)
        for option, value in _list_values(limit, found):
            other = recommend(findings, found.limits.relax(limit, value))
            if _answer_of(other) not in (before, _answer_of(found)):
                yield OtherAnswer(option, other)
            before = _answer_of(other)
    if len(found.limits.given) > 1 or any(excess.needed is None for excess in found.excesses):
        other = recommend(findings)
        if _answer_of(other) != _answer_of(found):
            yield OtherAnswer("", other)
    for margin in _list_margins(found, findings):
        other = recommend(_at_margin_roughly(findings, float(margin)), found.limits)
        if _answer_of(other) != _answer_of(found):
            yield OtherAnswer(f"--margin {margin}", other)
            return


def _answer_of(found: Recommendation) -> tuple[str | None, str | None]:
    """The recommended arm, or why there is none."""
    return found.recommended, None if found.recommended else found.outcome


# how a limit is written, rounded up, and read again
_Writing = tuple[Callable[[float], str], Callable[[str], float | None]]
_WRITTEN: Mapping[LimitName, _Writing] = {
    "device_memory": (write_bytes_up, read_bytes),
    "time": (write_seconds_up, read_seconds),
    "size": (write_bytes_up, read_bytes),
    "forget": (write_nats_up, float),
}


def _list_values(limit: LimitName, found: Recommendation) -> Iterator[tuple[str, float]]:
    """What arms need that do not keep the limit, ascending: as an option, and as its value."""
    write, read = _WRITTEN[limit]
    needed = {e.needed for e in found.excesses if e.limit == limit and e.needed is not None}
    for text in dict.fromkeys(map(write, sorted(needed))):
        value = read(text)
        assert value is not None, "it was written in this form"
        yield f"--{limit.replace('_', '-')} {text}", value


def _list_margins(found: Recommendation, findings: Findings) -> list[str]:
    """The margins within which two arms would be shown to be as good on all tests, ascending."""
    left_out = {excess.arm for excess in found.excesses}
    trained = [a.arm for a in arms_in_role("every trained", findings.arms) if a.arm not in left_out]
    tests = list_tests(findings)
    needed = []
    for place, first in enumerate(trained):
        for second in trained[:place]:
            needed += [_reach(pair) for c in tests if (pair := c.find_pair(first, second))]
    larger = sorted(reach for reach in needed if findings.margin <= reach < LARGEST_MARGIN)
    # an interval has to end within the margin, and not at it
    return list(dict.fromkeys(write_nats_up(reach * (1 + 1e-9)) for reach in larger))


def _reach(pair: Pair) -> float:
    """How far the interval of a pair reaches from zero; beyond every margin without a verdict."""
    if not pair.is_judged or pair.interval is None:
        return LARGEST_MARGIN
    return max(-pair.interval.low, pair.interval.high)


def _at_margin_roughly(findings: Findings, margin: float) -> Findings:
    """The findings with another margin in words of pairs, but not in plans of seeds."""
    return replace(
        findings,
        margin=margin,
        comparisons=tuple(
            replace(c, pairs=tuple(replace(pair, margin=margin) for pair in c.pairs))
            for c in findings.comparisons
        ),
    )
