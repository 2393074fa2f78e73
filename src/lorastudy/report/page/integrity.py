"""Can these numbers be trusted and reproduced: environment, digests, warnings, commands."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lorastudy.analysis.evidence import Evidence
from lorastudy.analysis.findings import Findings
from lorastudy.report.numerals import write_rate
from lorastudy.report.tables.table import Cell, Column, Note, Table, text_cell
from lorastudy.store.counts import TextCounts
from lorastudy.store.records import Fingerprint, Manifest, StudyResults
from lorastudy.units import write_count, write_portion

_COUNTS = {
    "documents": "documents",
    "tokens": "tokens",
    "dropped_share": "in no row",
    "unknown_share": "unknown tokens",
}
_LOCKED = "Every run of the study checked that it read exactly these contents before it started."


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a list: a label and a text."""

    label: str
    text: str


def describe_environments(evidence: Evidence) -> tuple[Fact, ...]:
    """What the numbers depend on besides the study file; several values where runs differ."""
    found = [e.manifest.environment for e in evidence.runs if e.manifest]
    if not found:
        return ()
    names = sorted({name for environment in found for name in environment.libraries})
    facts = [
        Fact("lorastudy", list_distinct(e.lorastudy for e in found)),
        Fact("commit of lorastudy", list_distinct(e.commit or "" for e in found)),
        Fact("Python", list_distinct(e.python for e in found)),
        *(Fact(name, list_distinct(e.libraries.get(name, "") for e in found)) for name in names),
        Fact("device", list_distinct(e.device for e in found)),
        Fact("precision", list_distinct(e.precision for e in found)),
        Fact("threads", list_distinct(_threads(e) for e in found)),
        Fact("attention", list_distinct(e.attention for e in found)),
        Fact("micro-batch", list_distinct(str(e.micro_batch) for e in found)),
        Fact("processes per run", list_distinct(str(e.world_size) for e in found)),
    ]
    return tuple(fact for fact in facts if fact.text)


def describe_resumes(evidence: Evidence) -> tuple[str, ...]:
    """One sentence for each run that was interrupted."""
    return tuple(
        f"{found.run.run_id} continued after step {', '.join(map(str, found.resumed_after))}."
        for found in evidence.runs
        if found.resumed_after
    )


def build_digest_table(evidence: Evidence) -> Table | None:
    """Digests of everything that was read; None without a lock file and manifests."""
    lock = evidence.lock
    manifests = [e.manifest for e in evidence.runs if e.manifest]
    if lock is not None:
        named = {"base model": lock.base_digest, "tokenizer": lock.tokenizer_digest, **lock.corpora}
    elif manifests:
        named = _digests(manifests[0])
    else:
        return None
    texts = lock.texts if lock else {}
    columns = (
        Column("content", ("content",), "left"),
        *(Column(title, (name,)) for name, title in _COUNTS.items() if texts),
        Column("SHA-256", ("sha256",), "wrap"),
    )
    rows = tuple(
        (text_cell(name), *(_count_cells(texts.get(name)) if texts else ()), text_cell(digest))
        for name, digest in named.items()
    )
    return Table("What was read", columns, rows, (Note("", _LOCKED),) if lock else ())


def _count_cells(counts: TextCounts | None) -> tuple[Cell, ...]:
    """What is read of a text and known; empty for what is not a text."""
    if counts is None:
        return (Cell("", (None,)),) * len(_COUNTS)
    numbers = (counts.n_documents, counts.n_tokens)
    shares = (counts.dropped_share, counts.unknown_share)
    return (
        *(Cell(f"{number:,}", (number,)) for number in numbers),
        *(Cell(write_portion(share, 1), (share,)) for share in shares),
    )


def list_warnings(findings: Findings) -> tuple[str, ...]:
    """Everything that a careful reader must know before quoting a number, one sentence per fact."""
    return (
        *_warn_of_runs(findings),
        *_warn_of_early_stops(findings.results),
        *_warn_of_drift(findings),
        *(
            f"{arm}: its timings are unreliable ({'; '.join(doubts)}): other programs may "
            "have used the CPU."
            for arm, doubts in findings.doubts.items()
        ),
        *(
            f"{rate.arm}: its best learning rate, {write_rate(rate.learning_rate)}, is the lowest "
            "or highest of those tried; a better one may lie outside."
            for rate in findings.rates
            if rate.is_at_end
        ),
        *dict.fromkeys(
            f"{c.key.benchmark}, {c.key.protocol_name}: {note}"
            for c in findings.comparisons
            for note in c.notes
        ),
        *(f"Not read: {problem}" for problem in findings.evidence.problems),
        *findings.evidence.doubts,
    )


