"""`audit`: what a perplexity over padded rows is made of, of a model or of a printed number."""

from dataclasses import asdict
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
    SampleBy,
    Strip,
)
from lorastudy.config.models import Benchmark, Rows
from lorastudy.config.references import find_benchmark, model_reference
from lorastudy.errors import ConfigError
from lorastudy.protocols import protocol_of_rows
from lorastudy.study.open import places_here
from lorastudy.units import write_count, write_perplexity

if TYPE_CHECKING:
    from lorastudy.evaluate.audit import Undone
    from lorastudy.run.audit_model import Audit, Reading
    from lorastudy.store.records import EvaluationRecord

_PADDED = protocol_of_rows(scored_padding=True).pattern
_TEXT = protocol_of_rows(scored_padding=False).pattern

Model = Annotated[
    str | None, typer.Argument(help="Model folder, hub id or demo; not with --tokenizer.")
]
Length = Annotated[int, typer.Option(min=2, help="Tokens of a padded row.")]
Reported = Annotated[
    float | None, typer.Option(help="A perplexity that was reported elsewhere, to split.")
]
TokenizerName = Annotated[
    str | None, typer.Option(help="Hub id or folder, instead of a model; needs --reported.")
]
ProtocolNames = Annotated[
    list[str] | None,
    typer.Option(help=f"In addition to {_PADDED}; by default {_TEXT} (repeatable)."),
]


def audit(
    model: Model = None,
    *,
    benchmark: BenchmarkName = "",
    length: Length = 350,
    strip: Strip = True,
    reported: Reported = None,
    tokenizer: TokenizerName = None,
    protocol: ProtocolNames = None,
    adapter: Annotated[Path | None, typer.Option(help="PEFT folder for the model.")] = None,
    column: Column = None,
    sample_by: SampleBy = None,
    limit: Limit = None,
    precision: Precision = "float32",
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what a perplexity over padded rows is made of, or what a reported one stands for."""
    options.check_precision(device, precision)
    asked = _with_padded(protocol)
    source = _find_benchmark(benchmark, asked, limit=limit, column=column, sample_by=sample_by)
    places = places_here(mirror, offline=offline)
    rows = Rows(cut="lines", length=length, strip=strip)
    if model is None:
        number, name = _check_report(reported, tokenizer, is_scoring=bool(protocol or adapter))
        from lorastudy.run.audit_model import audit_report

        found = audit_report(number, model_reference(name), source, places, rows)
    else:
        if tokenizer is not None:
            raise ConfigError("--tokenizer: a MODEL brings its own tokenizer; leave it out.")
        from lorastudy.run.audit_model import audit_model

        scored = model_reference(model), adapter, source, places, rows
        found = audit_model(*scored, reported=reported, device=device, precision=precision)
    _print_audit(found, model, as_json=as_json)


def _print_audit(found: "Audit", model: str | None, *, as_json: bool) -> None:
    if as_json:
        options.print_json(_as_json(found, model))
    else:
        print(_as_text(found))


def _find_benchmark(
    name: str,
    protocols: tuple[str, ...],
    *,
    limit: int | None,
    column: str | None,
    sample_by: str | None,
) -> Benchmark:
    """The benchmark; the option has to be given although a model may be left out."""
    if not name:
        raise ConfigError("--benchmark: audit needs one, such as wikitext-2 or a text file.")
    return find_benchmark(name, protocols, limit=limit, column=column, sample_by=sample_by)


def _with_padded(protocols: list[str] | None) -> tuple[str, ...]:
    """The padded protocol, and the others that were asked for or that are the default."""
    return tuple(dict.fromkeys((_PADDED, *(protocols or (_TEXT,)))))


def _check_report(
    reported: float | None, tokenizer: str | None, *, is_scoring: bool
) -> tuple[float, str]:
    """What is needed to take a printed perplexity apart without a model."""
    if is_scoring:
        raise ConfigError("--protocol and --adapter need a MODEL to score; leave them out.")
    if reported is None or tokenizer is None:
        raise ConfigError(
            "audit needs a MODEL to score, or --reported with --tokenizer to take a printed "
            "perplexity apart."
        )
    return reported, tokenizer


def _as_json(found: "Audit", model: str | None) -> dict[str, object]:
    counts, nats = found.counts, found.class_nats
    return {
        "model": model,
        "benchmark": found.benchmark,
        "rows": counts.n_rows,
        "length": found.length,
        "text_share": counts.text_share,
        "classes": [
            {
                "class": name,
                "n_targets": n_targets,
                "share": n_targets / counts.total,
                "cross_entropy": nats.get(name),
            }
            for name, n_targets in counts.by_class
        ],
        "text_perplexity": found.text_perplexity,
        "perplexity": {record.protocol: record.perplexity for record in found.records},
        "undone": _undone_as_json(found.undone),
        "readings": [
            {
                "strip": reading.strip,
                "text": asdict(reading.text),
                "rows": reading.counts.n_rows,
                "text_share": reading.counts.text_share,
                "undone": _undone_as_json(reading.undone),
            }
            for reading in found.readings
        ],
    }


def _undone_as_json(undone: "Undone | None") -> dict[str, float] | None:
    return None if undone is None else asdict(undone)


def _as_text(found: "Audit") -> str:
    counts, nats = found.counts, found.class_nats
    lines = [
        f"{found.benchmark}: {write_count(counts.n_rows, 'row')} padded to {found.length} tokens, "
        f"{write_count(counts.total, 'target')}",
        "",
        f"  {'class of target':<16}{'targets':>12}{'share':>9}{'nats per target':>16}",
    ]
    for name, n_targets in counts.by_class:
        loss = nats.get(name)
        shown = f"{loss:>16.4f}" if loss is not None else f"{'–':>16}"
        lines.append(f"  {name:<16}{n_targets:>12,}{n_targets / counts.total:>9.4f}{shown}")
    if found.records:
        assert found.text_perplexity is not None, "it is there with the records"
        shown = write_perplexity(found.text_perplexity)
        lines += ["", f"  perplexity of the text in these rows    {shown}"]
        lines += map(_line_of_protocol, found.records)
    by_text: dict[str, list[str]] = {}  # both readings are one if no text has space around it
    for reading in found.readings:
        how = "stripped (data.rows.strip: true)" if reading.strip else "as they are (strip: false)"
        by_text.setdefault(_reading_as_text(reading), []).append(how)
    readings = [f"texts {' or '.join(hows)}: {text}" for text, hows in by_text.items()]
    return "\n".join([*lines, "", *readings])


def _line_of_protocol(record: "EvaluationRecord") -> str:
    assert record.perplexity is not None, "audit scores no tasks"
    named = f"{record.protocol} v{record.protocol_version}"
    padding = "   (padding scored)" if record.classes else ""
    return f"  perplexity under {named:<22} {write_perplexity(record.perplexity)}{padding}"


def _reading_as_text(reading: "Reading") -> str:
    share = f"text is {reading.counts.text_share:.4f} of the targets\n  ({reading.text})"
    if (undone := reading.undone) is None:
        return share
    free = write_perplexity(undone.text_perplexity, ".4g")
    low = write_perplexity(undone.low, ".4g")
    return (
        f"{share};\n  reported {undone.reported:g}: the text has perplexity {free} if padding "
        f"costs nothing,\n  and {low} if padding costs as much as is plausible (docs/protocols.md)"
    )
