"""Answers to claims from a study: holds, does not hold, undecided, or cannot be asked.

A claim holds if every pair of arms that it is about shows it, and does not hold if one pair shows
the opposite. Otherwise it is undecided, and so is every claim with one seed. The figure that is
given is that of the pair that decides.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Literal

from lorastudy.analysis.claims import (
    CLAIMS,
    MARGIN,
    Claim,
    CostClaim,
    Relation,
    ScoreClaim,
    arms_in_role,
)
from lorastudy.analysis.families import adjust_by_holm
from lorastudy.analysis.paired import (
    SIGNIFICANCE,
    interval_of,
    measure_seeds,
    p_of_no_difference,
)
from lorastudy.analysis.pairs import ONE_SEED, Comparison, Pair
from lorastudy.analysis.score_sums import NO_SUMS
from lorastudy.analysis.statistics import Interval
from lorastudy.analysis.summary import ArmSummary, ScoreKey
from lorastudy.config.models import Source, Study
from lorastudy.errors import show_names
from lorastudy.store.records import RunResult
from lorastudy.units import MIB

Verdict = Literal["holds", "does not hold", "undecided", "cannot be asked"]
_FAR_NAMES = ("lambada", "imdb")  # where no study file says what was trained on


@dataclass(frozen=True, slots=True)
class Answer:
    """One claim, asked of one pair of arms, of one score, or of the whole study."""

    claim: Claim
    verdict: Verdict
    key: ScoreKey | None = None  # None: asked of the whole study
    pair: str = ""  # the pair of arms that decides, first minus second
    value: float | None = None  # its difference
    interval: Interval | None = None  # 95 %
    unit: str = "nats per target"
    n_seeds: int = 0
    n_documents: int = 0  # 0: the quantity has none
    remark: str = ""


def answer_claims(
    arms: Sequence[ArmSummary],
    comparisons: Sequence[Comparison],
    study: Study | None,
    kind: str | None,
    disturbed: Collection[str],
    *,
    margin: float,
) -> tuple[Answer, ...]:
    """All claims and scores of the study, in their orders.

    `kind` is that of peak memory; `disturbed` are the arms whose timings are unreliable. “On par”
    allows for `margin` nats per target.
    """
    answers: list[Answer] = []
    for known in CLAIMS:
        claim = replace(known, asked=known.asked.replace(MARGIN, f"{margin:g}"))
        if isinstance(claim, CostClaim):
            answers.append(_answer_cost(claim, arms, kind, disturbed))
        else:
            answers += _answer_scores(claim, arms, comparisons, study)
    return tuple(answers)


def _answer_scores(
    claim: ScoreClaim,
    arms: Sequence[ArmSummary],
    comparisons: Sequence[Comparison],
    study: Study | None,
) -> list[Answer]:
    wanted = [c for c in comparisons if not claim.is_far_only or _is_far(c.key.benchmark, study)]
    names = [
        (a.arm, b.arm)
        for a, b in product(arms_in_role(claim.first, arms), arms_in_role(claim.second, arms))
    ]
    if not wanted:
        kind = " of another source than the training data" if claim.is_far_only else ""
        return [Answer(claim, "cannot be asked", remark=f"no benchmark{kind}.")]
    if not names:
        return [Answer(claim, "cannot be asked", remark=_lacking(claim, arms))]
    return [_answer_score(claim, names, comparison) for comparison in wanted]


def _answer_score(
    claim: ScoreClaim, names: Sequence[tuple[str, str]], comparison: Comparison
) -> Answer:
    pairs = [pair for a, b in names if (pair := comparison.find_pair(a, b)) is not None]
    if not pairs:
        answer = Answer(claim, "cannot be asked", remark="the arms have no score here.")
    else:
        of_pairs = [_judge_score(claim, pair) for pair in pairs]
        answer = _combine(claim.relation, of_pairs, len(names))
    return replace(answer, key=comparison.key, n_documents=comparison.n_documents)


def _judge_score(claim: ScoreClaim, pair: Pair) -> Answer:
    """What one pair of arms shows about a claim."""
    verdict: Verdict = "undecided"
    remark = pair.remark
    if pair.interval is None or pair.mean is None:
        remark = remark or NO_SUMS
    elif pair.verdict != "one seed":
        verdict = _judge(
            claim.relation,
            pair.mean,
            pair.interval,
            is_separated=pair.is_separated,
            margin=pair.margin,
        )
    return Answer(
        claim,
        verdict,
        pair=f"{pair.first} - {pair.second}",
        value=pair.mean,
        interval=pair.interval,
        n_seeds=len(pair.seeds),
        remark=remark,
    )


def _judge(
    relation: Relation,
    value: float,
    interval: Interval,
    *,
    is_separated: bool,
    margin: float = 0.0,
) -> Verdict:
    if relation == "no worse":
        if interval.high < margin:
            return "holds"
        return "does not hold" if is_separated and interval.low > margin else "undecided"
    if not is_separated:
        return "undecided"
    return "holds" if (value < 0) == (relation == "lower") else "does not hold"


def _answer_cost(
    claim: CostClaim, arms: Sequence[ArmSummary], kind: str | None, disturbed: Collection[str]
) -> Answer:
    first = arms_in_role(claim.first, arms)
    if claim.second is None:
        pairs = [(more, fewer) for fewer, more in pairwise(first)]
    else:
        pairs = list(product(first, arms_in_role(claim.second, arms)))
    relation: Relation = "higher" if claim.second is None else "lower"
    if not pairs:
        return Answer(claim, "cannot be asked", remark=_lacking(claim, arms))
    runs = [run for pair in pairs for arm in pair for run in arm.runs]
    if claim.asked_of_sum and all(run.train_and_validate_seconds for run in runs):
        claim = replace(claim, asked=claim.asked_of_sum)
    read, unit = _reader(claim, kind)
    values = [_paired_values(a, b, read) for a, b in pairs]
    names = [f"{a.arm} - {b.arm}" for a, b in pairs]
    of_pairs = _judge_costs(claim, relation, values, names)
    answer = replace(_combine(relation, of_pairs, len(pairs)), unit=unit)
    unsure = [arm.arm for pair in pairs for arm in pair if arm.arm in disturbed]
    if claim.quantity == "training time" and unsure:
        remark = f"timing disturbed: {show_names(dict.fromkeys(unsure))}"
        remark = f"{remark}; {answer.remark}" if answer.remark else f"{remark}."
        answer = replace(answer, verdict="undecided", remark=remark)
    return answer


def _reader(claim: CostClaim, kind: str | None) -> tuple[Callable[[RunResult], float | None], str]:
    """The function that reads the claim's quantity from a run, and its unit.

    The published time contains validation and checkpoints; where a run of an earlier version has
    no such sum, the optimizer steps of all runs are compared.
    """
    match claim.quantity:
        case "peak memory":

            def read_memory(run: RunResult) -> float | None:
                found = run.peak_memory_bytes.get(kind or "")
                return None if found is None else found / MIB

            return read_memory, f"MiB {kind or ''}".strip()
        case "training time":
            if claim.asked == claim.asked_of_sum:
                return lambda run: run.train_and_validate_seconds, "seconds"
            return lambda run: run.train_seconds, "seconds"
        case "validation loss after the first epoch":
            return (
                lambda run: run.epochs[0].validation_loss if run.epochs else None,
                "nats per target",
            )


def _paired_values(
    first: ArmSummary, second: ArmSummary, read: Callable[[RunResult], float | None]
) -> list[float]:
    """Differences of the arms for each common seed for which both have the quantity."""
    of_second = {run.seed: read(run) for run in second.runs}
    of_first = {run.seed: read(run) for run in first.runs}
    return [
        value - other
        for seed, value in sorted(of_first.items())
        if value is not None and (other := of_second.get(seed)) is not None
    ]


def _judge_costs(
    claim: CostClaim, relation: Relation, values: Sequence[list[float]], names: Sequence[str]
) -> list[Answer]:
    """What each pair shows about a claim, judged together; `values` are one per common seed."""
    found = [measure_seeds(value) if value else None for value in values]
    p_values = [p_of_no_difference(d) if d is not None else None for d in found]
    adjusted = iter(adjust_by_holm([p for p in p_values if p is not None]))
    of_pairs = []
    for difference, p, name in zip(found, p_values, names, strict=True):
        if difference is None:
            of_pairs.append(Answer(claim, "undecided", pair=name, remark="not measured."))
            continue
        is_separated = p is not None and next(adjusted) < SIGNIFICANCE
        interval = interval_of(difference)
        verdict: Verdict = "undecided"
        if interval is not None:
            verdict = _judge(relation, difference.mean, interval, is_separated=is_separated)
        of_pairs.append(
            Answer(
                claim,
                verdict,
                pair=name,
                value=difference.mean,
                interval=interval,
                n_seeds=difference.n_seeds,
                remark="" if difference.n_seeds > 1 else f"{ONE_SEED}.",
            )
        )
    return of_pairs


def _combine(relation: Relation, of_pairs: Sequence[Answer], n_wanted: int) -> Answer:
    """The answer of all pairs together, with the figure of the pair that decides."""
    failing = [f for f in of_pairs if f.verdict == "does not hold"]
    undecided = [f for f in of_pairs if f.verdict == "undecided"]
    shown = _deciding(relation, failing, undecided or of_pairs)
    n_holding = sum(f.verdict == "holds" for f in of_pairs)
    parts = [f"{n_holding} of {len(of_pairs)} pairs show it."] if len(of_pairs) > 1 else []
    if len(of_pairs) < n_wanted:
        parts.append(f"{n_wanted - len(of_pairs)} pairs have no score here.")
    verdict = shown.verdict if failing or len(of_pairs) == n_wanted else "undecided"
    return replace(shown, verdict=verdict, remark=" ".join([*parts, shown.remark]).strip())


def _deciding(relation: Relation, failing: Sequence[Answer], others: Sequence[Answer]) -> Answer:
    """The clearest failure, or else the pair that is nearest to a failure."""
    if failing:
        return max(failing, key=lambda f: abs(f.value or 0.0))
    if relation == "higher":
        return min(others, key=lambda f: f.value or 0.0)
    return max(others, key=lambda f: f.value or 0.0)


def _lacking(claim: Claim, arms: Sequence[ArmSummary]) -> str:
    if claim.second is None:
        return "fewer than two finished arms are trained."
    roles = [role for role in (claim.first, claim.second) if not arms_in_role(role, arms)]
    return f"no finished arm in the role of {' and '.join(roles)}."


def _is_far(benchmark: str, study: Study | None) -> bool:
    """Whether the benchmark's text comes from another source than the training data.

    Two local files say nothing about their kinds of text, so they count as one source.
    """
    if study is None:
        return benchmark.casefold() in _FAR_NAMES
    sources = {b.name: _place(b) for b in study.benchmarks}
    return sources.get(benchmark, ()) not in map(_place, study.data.train.sources)


def _place(source: Source) -> tuple[str | None, ...]:
    return (source.id, source.builtin)
