"""What stands below the headline: how sure it is, its costs, what next, and what to keep in mind.

Every sentence follows from the recommendation and its pairs by a rule that is written here;
none says more than they do. `analysis/recommendation.py` has the rules of what is recommended,
and `headline` says it in one sentence.
"""

from dataclasses import dataclass

from lorastudy.analysis.caveats import find_caveats
from lorastudy.analysis.decision import Decision, decide
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.limits import NO_LIMITS
from lorastudy.analysis.recommendation import OnTest, Recommendation, recommend
from lorastudy.errors import show_names
from lorastudy.report.page import decision as words
from lorastudy.report.page.doubts import state_caveat, state_step
from lorastudy.report.page.headline import state_headline, write_cost
from lorastudy.report.story import state_story, write_short_story
from lorastudy.report.wording import (
    describe_evidence,
    describe_margin,
    describe_needed,
    describe_question,
    join,
    write_difference,
)
from lorastudy.units import write_count, write_duration

_ONE_SEED = (
    "One seed: the intervals are over documents only, and another seed may reverse all of this."
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A question a reader has, the sentences that answer it, and a command to type."""

    question: str
    sentences: tuple[str, ...]
    command: str = ""


def state_verdict(findings: Findings, *, folder: str = "DIR") -> tuple[Statement, ...]:
    """All that stands below the headline; none without scores."""
    if not findings.comparisons:
        return ()
    return state_decision(decide(findings, NO_LIMITS), findings, folder=folder)


def state_decision(decision: Decision, findings: Findings, *, folder: str) -> tuple[Statement, ...]:
    """How sure, limits, costs, alternatives, what next, and what to keep in mind.

    `folder` is the study's, as its commands name it.
    """
    found = decision.found
    caveats = tuple(map(state_caveat, find_caveats(findings, found)))
    sure = (*_state_evidence(found), *_state_design(found), *words.state_margin(decision))
    next_step = (*words.state_weights(decision, findings, folder), state_step(found.step))
    statements = (
        Statement("What is missing?", _state_missing(findings)),
        Statement("How sure?", sure),
        Statement("Which arms keep the limits?", words.state_limits(decision, findings)),
        Statement("At what cost?", _state_costs(findings, found)),
        Statement("What does it give up?", words.state_losses(decision, findings)),
        Statement("What else is as good?", words.state_alternatives(decision, findings)),
        Statement("What would change this?", words.state_changes(decision, findings)),
        Statement("How were the runs chosen?", state_story(findings)),
        Statement("What next?", next_step, found.step.write_command(folder)),
        Statement("Keep in mind", caveats),
    )
    return tuple(statement for statement in statements if statement.sentences)


def write_ending(findings: Findings, folder: str) -> tuple[str, ...]:
    """The verdict in three lines for a terminal; none without scores.

    A fourth one says how a study chose its runs that runs until its question is decided.
    """
    if not findings.comparisons:
        return ()
    found = recommend(findings)
    sizes = [
        f"{write_difference(t.pair.mean, t.pair.interval, t.key)} on {t.key.benchmark}"
        for t in found.tests
        if t.pair.mean is not None
    ]
    what = [f"{found.lora} minus {found.reference} is {join(sizes)}."] if sizes else []
    known = [*what, *_state_design(found)] or ["nothing can be judged yet."]
    return (
        state_headline(findings),
        f"How sure: {' '.join(known)}",
        *write_short_story(findings),
        f"Next: {state_step(found.step)}  {found.step.write_command(folder)}".rstrip(),
    )


def _state_missing(findings: Findings) -> tuple[str, ...]:
    """The runs that a study without any score waits for."""
    results = findings.results
    if findings.comparisons or not results.missing:
        return ()
    n_runs = len(results.runs) + len(results.missing)
    return (f"{len(results.missing)} of {n_runs} runs: {show_names(results.missing)}.",)


def _state_evidence(found: Recommendation) -> tuple[str, ...]:
    """One sentence for each test: difference, interval, word, seeds and documents."""
    return tuple(
        f"On {t.key.benchmark}, {_describe_result(t)}."
        for t in found.tests
        if t.pair.mean is not None
    )


def _describe_result(test: OnTest) -> str:
    """What one test says of the LoRA arm minus the reference."""
    pair = test.pair
    size = f"{pair.first} minus {pair.second} is " + write_difference(
        pair.mean or 0.0, pair.interval, test.key
    )
    evidence = describe_evidence(pair)
    known = f", {evidence}" if evidence else ""
    match pair.verdict:
        case "lower" | "higher":
            word = f"{pair.first} is {'better' if pair.verdict == 'lower' else 'worse'}"
            if pair.is_equivalent:
                word += f", by less than {describe_margin(pair.margin, [test.key])}"
            return f"{word}; {size}{known}"
        case "equivalent":
            margin = describe_margin(pair.margin, [test.key])
            return f"the two are tied, which means equal within {margin}; {size}"
        case "not separated":
            return f"not separated; {size}{known}{_say_needed(test)}"
        case "one seed":
            return f"{size}{known}"
        case _:
            return f"no verdict; {size}{known}"


def _say_needed(test: OnTest) -> str:
    """How many seeds would separate the difference that was observed, or show equivalence."""
    pair, n_seeds = test.pair, len(test.pair.seeds)
    separating, equivalence = pair.seeds_for_observed, pair.seeds_for_equivalence
    said = f"; {n_seeds} seeds cannot confirm the difference"
    if separating is None:
        said += ", and more seeds would not: more documents might"
    elif separating > n_seeds:
        said += f", {describe_needed(separating)} would"
    if equivalence is not None and equivalence > n_seeds:
        said += (
            f"; {describe_needed(equivalence)} would show that the two are equal within "
            f"{describe_margin(pair.margin, [test.key])}"
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
    n_seeds = max(len(t.pair.seeds) for t in found.tests) or found.n_seeds
    texts = "s" * (documents[-1] != 1)
    design = f"{write_count(n_seeds, 'seed')}, {span} document{texts} per test"
    if not family:
        return (f"{design}.",)
    design += "; the 95 % intervals are adjusted for"
    if found.question is None or not all(t.pair.is_asked for t in found.tests):
        declared = "no question was declared before the runs"
        if found.question is not None:
            declared = "the question declared before the runs is about other arms"
        exploratory = f"This is exploratory: {declared}."
        return (f"{design} {family} pairs of arms.", exploratory)
    asked = f"“{describe_question(found.question)}”, the question declared before the runs"
    counted = "the only comparison" if family == 1 else f"the {family} comparisons"
    return (f"{design} {counted} of {asked}.",)


def _state_costs(findings: Findings, found: Recommendation) -> tuple[str, ...]:
    """What the LoRA arm costs beside the reference, what both forgot, and what tuning took."""
    sentences = []
    if found.costs:
        said = join([write_cost(cost) for cost in found.costs])
        sentences.append(f"Compared with {found.reference}, {found.lora} has {said}.")
    changes = findings.restrict(findings.main).changes
    forgotten = [c for c in changes if c.role == "forgetting" and c.pair.verdict == "higher"]
    for benchmark in dict.fromkeys(c.key.benchmark for c in forgotten):
        lost = [
            f"{c.pair.first} ({write_difference(c.pair.mean or 0.0, None, c.key)})"
            for c in forgotten
            if c.key.benchmark == benchmark and c.pair.first in (found.lora, found.reference)
        ]
        if lost:
            sentences.append(
                f"On {benchmark}, which tests forgetting, worse than the base model: {join(lost)}."
            )
    if tuning := [run for arm in findings.arms for run in arm.tuning]:
        seconds = sum(run.total_seconds or run.train_seconds or 0.0 for run in tuning)
        sentences.append(
            f"Choosing the learning rates took {write_count(len(tuning), 'more run')} "
            f"({write_duration(seconds)})."
        )
    return tuple(sentences)
