"""The verdict in plain sentences, for someone who did not run the study.

Every sentence follows from the comparisons by a rule that is written here; none says more
than they do. The LoRA arm that is set against full fine-tuning is the one with the lowest
*validation* loss, so that no test set is used to choose what is then judged on it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorastudy.analysis.claims import arms_in_role
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.pairs import EQUIVALENCE_MARGIN, Comparison, Pair
from lorastudy.analysis.statistics import Estimate, mean
from lorastudy.analysis.summary import ArmSummary, best_validation_loss
from lorastudy.report.numerals import write_interval, write_share, write_signed
from lorastudy.units import write_mib


@dataclass(frozen=True, slots=True)
class Statement:
    """A question a reader has, and the sentences that answer it."""

    question: str
    sentences: tuple[str, ...]


def state_verdict(findings: Findings) -> tuple[Statement, ...]:
    """All statements that the study supports, the most wanted first; none without scores."""
    statements = (
        Statement("Full fine-tuning or LoRA?", _compare_with_full(findings)),
        Statement("LoRA where?", _compare_placements(findings)),
        Statement("Best on each test", tuple(map(_state_lead, _tests(findings)))),
        Statement("Forgotten?", _state_forgetting(findings)),
        Statement("At what cost?", _state_costs(findings)),
        Statement("How far to trust this", _state_limits(findings)),
    )
    return tuple(statement for statement in statements if statement.sentences)


def state_headline(findings: Findings) -> str:
    """The answer in one sentence: the best LoRA arm beside full fine-tuning, on every test."""
    lora, full = best_lora(findings.arms), _find_full(findings)
    if lora is None or full is None:
        return "LoRA and full fine-tuning are not both among the finished arms of this study."
    said: dict[str, list[str]] = {}
    for comparison in _tests(findings):
        if (pair := comparison.find_pair(lora.arm, full.arm)) is not None:
            said.setdefault(_SHORT[_shade(pair)], []).append(comparison.key.benchmark)
    if not said:
        return f"{lora.arm} and {full.arm} have no test in common."
    parts = "; ".join(
        f"{words.format(full=full.arm)} on {_join(where)}" for words, where in said.items()
    )
    return f"{lora.arm}, the LoRA arm with the lowest validation loss, {parts}."


def _shade(pair: Pair) -> str:
    if not pair.is_equivalent:
        return pair.verdict
    return f"{pair.verdict} within" if pair.is_separated else pair.verdict


_SHORT = {
    "lower": "is better than {full}",
    "higher": "is worse than {full}",
    "lower within": f"is better than {{full}}, by less than {EQUIVALENCE_MARGIN} nats a token,",
    "higher within": f"is worse than {{full}}, by less than {EQUIVALENCE_MARGIN} nats a token,",
    "equivalent": f"equals {{full}} within {EQUIVALENCE_MARGIN} nats a token",
    "not separated": "cannot be told apart from {full}",
    "one seed": "cannot be judged beside {full}, since there is one seed,",
    "no verdict": "cannot be judged beside {full}",
}


def _tests(findings: Findings) -> tuple[Comparison, ...]:
    forgetting = findings.results.forgetting
    return tuple(c for c in findings.main if c.key.benchmark not in forgetting)


def _find_full(findings: Findings) -> ArmSummary | None:
    return next(iter(arms_in_role("full", findings.arms)), None)


def best_lora(arms: Sequence[ArmSummary]) -> ArmSummary | None:
    """The LoRA arm with the lowest mean validation loss of its best epochs."""
    losses = {arm.arm: _validation_loss(arm) for arm in arms_in_role("every LoRA", arms)}
    known = [arm for arm in arms if math.isfinite(losses.get(arm.arm, math.inf))]
    return min(known, key=lambda arm: losses[arm.arm], default=None)


def _validation_loss(arm: ArmSummary) -> float:
    losses = [best_validation_loss(run) for run in arm.runs]
    return mean([math.inf if loss is None else loss for loss in losses])


def _compare_with_full(findings: Findings) -> tuple[str, ...]:
    lora, full = best_lora(findings.arms), _find_full(findings)
    if lora is None or full is None:
        return ()
    tests = _tests(findings)
    found = [(c, p) for c in tests if (p := c.find_pair(lora.arm, full.arm)) is not None]
    return tuple(f"{c.key.benchmark}: {_describe_pair(p)}" for c, p in found)


def _describe_pair(pair: Pair) -> str:
    if pair.mean is None:
        return f"no number, since {pair.remark.rstrip('.')}."
    factor = math.exp(min(pair.mean, 700.0))
    size = f"{write_signed(pair.mean, 3)} nats a token"
    size += f", adjusted 95 % interval {write_interval(pair.interval, 3)}" if pair.interval else ""
    size += f"; its perplexity is {factor:.3g} times as high"
    return f"{pair.first} {_VERDICTS[pair.verdict](pair)} ({size})."


def _say_not_separated(pair: Pair) -> str:
    if pair.is_equivalent:
        return f"equals {pair.second} within {EQUIVALENCE_MARGIN} nats"
    needed = pair.seeds_for_observed
    more = f"; {needed} seeds might tell" if needed is not None and needed <= 100 else ""
    return f"and {pair.second} cannot be told apart{more}"


_VERDICTS: dict[str, Callable[[Pair], str]] = {
    "lower": lambda pair: f"is better than {pair.second}",
    "higher": lambda pair: f"is worse than {pair.second}",
    "equivalent": _say_not_separated,
    "not separated": _say_not_separated,
    "one seed": lambda pair: f"beside {pair.second}: one seed, so no claim about training",
    "no verdict": lambda pair: f"beside {pair.second}: no verdict ({pair.reason})",
}


def _compare_placements(findings: Findings) -> tuple[str, ...]:
    loras = arms_in_role("every LoRA", findings.arms)
    if len(loras) < 2:
        return ()
    sentences = []
    for comparison in _tests(findings):
        ranked = [a for a in comparison.ranked if a in {arm.arm for arm in loras}]
        if len(ranked) < 2 or not _is_judged(comparison):
            continue
        tied = [a for a in ranked if not comparison.has_lower(ranked[0], than=a)]
        cheapest = next(arm.arm for arm in loras if arm.arm in tied)  # ascending parameters
        lead = f"{ranked[0]} has the lowest loss of the placements"
        if len(tied) == 1:
            lead += ", separated from every other"
        else:
            lead += f", not separated from {_join(tied[1:])}"
            lead += f"; of them all {cheapest} trains the fewest parameters"
        sentences.append(f"{comparison.key.benchmark}: {lead}.")
    return tuple(sentences)


def _state_lead(comparison: Comparison) -> str:
    key, ranked = comparison.key, comparison.ranked
    where = f"{key.benchmark} ({key.protocol_name}): "
    if len(ranked) < 2:
        return f"{where}nothing to compare."
    if not _is_judged(comparison):
        why = "one seed supports no claim" if comparison.is_one_seed else "nothing can be judged"
        return f"{where}{ranked[0]} has the lowest loss, but {why}."
    if comparison.leader is not None:
        return f"{where}{comparison.leader} is best, separated from every other arm."
    others = comparison.not_separated_from_lead[1:]
    lowest = f"{ranked[0]} has the lowest loss and is not separated from {_join(others)}"
    return f"{where}no arm is best; {lowest}."


def _state_forgetting(findings: Findings) -> tuple[str, ...]:
    changes = findings.restrict(findings.main).changes
    asked = [change for change in changes if change.role == "forgetting"]
    sentences = []
    for benchmark in dict.fromkeys(change.key.benchmark for change in asked):
        pairs = [c.pair for c in asked if c.key.benchmark == benchmark and c.pair.mean is not None]
        if not pairs:
            continue
        worst = max(pairs, key=lambda pair: pair.mean or 0.0)
        lost = [pair.first for pair in pairs if pair.verdict == "higher"]
        said = (
            f"worse than the base model: {_join(lost)}"
            if lost
            else ("no arm is separated from the base model on the side of forgetting")
        )
        sentences.append(
            f"{benchmark}: {said}. The highest difference is "
            f"{write_signed(worst.mean or 0.0, 3)} nats a token, of {worst.first}."
        )
    return tuple(sentences)


def _state_costs(findings: Findings) -> tuple[str, ...]:
    loras, full = arms_in_role("every LoRA", findings.arms), _find_full(findings)
    if not loras or full is None:
        return ()
    kind = findings.memory_kind
    shares = [write_share(a.trainable_parameters, full.trainable_parameters) for a in loras]
    sentences = [f"LoRA trains {_span(shares)} of the parameters that {full.arm} trains."]
    memory = _ratios(loras, full, lambda arm: arm.peak_memory_bytes(kind))
    if memory and (of_full := full.peak_memory_bytes(kind)) is not None:
        sentences.append(
            f"Its peak memory is {memory} times that of {full.arm} ({write_mib(of_full.mean)} MiB)."
        )
    seconds = _ratios(loras, full, lambda arm: arm.train_seconds)
    if seconds:
        doubted = [arm.arm for arm in (full, *loras) if arm.arm in findings.doubts]
        doubt = f"; the seconds of {_join(doubted)} are in doubt" if doubted else ""
        sentences.append(f"Its training takes {seconds} times as long{doubt}.")
    return tuple(sentences)


def _ratios(
    loras: Sequence[ArmSummary], full: ArmSummary, read: Callable[[ArmSummary], Estimate | None]
) -> str:
    of_full = read(full)
    found = [
        value.mean / of_full.mean for a in loras if of_full and of_full.mean and (value := read(a))
    ]
    return _span([f"{ratio:.2f}" for ratio in sorted(found)])


def _state_limits(findings: Findings) -> tuple[str, ...]:
    results, comparisons = findings.results, findings.comparisons
    n = len(results.seeds)
    n_failed = sum(run.status != "done" for run in results.runs)
    sentences = [
        "One seed: what another seed would give is not known, and no ranking is supported."
        if n == 1
        else f"{n} seeds; every arm of a seed saw the same data in the same order. “Better” and "
        "“worse” are said only after Holm's adjustment for all pairs of arms."
    ]
    if n_failed or results.missing:
        sentences.append(
            f"{n_failed} runs failed and {len(results.missing)} are missing; "
            "means are over the rest."
        )
    padded = [c for c in comparisons if c.key.scores_padding]
    if padded and len(padded) < len(comparisons):
        sentences.append(
            "Scores of the published protocol count padding as text and are left out here; "
            "Table I shows them beside the sound ones."
        )
    return tuple(sentences) if comparisons else ()


def _is_judged(comparison: Comparison) -> bool:
    return comparison.n_documents > 0 and not comparison.is_one_seed


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _span(texts: Sequence[str]) -> str:
    """First and last of ascending texts: "0.61 to 0.94"."""
    if not texts:
        return ""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"
