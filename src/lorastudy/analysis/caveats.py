"""Reasons to doubt a recommendation, found in the records: each one is part of the statement.

A caveat says what was found, and of which arms or benchmarks; the page puts it into words.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.pairs import Comparison
from lorastudy.analysis.recommendation import Recommendation, list_tests
from lorastudy.analysis.statistics import mean
from lorastudy.analysis.summary import ArmSummary
from lorastudy.analysis.verdicts import explain_order

CaveatKind = Literal[
    "failed runs",  # value: their number
    "damaged runs",  # value: their number
    "missing runs",  # value: their number
    "incomplete arms",  # they have fewer seeds than others, and are not judged
    "leaking text",  # a benchmark, or the validation text, is the same text as another
    "above uniform loss",  # worse than giving every token the same chance
    "above baseline",  # worse than the base model on a test, by the interval if there is one
    "not above base",  # the recommended arm is not shown to be better than the base model
    "disturbed seconds",  # so nothing is said about training time
    "rate at the edge",  # the chosen rate is the lowest or highest of those tried
    "one rate",  # only one learning rate was tried
    "last epoch",  # the best epoch was the last one
    "cut training data",  # value: documents that were read
    "truncated text",  # value: share of the training tokens that are in no row
    "unknown text",  # value: the largest share of tokens that the tokenizer does not know
    "altered text",  # value: the largest share of letters that the tokenizer changes
    "repeated text",  # held-out texts that are partly trained on; value: documents
    "trained elsewhere",  # by other programs, so nothing is known of how
    "wide spread",  # the arm's seeds spread farther than those of the others
    "order",  # an arm farther from the lead is called nearer, since its error is larger
]


@dataclass(frozen=True, slots=True)
class Caveat:
    """One reason for doubt."""

    kind: CaveatKind
    names: tuple[str, ...] = ()  # arms, or benchmarks and splits where texts are meant
    where: tuple[str, ...] = ()  # the benchmarks that it was seen on
    value: float | None = None


def find_caveats(findings: Findings, found: Recommendation) -> tuple[Caveat, ...]:
    """Everything that a reader must know with `found`, the gravest first.

    Learning rates, epochs and seconds are looked at for the two arms in question only;
    everything else for the whole study.
    """
    asked = [arm for arm in findings.arms if arm.arm in (found.lora, found.reference)]
    caveats = (
        *_of_runs(findings),
        *_of_text(findings),
        *_of_levels(findings),
        *_of_base(findings, found),
        *_of_training(findings, asked),
        *_of_data(findings),
        *_of_spread(findings),
    )
    return tuple(_join_benchmarks(caveats))


def _join_benchmarks(caveats: Sequence[Caveat]) -> Iterator[Caveat]:
    """The same caveat of several benchmarks as one."""
    alike: dict[Caveat, list[str]] = {}
    for caveat in caveats:
        alike.setdefault(replace(caveat, where=()), []).extend(caveat.where)
    for caveat, where in alike.items():
        yield replace(caveat, where=tuple(where))


def _of_runs(findings: Findings) -> Iterator[Caveat]:
    ended = [run.status for run in findings.results.runs if run.status != "done"]
    n_damaged = ended.count("damaged")
    if n_failed := len(ended) - n_damaged:
        yield Caveat("failed runs", value=n_failed)
    if n_damaged:
        yield Caveat("damaged runs", value=n_damaged)
    if findings.results.missing:
        yield Caveat("missing runs", value=len(findings.results.missing))
    lacking = dict.fromkeys(i.arm for c in list_tests(findings) for i in c.incomplete)
    if lacking:
        yield Caveat("incomplete arms", tuple(lacking))


def _of_text(findings: Findings) -> Iterator[Caveat]:
    """Texts that have the same digest although they are called by different names."""
    if (lock := findings.evidence.lock) is None:
        return
    by_digest: dict[str, dict[str, None]] = {}
    for name, digest in lock.corpora.items():
        by_digest.setdefault(digest, {})[name.rpartition("--")[0] or name] = None
    for names in by_digest.values():
        if len(names) > 1 and {"train", "validation"} & set(names):
            yield Caveat("leaking text", tuple(names))


def _of_levels(findings: Findings) -> Iterator[Caveat]:
    """Losses of trained arms that are higher than what no training gives."""
    vocabulary = findings.evidence.vocabulary_size
    baseline = next((arm for arm in findings.arms if arm.is_baseline), None)
    for comparison in list_tests(findings):
        where = (comparison.key.benchmark,)
        losses = {
            arm.arm: mean(arm.sample(comparison.key).losses)
            for arm in findings.arms
            if arm.sample(comparison.key).losses
        }
        trained = [a.arm for a in findings.arms if not a.is_baseline and a.arm in losses]
        if vocabulary and not comparison.key.is_task:
            limit = math.log(vocabulary)
            above = tuple(arm for arm in trained if not losses[arm] <= limit)
            if above:
                yield Caveat("above uniform loss", above, where, limit)
        if baseline is not None and losses.get(baseline.arm, math.inf) < math.inf:
            above = tuple(
                arm for arm in trained if _is_above(arm, baseline.arm, comparison, losses)
            )
            if above:
                yield Caveat("above baseline", above, where)


def _of_base(findings: Findings, found: Recommendation) -> Iterator[Caveat]:
    """Tests on which the recommended arm is not separated from the base model."""
    baseline = next((arm.arm for arm in findings.arms if arm.is_baseline), None)
    if found.recommended is None or baseline is None or found.is_beside_base:
        return
    for comparison in list_tests(findings):
        pair = comparison.find_pair(found.recommended, baseline)
        if pair is not None and pair.is_judged and not pair.is_separated:
            yield Caveat("not above base", (found.recommended,), (comparison.key.benchmark,))


def _is_above(arm: str, other: str, comparison: Comparison, losses: Mapping[str, float]) -> bool:
    """The loss of `arm` is above that of `other` by the interval, as the words of pairs are.

    By the means where there is no interval, as for an arm whose loss is not finite.
    """
    pair = comparison.find_pair(arm, other)
    if pair is None or pair.interval is None:
        return not losses[arm] <= losses[other]
    return pair.interval.low > 0


def _of_training(findings: Findings, asked: Sequence[ArmSummary]) -> Iterator[Caveat]:
    disturbed = tuple(arm.arm for arm in asked if arm.arm in findings.doubts)
    if disturbed:
        yield Caveat("disturbed seconds", disturbed)
    at_edge = {rate.arm for rate in findings.rates if rate.is_at_end}
    found = tuple(arm.arm for arm in asked if arm.arm in at_edge)
    if found:
        yield Caveat("rate at the edge", found)
    found = tuple(arm.arm for arm in asked if arm.n_rates_tried == 1)
    if found:
        yield Caveat("one rate", found)
    found = tuple(arm.arm for arm in asked if _ends_best(arm))
    if found:
        yield Caveat("last epoch", found)


def _ends_best(arm: ArmSummary) -> bool:
    """The last of several validations was the best for every seed, at the end of training."""
    return bool(arm.runs) and all(
        run.planned_steps is None
        and len(losses := run.validation_losses) > 1
        and run.best_epoch == len(run.epochs)
        and run.best_step in (None, max(losses))
        for run in arm.runs
    )


def _of_data(findings: Findings) -> Iterator[Caveat]:
    if findings.is_elsewhere:
        yield Caveat("trained elsewhere", tuple(a.arm for a in findings.arms if not a.is_baseline))
    sources = findings.study.data.train.sources if findings.study else ()
    if limits := [source.limit for source in sources if source.limit is not None]:
        yield Caveat("cut training data", value=sum(limits))
    if (lock := findings.evidence.lock) is None:
        return
    train = lock.texts.get("train")
    if train is not None and train.is_truncated:
        yield Caveat("truncated text", value=train.dropped_share)
    texts = [(name.rpartition("--")[0] or name, counts) for name, counts in lock.texts.items()]
    if unknown := {name: c.unknown_share for name, c in texts if c.is_unknown}:
        yield Caveat("unknown text", tuple(unknown), value=max(unknown.values()))
    if altered := {name: c.altered_share for name, c in texts if c.is_altered}:
        yield Caveat("altered text", tuple(altered), value=max(altered.values()))
    for part in lock.overlap:
        if part.documents:
            yield Caveat("repeated text", (part.benchmark or "validation",), value=part.documents)


def _of_spread(findings: Findings) -> Iterator[Caveat]:
    for comparison in list_tests(findings):
        where = (comparison.key.benchmark,)
        if comparison.wide_arms:
            yield Caveat("wide spread", comparison.wide_arms, where)
        for inversion in explain_order(comparison):
            yield Caveat("order", (inversion.arm, inversion.nearer), where, inversion.error_ratio)