def list_commands(name: str, *, is_elsewhere: bool) -> tuple[str, ...]:
    """What to type to repeat the study, next to a copy of its study.yaml."""
    if is_elsewhere:
        return (
            f"lorastudy fsck {name}  # every hash and record of the folder",
            f"lorastudy report {name}  # this page and its tables, byte for byte",
        )
    return (
        "lorastudy check study.yaml  # inputs, modules, counts and memory, before any training",
        f"lorastudy run study.yaml --out {name}",
        f"lorastudy fsck {name}  # every hash and record of the folder",
        f"lorastudy report {name}  # this page and its tables, byte for byte",
    )


def cite(findings: Findings) -> tuple[str, ...]:
    """Lines of BibTeX for these numbers, for the published study and for LoRA."""
    results, runs = findings.results, findings.evidence.runs
    versions = list_distinct(e.manifest.environment.lorastudy for e in runs if e.manifest)
    program = f"lorastudy {versions}".strip()
    digest = hashlib.sha256(write_results_json(results).encode()).hexdigest()
    return (
        f"@misc{{study, title = {{{results.name}: full fine-tuning and LoRA compared}},",
        f"  howpublished = {{{program}}}, note = {{results.json, SHA-256 {digest}}}}}",
        "@misc{dordiuk2024, author = {Dordiuk, Vladislav}, year = {2024},",
        "  title = {A comparative study of applying {LoRA} to {GPT-2} architecture}}",
        "@misc{hu2021lora, author = {Hu, Edward J. and others}, year = {2021},",
        "  title = {{LoRA}: Low-Rank Adaptation of Large Language Models}, eprint = {2106.09685}}",
    )


def write_results_json(results: StudyResults) -> str:
    """The text of `results.json`, as it is stored."""
    return results.model_dump_json(indent=1) + "\n"


def _warn_of_runs(findings: Findings) -> list[str]:
    results = findings.results
    warnings = [] if len(results.seeds) > 1 else ["One seed: nothing is known about other seeds."]
    by_state: dict[str, list[str]] = {}
    for run in results.runs:
        if run.status != "done":
            state = "damaged" if run.status == "damaged" else "failed"
            by_state.setdefault(state, []).append(run.run_id)
    warnings += [
        f"{write_count(len(ids), 'run')} {state}, in no mean: {', '.join(ids)}."
        for state, ids in by_state.items()
    ]
    if results.missing:
        warnings.append(f"{write_count(len(results.missing), 'run')} not finished yet.")
    uneven = [
        arm.arm
        for arm in findings.arms
        if 0 < len(arm.runs) < (1 if arm.is_baseline else arm.n_seeds)
    ]
    if uneven:
        warnings.append(f"Some seeds are missing or failed: {', '.join(uneven)}.")
    return warnings


def _warn_of_early_stops(results: StudyResults) -> list[str]:
    stopped = [run for run in results.runs if run.planned_steps is not None]
    if not stopped:
        return []
    named = ", ".join(
        f"{run.run_id} after step {run.optimizer_steps:,} of {run.planned_steps:,}"
        for run in stopped
    )
    n_trained = sum(run.method != "baseline" for run in results.runs)
    return [
        f"{len(stopped)} of {n_trained} trained runs stopped early, by the rule that all of them "
        f"have: {named}. Learning rates followed the schedule of all planned steps, so those of "
        "these runs had not reached its end. Their seconds are of the steps that they took and of "
        "all validations."
    ]


def _warn_of_drift(findings: Findings) -> list[str]:
    evidence = findings.evidence
    warnings = [
        f"{run.run_id} continued in another environment: {'; '.join(run.drift)}."
        for run in findings.results.runs
        if run.drift
    ]
    several = [fact for fact in describe_environments(evidence) if "; " in fact.text]
    warnings += [f"Runs differ in {fact.label}: {fact.text}." for fact in several]
    digests = {tuple(_digests(e.manifest).items()) for e in evidence.runs if e.manifest}
    if len(digests) > 1:
        warnings.append("Runs were trained on different inputs: their digests differ.")
    return warnings


def _digests(manifest: Manifest) -> dict[str, str]:
    return {
        "base model": manifest.base_digest,
        "tokenizer": manifest.tokenizer_digest,
        "train": manifest.train_digest,
        "validation": manifest.validation_digest,
    }


def _threads(environment: Fingerprint) -> str:
    return str(environment.threads) if environment.threads else "on a GPU"


def list_distinct(values: Iterable[str | None], separator: str = "; ") -> str:
    """The different values in their order, each on one line; empty if none is known."""
    return separator.join(sorted({re.sub(r"\s+", " ", value) for value in values if value}))
