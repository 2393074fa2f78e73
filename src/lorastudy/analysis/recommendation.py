"""What a study recommends: full fine-tuning or a LoRA arm, why, at what cost, and what next.

    limits ──► arms that are left out
    validation losses ──► which LoRA arm is asked about
    pairs on the tests ──► standing of every LoRA arm beside the reference ──► outcome
    costs, doubts, rates ──► cost ratios, caveats
    seeds that a pair needs ──► next step

The rules, in this order. A *standing* is that of one LoRA arm on all tests (`standings`).

"LoRA arm" stands for every arm that trains less than all parameters, by whatever method.

1. Arms that do not keep a limit are left out (`limits`). Without limits no arm is.
2. The reference is full fine-tuning, or without it the arm with the most trained parameters. If
   the study declared a question about two arms and none of them is left out, only these are
   looked at: the one with more trained parameters is the reference, and the other takes the
   place of the LoRA arms.
3. A LoRA arm that is better than the reference, or shown to be as good on every test, is
   recommended: the cheapest that is itself as good as the best of them. “Best” goes by
   validation, so that no test set chooses what is then judged on it. Without validation, since
   the arms were trained elsewhere, it has to be as good as every other one of them;
   if none is, two of them are open or mixed.
4. Else, if the standing of a LoRA arm is open, nothing is recommended, whatever the means are.
5. Else the reference is recommended, if every LoRA arm is worse.
6. If limits leave one arm, it is recommended, and compared with the base model.
7. No arm is recommended that is worse than the base model.
8. One seed recommends nothing but the one arm that limits leave: it compares checkpoints, not
   methods.

Only tests count (not benchmarks for forgetting), under a protocol that scores text alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from lorastudy.analysis.claims import arms_in_role
from lorastudy.analysis.costs import CostName, CostRatio, compare_costs, measure_costs
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.limits import NO_LIMITS, Excess, Limits, find_excesses
from lorastudy.analysis.next_steps import NextStep, plan_step
from lorastudy.analysis.pairs import Comparison, Pair
from lorastudy.analysis.question import Question, list_test_keys
from lorastudy.analysis.standings import Standing, stand
from lorastudy.analysis.summary import ArmSummary, ScoreKey
from lorastudy.store.rates import average_rank

Outcome = Literal[
    "LoRA",  # it is better, or shown to be as good and cheaper
    "reference",  # every LoRA arm is worse
    "mixed",  # LoRA is better on one test and worse on another
    "base model",  # the arm that would be recommended is worse than it
    "open",  # not decided
    "one seed",
    "no verdict",  # differences are not judged, for a reason that the pair gives
    "nothing to compare",
    "only one",  # that keeps the limits
    "none fits",  # no arm keeps the limits
]


@dataclass(frozen=True, slots=True)
class OnTest:
    """The LoRA arm minus the reference on one test."""

    key: ScoreKey
    pair: Pair
    n_documents: int


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer of a study to “full fine-tuning or LoRA?”."""

    outcome: Outcome
    recommended: str | None  # an arm; None: nothing is
    lora: str | None  # the LoRA arm, or arm of another method, that was asked about
    reference: str | None  # what it was compared with
    tests: tuple[OnTest, ...]
    costs: tuple[CostRatio, ...]
    n_seeds: int
    step: NextStep
    question: Question | None = None  # that the study declared before its runs
    only_lora: bool = True  # whether the arms asked about are those of LoRA, and the reference not
    limits: Limits = NO_LIMITS
    excesses: tuple[Excess, ...] = ()  # why arms were left out
    is_beside_base: bool = False  # whether the reference is the base model


def recommend(findings: Findings, limits: Limits = NO_LIMITS) -> Recommendation:
    """The recommendation by the rules of this module, among the arms that keep `limits`."""
    excesses, tests = find_excesses(findings, limits), list_tests(findings)
    left_out = {excess.arm for excess in excesses}
    loras, reference = _find_sides(findings, left_out)
    baseline = next(iter(arms_in_role("baseline", findings.arms)), None)
    outcome, recommended, lora, reference = _decide(loras, reference, tests)
    n_left = len(arms_in_role("every trained", findings.arms)) - len(left_out)
    if left_out and tests and n_left < 2:
        outcome, recommended, lora = "only one" if reference else "none fits", reference, reference
        reference = baseline
    if recommended and baseline and stand(_pairs(recommended, baseline, tests)) == "worse":
        outcome, recommended = "base model", None
    compared = [*loras, *((reference,) if reference else ())]
    on_tests = _on_tests(tests, lora, reference)
    chosen = recommended.arm if recommended else None
    step = plan_step(findings, outcome, chosen, [t.pair for t in on_tests])
    return Recommendation(
        outcome=outcome,
        recommended=chosen,
        lora=lora.arm if lora else None,
        reference=reference.arm if reference else None,
        tests=on_tests,
        costs=_compare_costs(findings, lora, reference),
        n_seeds=len(findings.results.seeds),
        step=step,
        question=findings.question,
        only_lora=all((arm.runs[0].method == "lora") is (arm in loras) for arm in compared),
        limits=limits,
        excesses=excesses,
        is_beside_base=reference is not None and reference.is_baseline,
    )


