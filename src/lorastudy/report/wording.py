"""Words that several sentences share: arms by what they adapt, lists, a pair with its evidence."""

from collections.abc import Iterable, Sequence

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.flips import Flips
from lorastudy.analysis.pairs import Pair
from lorastudy.analysis.planning import MOST_SEEDS
from lorastudy.analysis.question import Question
from lorastudy.analysis.statistics import Interval
from lorastudy.analysis.summary import ScoreKey
from lorastudy.config.arm_words import list_places, name_method
from lorastudy.config.models import Arm
from lorastudy.report.numerals import decimals_off_zero, write_with_interval
from lorastudy.store.decisions import AskedQuestion

RIGHT = "right answers on validation, best"  # a column of shares


def name_arm(findings: Findings, arm: str) -> str:
    """An arm by its method and placement: "LoRA on attention and projection (lora-2)"."""
    found = next((a for a in findings.arms if a.arm == arm), None)
    if found is not None and found.is_full:
        return "full fine-tuning" if arm == "full" else f"full fine-tuning ({arm})"
    described = _find_arm(findings, arm)
    if described is None or described.method in ("baseline", "full", "elsewhere"):
        return arm
    places = list_places(described)
    where = f" on {join(places)}" if places else ""
    return f"{name_method(described)}{where} ({arm})"


def label_arm(findings: Findings, arm: str) -> str:
    """An arm as a label: "lora-2: attention, projection"."""
    placement = list_placement(findings, arm)
    return f"{arm}: {', '.join(placement)}" if placement else arm


def list_placement(findings: Findings, arm: str) -> tuple[str, ...]:
    """Where an arm trains, by the study file; empty for the whole model or without a file."""
    described = _find_arm(findings, arm)
    return list_places(described) if described else ()


def _find_arm(findings: Findings, name: str) -> Arm | None:
    arms = findings.study.arms if findings.study else ()
    return next((arm for arm in arms if arm.name == name), None)


def name_measure(findings: Findings) -> str:
    """By what the best weights, learning rates and arms were chosen."""
    return "right answers on validation" if findings.is_by_answers else "validation loss"


def name_best(findings: Findings) -> str:
    """What the best weights, learning rates and arms have."""
    most = "most" if findings.is_by_answers else "lowest"
    return f"{most} {name_measure(findings)}"


def join(names: Sequence[str]) -> str:
    """Names as a list in a sentence: "a, b and c"."""
    return "".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"


def start(sentence: str) -> str:
    """The sentence with a capital at its beginning."""
    return sentence[:1].upper() + sentence[1:]


def count_seeds(n: int, total: int) -> str:
    """How many of the seeds: "both seeds", "all 3 seeds", "2 of 3 seeds", "no seed"."""
    if n == 0:
        return "no seed"
    if n < total:
        return f"{n} of {total} seeds"
    return "the one seed" if total == 1 else "both seeds" if total == 2 else f"all {total} seeds"


def describe_needed(n_seeds: int) -> str:
    """A planned number of seeds, which is rough: "about 9", "more than 1,000"."""
    return f"about {n_seeds}" if n_seeds <= MOST_SEEDS else f"more than {MOST_SEEDS:,}"


def write_size(difference: float, key: ScoreKey) -> str:
    """How much higher a perplexity or error rate is: "12 % higher", "4.2 points lower"."""
    word = "lower" if difference < 0 else "higher"
    percent = abs(key.percent(difference))
    decimals = 0 if percent >= 9.95 else 1 if percent >= 0.1 else 2
    decimals = decimals_off_zero((percent,), decimals)
    shown = f"{percent:,.{decimals}f}" if percent < 10_000 else f"{percent:.1e}"
    return f"{shown} {key.percent_sign} {word}"


def write_difference(mean: float, interval: Interval | None, key: ScoreKey) -> str:
    """A difference with its interval: "+0.110 nats per token [+0.043, +0.176]"."""
    value, ends = write_with_interval(mean, interval, decimals=3)
    return f"{value} {name_unit(key)}" + (f" {ends}" if interval is not None else "")


def name_unit(key: ScoreKey) -> str:
    """The unit of a difference in a sentence."""
    return key.unit if key.is_task else "nats per token"


def describe_margin(margin: float, keys: Iterable[ScoreKey]) -> str:
    """The margin of equivalence, and what it means for scores of these kinds; of texts if none.

    "0.02 nats per token (2 % of perplexity)".
    """
    first = ({key.is_task: key for key in keys} or {False: ScoreKey("", "", 0)}).values()
    return " or ".join(
        f"{margin:g} {name_unit(key)} ({key.percent(margin):.2g} {key.percent_sign} of "
        f"{key.compared})"
        for key in sorted(first, key=lambda key: key.is_task)
    )


def describe_question(question: Question) -> str:
    """The declared question: "full fine-tuning or LoRA?", "lora-1 or lora-2?"."""
    return name_question(question.asked)


def name_question(asked: AskedQuestion) -> str:
    """A question as people ask it."""
    match asked:
        case (first, second):
            return f"{first} or {second}?"
        case "full-or-lora":
            return "full fine-tuning or LoRA?"
        case "where":
            return "on which modules LoRA?"
        case "all":
            return "which of the trained arms?"


def describe_evidence(pair: Pair) -> str:
    """On how many seeds and documents the first arm is on the side of its mean.

    "lower on both seeds and on 95 % of the documents"; empty where it is not known.
    """
    if pair.mean is None or pair.n_seeds_lower is None or pair.documents is None:
        return ""
    word = "lower" if pair.mean < 0 else "higher"
    n, share = pair.n_seeds_lower, pair.documents.share_lower
    if pair.flips is not None:
        return f"{pair.first} {_write_flips(pair.flips)} {pair.second}"
    if pair.mean >= 0:
        n, share = len(pair.seeds) - n, pair.documents.share_higher
    where = f"on {_write_part(share)} of the documents"
    if len(pair.seeds) == 1:
        return f"{word} {where}"
    return f"{word} on {count_seeds(n, len(pair.seeds))} and {where}"


def _write_flips(flips: Flips) -> str:
    """How many answers differ: "repairs 12 % and breaks 4 % of the answers of"."""
    n = flips.n_answers
    repaired, broken = _write_part(flips.repaired / n), _write_part(flips.broken / n)
    return f"repairs {repaired} and breaks {broken} of the answers of"


def _write_part(share: float) -> str:
    """A share as a percentage, which is 0 or 100 only if all or none is meant."""
    percent = round(100 * share)
    if percent == 100 and share < 1:
        return "more than 99 %"
    if percent == 0 and share > 0:
        return "less than 1 %"
    return f"{percent} %"
