"""`audit`: what a perplexity over padded rows is made of, of a model or of a printed number."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.models import find_benchmark, model_reference
from lorastudy.cli.options import AsJson, Device, Mirror, Offline
from lorastudy.errors import ConfigError
from lorastudy.protocols import protocol_of_rows
from lorastudy.store.places import Places, default_cache

if TYPE_CHECKING:
    from lorastudy.config.models import Benchmark
    from lorastudy.run.audit_model import Audit

_PADDED = protocol_of_rows(scored_padding=True).pattern
_TEXT = protocol_of_rows(scored_padding=False).pattern


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("audit")(audit)


def audit(
    model: Annotated[
        str | None, typer.Argument(help="Model folder or hub id; not with --tokenizer.")
    ] = None,
    *,
    benchmark: Annotated[
        str, typer.Option(help="wikitext-2, lambada, imdb, another preset's, or a text file.")
    ] = "",
    length: Annotated[int, typer.Option(min=2, help="Tokens of a padded row.")] = 350,
    reported: Annotated[
        float | None, typer.Option(help="A perplexity from elsewhere, to be taken apart.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Hub id or folder, in place of a model; needs --reported.")
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(help=f"Besides {_PADDED}; {_TEXT} by default (repeatable)."),
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="PEFT folder for the model.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First documents only.")] = None,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Split the loss over padded rows into text and padding; or undo a reported perplexity."""
    options.check_device(device)
    options.check_precision(precision)
    options.check_mirror(mirror)
    if not benchmark:
        raise ConfigError("--benchmark: audit needs one, such as wikitext-2 or a text file.")
    protocols = tuple(dict.fromkeys((_PADDED, *(protocol or (_TEXT,)))))
    source = find_benchmark(benchmark, protocols, limit)
    places = Places(Path.cwd(), mirror, offline, default_cache())
    if model is None:
        if protocol or adapter:
            raise ConfigError("--protocol and --adapter need a MODEL to score; leave them out.")
        found = _audit_report(reported, tokenizer, source, places, length)
    else:
        if tokenizer is not None:
            raise ConfigError("--tokenizer: a MODEL brings its own tokenizer; leave it out.")
        from lorastudy.run.audit_model import audit_model

        found = audit_model(
            model_reference(model),
            adapter,
            source,
            places,
            length=length,
            reported=reported,
            device=device,
            precision=precision,
        )
    if as_json:
        options.print_json(_as_json(found, model))
    else:
        print(_as_text(found))


def _audit_report(
    reported: float | None, tokenizer: str | None, source: "Benchmark", places: Places, length: int
) -> "Audit":
    if reported is None or tokenizer is None:
        raise ConfigError(
            "audit needs a MODEL to score, or --reported with --tokenizer to take a printed "
            "perplexity apart."
        )
    from lorastudy.run.audit_model import audit_report

    return audit_report(reported, model_reference(tokenizer), source, places, length=length)


def _as_json(found: "Audit", model: str | None) -> dict[str, object]:
    counts, nats, undone = found.counts, found.class_nats, found.undone
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
        "undone": undone
        and {
            "reported": undone.reported,
            "text_perplexity": undone.text_perplexity,
            "low": undone.low,
            "high": undone.high,
        },
    }


def _as_text(found: "Audit") -> str:
    counts, nats, undone = found.counts, found.class_nats, found.undone
    lines = [
        f"{found.benchmark}: {counts.n_rows:,} rows padded to {found.length} tokens, "
        f"{counts.total:,} targets",
        f"text is {counts.text_share:.4f} of the targets",
        "",
        f"  {'class of target':<16}{'targets':>12}{'share':>9}{'nats a target':>16}",
    ]
    for name, n_targets in counts.by_class:
        loss = nats.get(name)
        shown = f"{loss:>16.4f}" if loss is not None else f"{'–':>16}"
        lines.append(f"  {name:<16}{n_targets:>12,}{n_targets / counts.total:>9.4f}{shown}")
    if found.records:
        lines += ["", f"  perplexity of the text in these rows    {found.text_perplexity:.4f}"]
        lines += [
            f"  perplexity under {record.protocol + f' v{record.protocol_version}':<22} "
            f"{record.perplexity:.4f}" + ("   (padding scored)" if record.classes else "")
            for record in found.records
        ]
    if undone is not None:
        lines += [
            "",
            f"reported {undone.reported:g}: the text has perplexity {undone.text_perplexity:.4g} "
            f"if padding costs nothing,\nand {undone.low:.4g} if padding costs as much as is "
            "plausible (docs/protocols.md).",
        ]
    return "\n".join(lines)
