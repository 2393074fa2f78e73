"""The recommendation in one sentence: a rule for each outcome.

`analysis/recommendation.py` decides the outcome; the sentences below it are in `verdict`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lorastudy.analysis.costs import ABOUT_SAME, CostRatio
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.limits import NO_LIMITS, Limits
from lorastudy.analysis.recommendation import OnTest, Outcome, Recommendation, recommend
from lorastudy.analysis.standings import stand, stand_on_test
from lorastudy.report.numerals import write_share
from lorastudy.report.wording import (
    describe_margin,
    join,
    name_arm,
    name_measure,
    start,
    write_size,
)


@dataclass(frozen=True, slots=True)
class _Words:
    """What the sentences of one verdict need."""

    found: Recommendation
    named: str  # the LoRA arm: "LoRA on attention (lora-1)"
    reference: str  # "full fine-tuning"
    measure: str  # by which the best LoRA arm was chosen: "validation loss"

    @property
    def lora(self) -> str:
        """The LoRA arm in short: "lora-1"."""
        return self.found.lora or "LoRA"

    def on(self, tests: Sequence[OnTest]) -> str:
        """The benchmarks of `tests`: "on a and b"."""
        return f"on {join([t.key.benchmark for t in tests])}"


def state_headline(findings: Findings, limits: Limits = NO_LIMITS) -> str:
    """The recommendation in one sentence."""
    found = recommend(findings, limits)
    lora = name_arm(findings, found.lora) if found.lora else "LoRA"
    reference = name_arm(findings, found.reference) if found.reference else "full fine-tuning"
    return start(_HEADLINES[found.outcome](_Words(found, lora, reference, name_measure(findings))))


def _say_lora(words: _Words) -> str:
    """LoRA is recommended: where it is better, where as good, and two costs."""
    parts = []
    tests = words.found.tests
    if better := [t for t in tests if stand_on_test(t.pair) == "better"]:
        parts += [
            f"its {what} is {sizes} than that of {words.reference}"
            for what, sizes in _list_sizes(better).items()
        ]
    if as_good := [t for t in tests if stand_on_test(t.pair) == "as good"]:
        margin = describe_margin(as_good[0].pair.margin, [t.key for t in as_good])
        parts.append(f"as good as {words.reference} within {margin} {words.on(as_good)}")
    if undecided := [t for t in tests if stand_on_test(t.pair) == "open"]:
        parts.append(f"not separated from it {words.on(undecided)}")
    said = [*parts, *_say_unjudged(words)]
    return f"use {words.named}: {', and '.join(said)}{_cost_clause(words.found)}."


def _say_reference(words: _Words) -> str:
    """The reference is recommended: by how much the best LoRA arm is worse, and its costs."""
    worse = [t for t in words.found.tests if stand_on_test(t.pair) == "worse"]
    sizes = _list_as_owned(worse)
    is_chosen = words.found.question is None or words.found.question.arms is None
    kind = "LoRA arm" if words.found.only_lora else "other arm"
    who = f"the best {kind} by {words.measure}, {words.lora}," if is_chosen else words.lora
    if words.found.step.is_elsewhere:
        who = f"every {kind} is worse; {words.lora}"
    among = "among the arms that keep the limits, " if words.found.excesses and is_chosen else ""
    return f"use {words.reference}: {among}{who} has {sizes}{_cost_clause(words.found)}."


def _say_open(words: _Words) -> str:
    """Nothing is recommended: which tests are not decided, and what is known of the others."""
    tests = words.found.tests
    undecided = [t for t in tests if stand_on_test(t.pair) == "open"]
    parts = [f"not separated {words.on(undecided)}"] if undecided else []
    if known := [t for t in tests if t.pair.is_equivalent]:
        parts.append(f"equal within the margin {words.on(known)}")
    are = ", and ".join([*parts, *_say_unjudged(words)])
    return f"not decided: {words.lora} and {words.reference} are {are}."


def _say_unjudged(words: _Words) -> list[str]:
    """The tests on which differences are not judged, if there are some."""
    tests = [t for t in words.found.tests if stand_on_test(t.pair) in ("one seed", "no verdict")]
    return [f"without a verdict {words.on(tests)}"] if tests else []


def _say_mixed(words: _Words) -> str:
    """LoRA is better on some tests and worse on others."""
    found = _list_sizes([t for t in words.found.tests if t.pair.is_separated])
    sizes = join([f"the {what} of {words.lora} is {size}" for what, size in found.items()])
    return f"it depends on the text: {sizes} than that of {words.reference}."


def _say_one_seed(words: _Words) -> str:
    """One seed: what these checkpoints are on this text."""
    known = [t for t in words.found.tests if t.pair.mean is not None]
    return (
        f"one seed says nothing about the methods: these two checkpoints differ, and that of "
        f"{words.lora} has {_list_as_owned(known)} than that of {words.reference}."
    )


def _say_only_one(words: _Words) -> str:
    """The one arm that keeps the limits: where it stands beside the base model."""
    parts = []
    if better := [t for t in words.found.tests if stand_on_test(t.pair) == "better"]:
        parts += [
            f"its {what} is {sizes} than that of the base model"
            for what, sizes in _list_sizes(better).items()
        ]
    if others := [t for t in words.found.tests if t not in better]:
        parts.append(f"not shown to be better than the base model {words.on(others)}")
    beside = "; " + ", and ".join(parts) if parts else ""
    return f"use {words.named}: no other arm keeps the limits{beside}."


def _say_base_model(words: _Words) -> str:
    """Of the arm that would be recommended otherwise."""
    is_lora = stand([t.pair for t in words.found.tests]) in ("better", "as good")
    who = words.lora if is_lora or words.found.is_beside_base else words.reference
    return f"keep the base model: {who} is worse than it on some test and better on none."


def _say_no_verdict(words: _Words) -> str:
    reasons = dict.fromkeys(t.pair.reason for t in words.found.tests if t.pair.reason)
    why = join([_REASONS[reason] for reason in reasons]) or "they have no test in common"
    return f"no verdict on {words.lora} and {words.reference}: {why}."


_REASONS = {
    "no seed in common": "they have no seed in common",
    "no sums by document": "the sums by document are missing",
    "incomplete arm": "one of them has fewer seeds than other arms",
    "too few seeds": "with fewer than three trained arms, three seeds are needed",
}
_HEADLINES: Mapping[Outcome, Callable[[_Words], str]] = {
    "LoRA": _say_lora,
    "reference": _say_reference,
    "open": _say_open,
    "mixed": _say_mixed,
    "one seed": _say_one_seed,
    "no verdict": _say_no_verdict,
    "base model": _say_base_model,
    "only one": _say_only_one,
    "none fits": lambda words: "nothing to recommend: no finished arm keeps the limits.",
    "nothing to compare": lambda words: (
        "nothing to recommend: no two trained arms are finished and scored on a test of text."
    ),
}


def _list_sizes(tests: Sequence[OnTest]) -> dict[str, str]:
    """Perplexities, and error rates, beside the reference's.

    {"perplexity": "10 % lower on a and 50 % higher on b and c"}
    """
    where: dict[str, dict[str, list[str]]] = {}
    for test in tests:
        size = write_size(test.pair.mean or 0.0, test.key)
        where.setdefault(test.key.compared, {}).setdefault(size, []).append(test.key.benchmark)
    return {
        what: join([f"{size} on {join(names)}" for size, names in sizes.items()])
        for what, sizes in where.items()
    }


def _list_as_owned(tests: Sequence[OnTest]) -> str:
    """The same as what an arm has: "a perplexity 10 % higher on a, an error rate ..."."""
    articles = {"perplexity": "a", "error rate": "an"}
    return join([f"{articles[what]} {what} {size}" for what, size in _list_sizes(tests).items()])


def _cost_clause(found: Recommendation) -> str:
    """At most two costs of LoRA, in the headline."""
    ratios = [c for c in found.costs if c.name in ("trained parameters", "peak memory")]
    if not ratios:
        return ""
    said = join([write_cost(cost) for cost in ratios])
    return f", with {said}" if found.outcome == "LoRA" else f"; {found.lora} has {said}"


def write_cost(cost: CostRatio) -> str:
    """A share as a percentage, a multiple as a factor: "7 % of the peak memory"."""
    if abs(cost.ratio - 1) <= ABOUT_SAME:
        return f"about the same {cost.name}"
    if cost.ratio > 1:
        return f"{cost.ratio:.2f} times the {cost.name}"
    return f"{write_share(cost.ratio, 1)} of the {cost.name}"
