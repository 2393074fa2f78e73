"""The verdict in plain sentences, for someone who did not run the study.

Every sentence follows from the recommendation and its pairs by a rule that is written here;
none says more than they do. `analysis/recommendation.py` has the rules of what is recommended.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lorastudy.analysis.caveats import find_caveats
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.recommendation import (
    CostRatio,
    OnTest,
    Outcome,
    Recommendation,
    recommend,
    stand_on_test,
)
from lorastudy.report.numerals import write_share
from lorastudy.report.page.doubts import state_caveat, state_step
from lorastudy.report.wording import (
    describe_evidence,
    describe_margin,
    describe_needed,
    describe_question,
    join,
    name_arm,
    start,
    write_difference,
    write_percent,
)
from lorastudy.units import write_duration

_ONE_SEED = (
    "One seed: the intervals are over documents only, and another seed may reverse all of this."
)
_ABOUT = 0.03  # ratios that are so close to 1 are called about the same


@dataclass(frozen=True, slots=True)
class Statement:
    """A question a reader has, the sentences that answer it, and a command to type."""

    question: str
    sentences: tuple[str, ...]
    command: str = ""


@dataclass(frozen=True, slots=True)
class _Words:
    """What the sentences of one verdict need."""

    found: Recommendation
    named: str  # the LoRA arm: "LoRA on attention (lora-1)"
    reference: str  # "full fine-tuning"

    @property
    def lora(self) -> str:
        """The LoRA arm in short: "lora-1"."""
        return self.found.lora or "LoRA"

    def on(self, tests: Sequence[OnTest]) -> str:
        """The benchmarks of `tests`: "on a and b"."""
        return f"on {join([t.key.benchmark for t in tests])}"


def state_headline(findings: Findings) -> str:
    """The recommendation in one sentence."""
    found = recommend(findings)
    lora = name_arm(findings, found.lora) if found.lora else "LoRA"
    reference = name_arm(findings, found.reference) if found.reference else "full fine-tuning"
    return start(_HEADLINES[found.outcome](_Words(found, lora, reference)))


def state_verdict(findings: Findings) -> tuple[Statement, ...]:
    """How sure, at what cost, what next, and what to keep in mind; none without scores."""
    if not findings.comparisons:
        return ()
    found = recommend(findings)
    caveats = tuple(map(state_caveat, find_caveats(findings, found)))
    statements = (
        Statement("How sure?", (*_state_evidence(found), *_state_design(found))),
        Statement("At what cost?", _state_costs(findings, found)),
        Statement("What next?", (state_step(found.step),), found.step.write_command()),
        Statement("Keep in mind", caveats),
    )
    return tuple(statement for statement in statements if statement.sentences)


def write_ending(findings: Findings, folder: str) -> tuple[str, ...]:
    """The verdict in three lines for a terminal; none without scores."""
    said = {statement.question: statement for statement in state_verdict(findings)}
    if not said:
        return ()
    found, step = recommend(findings), said["What next?"]
    command = found.step.write_command(folder)
    sizes = [
        f"{write_difference(t.pair.mean, t.pair.interval)} on {t.key.benchmark}"
        for t in found.tests
        if t.pair.mean is not None
    ]
    what = [f"{found.lora} minus {found.reference} is {join(sizes)}."] if sizes else []
    known = [*what, *_state_design(found)] or ["nothing can be judged yet."]
    return (
        state_headline(findings),
        f"How sure: {' '.join(known)}",
        f"Next: {' '.join(step.sentences)}  {command}".rstrip(),
    )


def _say_lora(words: _Words) -> str:
    """LoRA is recommended: where it is better, where as good, and two costs."""
    parts = []
    tests = words.found.tests
    if better := [t for t in tests if stand_on_test(t.pair) == "better"]:
        sizes = _list_sizes(better)
        parts.append(f"its perplexity is {sizes} than that of {words.reference}")
    if as_good := [t for t in tests if stand_on_test(t.pair) == "as good"]:
        margin = describe_margin(as_good[0].pair.margin)
        parts.append(f"as good as {words.reference} within {margin} {words.on(as_good)}")
    if others := [t for t in tests if t not in better and t not in as_good]:
        parts.append(f"not separated from it {words.on(others)}")
    return f"use {words.named}: {', and '.join(parts)}{_cost_clause(words.found)}."


def _say_reference(words: _Words) -> str:
    """The reference is recommended: by how much the best LoRA arm is worse, and its costs."""
    worse = [t for t in words.found.tests if stand_on_test(t.pair) == "worse"]
    sizes = _list_sizes(worse)
    is_chosen = words.found.question is None or words.found.question.arms is None
    kind = "LoRA arm" if words.found.only_lora else "other arm"
    who = f"the best {kind} by validation loss, {words.lora}," if is_chosen else words.lora
    return f"use {words.reference}: {who} has a perplexity {sizes}{_cost_clause(words.found)}."


def _say_open(words: _Words) -> str:
    """Nothing is recommended: which tests are not decided, and what is known of the others."""
    tests = words.found.tests
    undecided = [t for t in tests if stand_on_test(t.pair) == "open"]
    said = f"not decided: {words.lora} and {words.reference} are not separated"
    known = [t for t in tests if t not in undecided and t.pair.is_equivalent]
    more = f", and equal within the margin {words.on(known)}" if known else ""
    return f"{said} {words.on(undecided)}{more}."


def _say_mixed(words: _Words) -> str:
    """LoRA is better on some tests and worse on others."""
    sizes = _list_sizes([t for t in words.found.tests if t.pair.is_separated])
    return (
        f"it depends on the text: the perplexity of {words.lora} is {sizes} than that of "
        f"{words.reference}."
    )


def _say_one_seed(words: _Words) -> str:
    """One seed: what these checkpoints are on this text."""
    known = [t for t in words.found.tests if t.pair.mean is not None]
    sizes = _list_sizes(known)
    return (
        f"one seed says nothing about the methods: these two checkpoints differ, and that of "
        f"{words.lora} has a perplexity {sizes} than that of {words.reference}."
    )


def _say_no_verdict(words: _Words) -> str:
    reasons = dict.fromkeys(t.pair.reason for t in words.found.tests if t.pair.reason)
    why = join([_REASONS[reason] for reason in reasons]) or "they have no test in common"
    return f"no verdict on {words.lora} and {words.reference}: {why}."


_REASONS = {
    "no seed in common": "they have no seed in common",
    "no sums by document": "the sums by document are missing",
    "incomplete arm": "one of them has fewer seeds than other arms",
    "too few seeds": "there are too few seeds for so few arms",
}
_HEADLINES: Mapping[Outcome, Callable[[_Words], str]] = {
    "LoRA": _say_lora,
    "reference": _say_reference,
    "open": _say_open,
    "mixed": _say_mixed,
    "one seed": _say_one_seed,
    "no verdict": _say_no_verdict,
    "base model": lambda words: (
        f"keep the base model: {words.lora} and {words.reference} are worse than it on the tests."
    ),
    "nothing to compare": lambda words: (
        "nothing to recommend: no two trained arms are finished and scored on a test of text."
    ),
}


def _list_sizes(tests: Sequence[OnTest]) -> str:
    """Perplexities beside the reference's: "10 % lower on a and 50 % higher on b and c"."""
    where: dict[str, list[str]] = {}
    for test in tests:
        where.setdefault(write_percent(test.pair.mean or 0.0), []).append(test.key.benchmark)
    return join([f"{percent} on {join(names)}" for percent, names in where.items()])


