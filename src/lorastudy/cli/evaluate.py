"""`evaluate`: score any model, without a study."""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.options import (
    AsJson,
    BenchmarkName,
    Column,
    Device,
    Limit,
    Mirror,
    Offline,
    Precision,
    Reference,
    SampleBy,
    Strip,
)
from lorastudy.config.references import Answering, find_benchmark, model_reference
from lorastudy.store.counts import note_altered
from lorastudy.store.records import EvaluationRecord
from lorastudy.study.open import places_here
from lorastudy.units import write_count, write_perplexity, write_portion

if TYPE_CHECKING:
    from lorastudy.data.answers import AnswerRules

Model = Annotated[str, typer.Argument(help="Model folder, hub id, or demo.", metavar="MODEL")]
ProtocolNames = Annotated[
    list[str], typer.Option(help="rows-text, answers, choice, exact-match, ... (repeatable).")
]
Adapter = Annotated[Path | None, typer.Option(help="PEFT folder, such as a run's best/.")]
Length = Annotated[int, typer.Option(min=2, help="Tokens per row, for row protocols.")]
ChatTemplate = Annotated[
    str | None,
    typer.Option(
        help="For messages: file with the chat template, in Jinja; default: the tokenizer's.",
        metavar="PATH",
    ),
]
AssistantOnly = Annotated[
    bool,
    typer.Option(
        "--assistant-only-loss",
        help="For messages: score only what the chat template marks with {% generation %}.",
    ),
]
Sample = Annotated[
    int | None,
    typer.Option(min=2, help="Score only this many random documents; prints the standard error."),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(min=1, help="For generated answers: at most this many tokens; default: 64."),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="For generated answers: text before which one ends (repeatable)."),
]
Function = Annotated[
    str | None,
    typer.Option(help="For own-function: file.py:function or module:function.", metavar="NAME"),
]


def evaluate(
    model: Model,
    *,
    benchmark: BenchmarkName,
    protocol: ProtocolNames,
    adapter: Adapter = None,
    length: Length = 350,
    strip: Strip = True,
    column: Column = None,
    sample_by: SampleBy = None,
    limit: Limit = None,
    sample: Sample = None,
    chat_template: ChatTemplate = None,
    assistant_only_loss: AssistantOnly = False,
    max_new_tokens: MaxNewTokens = None,
    stop: Stop = None,
    function: Function = None,
    precision: Precision = "float32",
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    is_reference: Reference = False,
    as_json: AsJson = False,
) -> None:
    """Score a model on a benchmark under one or more protocols."""
    options.check_precision(device, precision)
    find = partial(find_benchmark, limit=limit, sample=sample, column=column, sample_by=sample_by)
    source = find(benchmark, protocol, answering=Answering(max_new_tokens, stop, function))
    from lorastudy.run.evaluate_model import evaluate_model

    records = evaluate_model(
        *(model_reference(model), adapter, source, places_here(mirror, offline=offline)),
        length=length,
        device=device,
        precision=precision,
        implementation="reference" if is_reference else "fast",
        strip=strip,
        rules=_make_rules(chat_template, assistant_only_loss=assistant_only_loss),
    )
    _say(model, adapter, records, as_json=as_json)


def _say(
    model: str, adapter: Path | None, records: Sequence[EvaluationRecord], *, as_json: bool
) -> None:
    from lorastudy.model.adapter_files import note_other_base

    _print_json(model, records) if as_json else _print_records(records)
    if adapter is not None and (note := note_other_base(adapter, model_reference(model))):
        print(f"lorastudy: {note}", file=sys.stderr)


def _make_rules(chat_template: str | None, *, assistant_only_loss: bool) -> "AnswerRules":
    from lorastudy.data.answers import AnswerRules

    return AnswerRules(None, assistant_only_loss, chat_template)


def _print_json(model: str, records: Sequence[EvaluationRecord]) -> None:
    evaluations = [json.loads(record.model_dump_json()) for record in records]
    options.print_json({"model": model, "evaluations": evaluations})


def _print_records(records: Sequence[EvaluationRecord]) -> None:
    """One line for each score, and warnings if the tokenizer does not know or keep the text."""
    for record in records:
        print(_line(record))
    unknown = max((record.text.unknown_share for record in records if record.text), default=0.0)
    if any(record.text and record.text.is_unknown for record in records):
        print(
            f"lorastudy: the tokenizer does not know {write_portion(unknown)} of the tokens, so "
            "perplexities say little about this text, and there are none per byte or word.",
            file=sys.stderr,
        )
    altered = {r.benchmark: r.text for r in records if r.text and r.text.is_altered}
    for benchmark, counts in altered.items():
        print(f"lorastudy: {note_altered(benchmark, counts)}", file=sys.stderr)


def _line(record: EvaluationRecord) -> str:
    if record.cross_entropy is None or record.perplexity is None:
        return _line_of_task(record)
    per = "document" if record.averaged_over == "documents" else "token"
    error = f" ± {record.standard_error:.6f}" if record.standard_error is not None else ""
    of = f", a random part of {record.n_population:,}" if record.n_population else ""
    cut = f", {record.n_documents_cut:,} of them cut" if record.n_documents_cut else ""
    text = f"; text: {record.text}" if record.text else ""
    documents = write_count(record.n_documents, "document")
    scored = f"{write_count(record.n_tokens, 'token')}, {documents}{of}{cut}"
    return (
        f"{record.benchmark}  {record.protocol} v{record.protocol_version}  "
        f"perplexity {write_perplexity(record.perplexity)}  "
        f"cross-entropy {record.cross_entropy:.6f}{error} nats/{per}  "
        f"{_units(record)}({scored}{text}; {record.seconds:.1f} s)"
    )


def _line_of_task(record: EvaluationRecord) -> str:
    error = f" ± {record.standard_error:.4f}" if record.standard_error is not None else ""
    of = f", a random part of {record.n_population:,}" if record.n_population else ""
    cut = f", {record.n_cut:,} answers without an end" if record.n_cut else ""
    return (
        f"{record.benchmark}  {record.protocol} v{record.protocol_version}  "
        f"accuracy {record.accuracy:.4f}{error}  "
        f"({write_count(record.n_documents, 'item')}{of}{cut}; {record.seconds:.1f} s)"
    )


def _units(record: EvaluationRecord) -> str:
    """The other units that are defined, each followed by two spaces."""
    found = (
        ("accuracy", record.accuracy),
        ("word perplexity", record.word_perplexity),
        ("byte perplexity", record.byte_perplexity),
        ("bits per byte", record.bits_per_byte),
    )
    return "".join(f"{name} {write_perplexity(v)}  " for name, v in found if v is not None)