def list_tests(findings: Findings) -> tuple[Comparison, ...]:
    """One comparison for each test: benchmarks for forgetting and padded scores are none."""
    keys = [c.key for c in findings.comparisons]
    tests = list_test_keys(keys, findings.results.forgetting)
    return tuple(c for c in findings.comparisons if c.key in tests)


def choose_by_validation(arms: Sequence[ArmSummary]) -> ArmSummary | None:
    """The arm with the best mean of its best validations; None if none has any."""
    ranks = {arm.arm: average_rank(arm.runs) for arm in arms if arm.runs}
    known = [arm for arm in arms if arm.arm in ranks and math.isfinite(ranks[arm.arm][1])]
    return min(known, key=lambda arm: ranks[arm.arm], default=None)


def _find_sides(
    findings: Findings, left_out: set[str]
) -> tuple[list[ArmSummary], ArmSummary | None]:
    """The arms that are asked about, and the reference that they are compared with.

    One arm alone is the reference.
    """
    trained = [a for a in arms_in_role("every trained", findings.arms) if a.arm not in left_out]
    named = findings.question.arms if findings.question is not None else None
    if named and not left_out.intersection(named):
        trained = [arm for arm in trained if arm.arm in named]
        return trained[:-1], next(reversed(trained), None)
    full = [arm for arm in trained if arm.is_full]
    reference = full[0] if full else next(reversed(trained), None)
    return [arm for arm in trained if not arm.is_full and arm is not reference], reference


_Answer = tuple[Outcome, ArmSummary | None, ArmSummary | None, ArmSummary | None]


def _decide(
    loras: Sequence[ArmSummary], reference: ArmSummary | None, tests: Sequence[Comparison]
) -> _Answer:
    """Outcome, recommended arm, the LoRA arm that was asked about, and its counterpart."""
    if reference is None or not loras or not tests:
        return "nothing to compare", None, choose_by_validation(loras), reference
    standings = {a.arm: stand(_pairs(a, reference, tests)) for a in loras}

    def best_of(*wanted: Standing) -> ArmSummary | None:
        of_them = [arm for arm in loras if standings[arm.arm] in wanted]
        return choose_by_validation(of_them) or next(iter(of_them), None)

    if suited := [arm for arm in loras if standings[arm.arm] in ("better", "as good")]:
        return _choose(suited, reference, tests)
    for standing in ("open", "mixed"):
        if (asked := best_of(standing)) is not None:
            return standing, None, asked, reference
    if (asked := best_of("worse")) is not None:
        return "reference", reference, asked, reference
    for unknown in ("one seed", "no verdict"):
        if (asked := best_of(unknown)) is not None:
            return unknown, None, asked, reference
    return "nothing to compare", None, None, reference


def _choose(
    suited: Sequence[ArmSummary], reference: ArmSummary, tests: Sequence[Comparison]
) -> _Answer:
    """The cheapest of the arms that are as good as the reference, by rule 3."""
    best = choose_by_validation(suited)
    rivals = suited if best is None else [best]
    for arm in suited:
        if all(arm is other or _replaces(arm, other, tests) for other in rivals):
            return "LoRA", arm, arm, reference
    found = {stand(_pairs(*pair, tests)): pair for pair in combinations(suited, 2)}
    if "open" in found:
        return "open", None, *found["open"]
    return "mixed", None, *found.get("mixed", (suited[0], suited[1]))


def _replaces(cheaper: ArmSummary, best: ArmSummary, tests: Sequence[Comparison]) -> bool:
    return stand(_pairs(cheaper, best, tests)) in ("better", "as good")


def _pairs(arm: ArmSummary, other: ArmSummary, tests: Sequence[Comparison]) -> list[Pair]:
    return [pair for c in tests if (pair := c.find_pair(arm.arm, other.arm)) is not None]


def _on_tests(
    tests: Sequence[Comparison], lora: ArmSummary | None, reference: ArmSummary | None
) -> tuple[OnTest, ...]:
    if lora is None or reference is None:
        return ()
    return tuple(
        OnTest(c.key, pair, c.n_documents)
        for c in tests
        if (pair := c.find_pair(lora.arm, reference.arm)) is not None
    )


def _compare_costs(
    findings: Findings, lora: ArmSummary | None, reference: ArmSummary | None
) -> tuple[CostRatio, ...]:
    """Ratios of means over seeds; seconds only if nothing disturbed those of either arm.

    None beside the base model, which costs no training.
    """
    if lora is None or reference is None or reference.is_baseline:
        return ()
    return compare_arm_costs(findings, lora, reference)


def compare_arm_costs(
    findings: Findings, first: ArmSummary, second: ArmSummary
) -> tuple[CostRatio, ...]:
    """What one trained arm costs as a multiple of another, without seconds that are unreliable."""
    disturbed = {first.arm, second.arm} & findings.doubts.keys()
    without: tuple[CostName, ...] = ("training time",) if disturbed else ()
    one, other = (
        measure_costs(arm, findings.evidence, findings.memory_kind) for arm in (first, second)
    )
    return compare_costs(one, other, without)