def _cost_clause(found: Recommendation) -> str:
    """At most two costs of LoRA, in the headline."""
    ratios = [c for c in found.costs if c.name in ("trained parameters", "peak memory")]
    if not ratios:
        return ""
    said = join([_write_cost(cost) for cost in ratios])
    return f", with {said}" if found.outcome == "LoRA" else f"; it has {said}"


def _write_cost(cost: CostRatio) -> str:
    """A share as a percentage, a multiple as a factor: "7 % of the peak memory"."""
    if abs(cost.ratio - 1) <= _ABOUT:
        return f"about the same {cost.name}"
    if cost.ratio > 1:
        return f"{cost.ratio:.2f} times the {cost.name}"
    return f"{write_share(cost.ratio, 1)} of the {cost.name}"


def _state_evidence(found: Recommendation) -> tuple[str, ...]:
    """One sentence for each test: difference, interval, word, seeds and documents."""
    return tuple(
        f"On {t.key.benchmark}, {describe_result(t, found)}."
        for t in found.tests
        if t.pair.mean is not None
    )


def describe_result(test: OnTest, found: Recommendation) -> str:
    """What one test says of the LoRA arm minus the reference."""
    pair = test.pair
    size = f"{pair.first} minus {pair.second} is " + write_difference(
        pair.mean or 0.0, pair.interval
    )
    evidence = describe_evidence(pair)
    known = f", {evidence}" if evidence else ""
    match pair.verdict:
        case "lower" | "higher":
            word = f"{pair.first} is {'better' if pair.verdict == 'lower' else 'worse'}"
            if pair.is_equivalent:
                word += f", by less than {describe_margin(pair.margin)}"
            return f"{word}; {size}{known}"
        case "equivalent":
            margin = describe_margin(pair.margin)
            return f"the two are tied, which means equal within {margin}; {size}"
        case "not separated":
            return f"not separated; {size}{known}{_say_needed(test, found)}"
        case "one seed":
            return f"{size}{known}"
        case _:
            return f"no verdict; {size}{known}"


