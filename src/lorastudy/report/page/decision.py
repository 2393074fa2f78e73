"""What stands beside a recommendation, in words: limits, what else would do, what would change it.

`analysis/decision.py` finds it by stated rules; every sentence here says one of its values.
"""

from collections.abc import Callable, Mapping

from lorastudy.analysis.decision import Decision, OtherAnswer
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.limits import Excess, LimitName
from lorastudy.analysis.recommendation import OnTest, Outcome, Recommendation
from lorastudy.report.page.headline import write_cost
from lorastudy.report.wording import describe_margin, join, name_arm, name_best, write_difference
from lorastudy.units import GPU_CONTEXT_BYTES, write_bytes_up, write_nats_up, write_seconds_up

_NEEDS: Mapping[LimitName, tuple[str, str, Callable[[float], str]]] = {
    "device_memory": ("its peak memory", "it needs {} of memory", write_bytes_up),
    "time": ("its training time", "a run of it trains for {}", write_seconds_up),
    "size": ("the size of its weights", "its weights take {}", write_bytes_up),
    "forget": ("what it forgot", "it may have forgotten {} nats per token", write_nats_up),
}
_NOTHING: Mapping[Outcome, str] = {
    "open": "it would not be decided: {lora} and {reference} are not separated",
    "mixed": "it would depend on the text: {lora} is better than {reference} on one test and worse "
    "on another",
    "base model": "the base model would be kept",
    "one seed": "nothing would be recommended, since one seed compares checkpoints and not methods",
    "no verdict": "nothing would be recommended: no verdict on {lora} and {reference}",
    "nothing to compare": "there would be nothing to compare",
    "none fits": "no arm would keep the limits",
}


def state_limits(decision: Decision, findings: Findings) -> tuple[str, ...]:
    """Which arms are left out and why; how the limits were compared with what was measured."""
    found = decision.found
    if not found.limits.given:
        return ()
    by_arm: dict[str, list[Excess]] = {}
    for excess in found.excesses:
        by_arm.setdefault(excess.arm, []).append(excess)
    sentences = [
        f"Left out: {name_arm(findings, arm)}, since {join(list(map(_say_excess, excesses)))}."
        for arm, excesses in by_arm.items()
    ]
    if not by_arm:
        sentences.append("Every finished arm keeps the limits.")
    if found.limits.device_memory is not None:
        sentences.append(_say_memory(findings))
    slow = [e.arm for e in found.excesses if e.limit == "time" and e.arm in findings.doubts]
    if slow:
        sentences.append(
            f"The training time of {join(slow)} is unreliable: other programs may have used the "
            "processor, so these arms may be faster."
        )
    return tuple(sentences)


def _say_excess(excess: Excess) -> str:
    what, sentence, write = _NEEDS[excess.limit]
    if excess.needed is None:
        return f"{what} is not known"
    return f"{sentence.format(write(excess.needed))} ({write(excess.allowed)} allowed)"


def _say_memory(findings: Findings) -> str:
    """On which kind of device memory was measured, and what was added to it."""
    devices = sorted({run.device for arm in findings.arms for run in arm.runs if run.device})
    where = f" on {join(devices)}" if devices else ""
    if findings.memory_kind == "resident":
        return (
            f"Memory is what the process took in main memory{where}; on a GPU it differs. "
            "`lorastudy check STUDY --device-memory SIZE` predicts that."
        )
    driver = write_bytes_up(GPU_CONTEXT_BYTES)
    return f"Memory is what was measured{where}, and {driver} for the driver of the GPU."


def state_margin(decision: Decision) -> tuple[str, ...]:
    """That the margin is not the one which the study fixed before its runs."""
    if decision.margin == decision.margin_of_study:
        return ()
    return (
        f"“As good” means within {_describe_margin(decision)} here; the study fixed "
        f"{decision.margin_of_study:g} before its runs.",
    )


def _describe_margin(decision: Decision) -> str:
    return describe_margin(decision.margin, [test.key for test in decision.found.tests])


def state_alternatives(decision: Decision, findings: Findings) -> tuple[str, ...]:
    """Arms that are as good as the recommended one, or better, and cheaper in something."""
    arm, margin = decision.found.recommended, _describe_margin(decision)
    as_good = f"As good as {arm} within {margin} on the tests"
    better = f"Better than {arm} on some test and worse on none"
    return tuple(
        f"{better if other.is_better else as_good}: "
        f"{name_arm(findings, other.arm)}, with {join([write_cost(c) for c in other.cheaper])}."
        for other in decision.as_good
    )


def state_losses(decision: Decision, findings: Findings) -> tuple[str, ...]:
    """How far the recommended arm is from the lowest loss on each test.

    Nothing of the two arms in question, whose difference is said already.
    """
    asked = {decision.found.lora, decision.found.reference}
    others = [t for t in decision.gives_up if not {t.pair.first, t.pair.second} <= asked]
    sentences = []
    for arm in dict.fromkeys(test.pair.second for test in others):
        tests = [test for test in others if test.pair.second == arm]
        where = join([test.key.benchmark for test in tests])
        sentences.append(
            f"The lowest loss on {where} is that of {name_arm(findings, arm)}: "
            f"{decision.found.recommended} minus {arm} is {join(list(map(_say_loss, tests)))}."
        )
    return tuple(sentences)


def _say_loss(test: OnTest) -> str:
    pair = test.pair
    word = "within the margin" if pair.is_equivalent else _WORDS.get(pair.verdict, pair.verdict)
    size = write_difference(pair.mean or 0.0, pair.interval, test.key)
    return f"{size} on {test.key.benchmark} ({word})"


_WORDS = {"higher": "worse", "lower": "better"}


def state_changes(decision: Decision, findings: Findings) -> tuple[str, ...]:
    """The answers that other limits or another margin would give."""
    return tuple(_say_change(other, findings) for other in decision.would_change)


def _say_change(other: OtherAnswer, findings: Findings) -> str:
    given = f"With {other.option}" if other.option else "Without limits"
    return f"{given}, {_say_answer(other.found, findings)}."


def _say_answer(found: Recommendation, findings: Findings) -> str:
    if found.recommended is not None:
        return f"{name_arm(findings, found.recommended)} would be recommended"
    return _NOTHING[found.outcome].format(lora=found.lora, reference=found.reference)


def state_weights(decision: Decision, findings: Findings, folder: str) -> tuple[str, ...]:
    """Where the recommended weights are."""
    where = decision.find_weights(folder)
    if where is None:
        return ()
    among = f": of its {decision.n_runs} runs, the one with the {name_best(findings)}"
    if decision.found.step.is_elsewhere:
        among = f", the first of {decision.n_runs} seeds, since no validation loss chooses one"
    return (f"The weights are in {where}{among if decision.n_runs > 1 else ''}.",)