def _say_needed(test: OnTest, found: Recommendation) -> str:
    """How many seeds would separate the difference that was observed, or show equivalence."""
    pair, n_seeds = test.pair, found.n_seeds
    separating, equivalence = pair.seeds_for_observed, pair.seeds_for_equivalence
    said = f"; {n_seeds} seeds cannot confirm it"
    if separating is None:
        said += ", and more seeds would not: it needs more documents"
    elif separating > n_seeds:
        said += f", {describe_needed(separating)} would"
    if equivalence is not None and equivalence > n_seeds:
        said += (
            f"; {describe_needed(equivalence)} would show that the two are equal within "
            f"{describe_margin(pair.margin)}"
        )
    return said


def _state_design(found: Recommendation) -> tuple[str, ...]:
    """Seeds, documents, what the intervals are adjusted for, and whether it was asked before."""
    if not found.tests:
        return ()
    documents = sorted({t.n_documents for t in found.tests})
    span = f"{documents[0]:,}" + (f" to {documents[-1]:,}" if len(documents) > 1 else "")
    if found.n_seeds == 1:
        return (_ONE_SEED,)
    family = max(t.pair.n_family for t in found.tests)
    design = f"{found.n_seeds} seeds, {span} documents per test"
    if not family:
        return (f"{design}.",)
    design += "; the 95 % intervals are adjusted for"
    if found.question is None:
        exploratory = "This is exploratory: no question was declared before the runs."
        return (f"{design} {family} pairs of arms.", exploratory)
    asked = f"“{describe_question(found.question)}”, the question declared before the runs"
    return (f"{design} the {family} comparisons of {asked}.",)


def _state_costs(findings: Findings, found: Recommendation) -> tuple[str, ...]:
    """What the LoRA arm costs beside the reference, what both forgot, and what tuning took."""
    sentences = []
    if found.costs:
        said = join([_write_cost(cost) for cost in found.costs])
        sentences.append(f"Compared with {found.reference}, {found.lora} has {said}.")
    changes = findings.restrict(findings.main).changes
    forgotten = [c for c in changes if c.role == "forgetting" and c.pair.verdict == "higher"]
    for benchmark in dict.fromkeys(c.key.benchmark for c in forgotten):
        lost = [
            f"{c.pair.first} ({write_difference(c.pair.mean or 0.0, None)})"
            for c in forgotten
            if c.key.benchmark == benchmark and c.pair.first in (found.lora, found.reference)
        ]
        if lost:
            sentences.append(f"On {benchmark}, worse than the base model: {join(lost)}.")
    if tuning := [run for arm in findings.arms for run in arm.tuning]:
        seconds = sum(run.total_seconds or 0.0 for run in tuning)
        sentences.append(
            f"Choosing the learning rates took {len(tuning)} more runs ({write_duration(seconds)})."
        )
    return tuple(sentences)
