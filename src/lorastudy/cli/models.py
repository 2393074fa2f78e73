"""`evaluate`: score any model, without a study."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.options import AsJson, Device, Mirror, Offline, Reference
from lorastudy.config.mistakes import nearest
from lorastudy.config.models import BaseModelRef, Benchmark
from lorastudy.config.study_file import list_presets, load_study, preset_text
from lorastudy.errors import ConfigError
from lorastudy.store.places import Places, default_cache
from lorastudy.store.records import EvaluationRecord

_FILES = (".txt", ".jsonl", ".json", ".parquet", ".csv")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("evaluate")(evaluate)


def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder or hub id.", metavar="MODEL")],
    *,
    benchmark: Annotated[
        str, typer.Option(help="wikitext-2, lambada, imdb, another preset's, or a text file.")
    ],
    protocol: Annotated[
        list[str], typer.Option(help="rows-text, lm-eval-wikitext, ... (repeatable).")
    ],
    adapter: Annotated[
        Path | None, typer.Option(help="PEFT folder, such as a run's best/.")
    ] = None,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a row, for row protocols.")] = 350,
    limit: Annotated[int | None, typer.Option(min=1, help="First documents only.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=2, help="Random documents only; prints the standard error.")
    ] = None,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    is_reference: Reference = False,
    as_json: AsJson = False,
) -> None:
    """Score a model on a benchmark under one or more protocols."""
    options.check_device(device)
    options.check_mirror(mirror)
    options.check_precision(precision)
    places = Places(Path.cwd(), mirror, offline, default_cache())
    source = find_benchmark(benchmark, tuple(protocol), limit, sample)
    from lorastudy.run.evaluate_model import evaluate_model

    records = evaluate_model(
        model_reference(model),
        adapter,
        source,
        places,
        length=length,
        device=device,
        precision=precision,
        implementation="reference" if is_reference else "fast",
    )
    if as_json:
        evaluations = [json.loads(record.model_dump_json()) for record in records]
        options.print_json({"model": model, "evaluations": evaluations})
        return
    for record in records:
        print(_line(record))


def _line(record: EvaluationRecord) -> str:
    per = "document" if record.averaged_over == "documents" else "token"
    error = f" ± {record.standard_error:.6f}" if record.standard_error is not None else ""
    of = f", a random part of {record.n_population:,}" if record.n_population else ""
    cut = f", {record.n_documents_cut:,} of them cut" if record.n_documents_cut else ""
    return (
        f"{record.benchmark}  {record.protocol} v{record.protocol_version}  "
        f"perplexity {record.perplexity:.4f}  "
        f"cross-entropy {record.cross_entropy:.6f}{error} nats/{per}  "
        f"{_units(record)}({record.n_tokens:,} tokens, {record.n_documents:,} documents{of}{cut}, "
        f"{record.seconds:.1f} s)"
    )


def _units(record: EvaluationRecord) -> str:
    """What is defined besides, each with two spaces after it."""
    found = (
        ("accuracy", record.accuracy),
        ("word perplexity", record.word_perplexity),
        ("byte perplexity", record.byte_perplexity),
        ("bits per byte", record.bits_per_byte),
    )
    return "".join(f"{name} {value:.4f}  " for name, value in found if value is not None)


def model_reference(model: str) -> BaseModelRef:
    """A folder if there is one of this name, else a hub id."""
    if Path(model).is_dir():
        return BaseModelRef(path=str(Path(model).resolve()))
    return BaseModelRef(id=model)


def find_benchmark(
    name: str, protocols: tuple[str, ...], limit: int | None, sample: int | None = None
) -> Benchmark:
    """A benchmark of the presets by name, or a file.

    Raises:
        ConfigError: Neither; or a protocol that does not exist.
    """
    known = _known_benchmarks()
    source: dict[str, object]
    if name in known:
        source = known[name].model_dump(exclude_defaults=True)
    elif Path(name).suffix in _FILES:
        source = {"name": Path(name).stem, "path": name}
    else:
        raise ConfigError(
            f"--benchmark {name}: not one of {', '.join(known)}{nearest(name, known)}, and not a "
            f"file ending in {', '.join(_FILES)}."
        )
    source["protocols"] = protocols
    if limit is not None:
        source["limit"] = limit
    if sample is not None:
        source["sample"] = sample
    return _checked_benchmark(source)


def _known_benchmarks() -> dict[str, Benchmark]:
    studies = [load_study(preset_text(name), f"preset {name}") for name in list_presets()]
    return {b.name: b for study in reversed(studies) for b in study.benchmarks}


def _checked_benchmark(source: dict[str, object]) -> Benchmark:
    from pydantic import ValidationError

    try:
        return Benchmark.model_validate(source)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"--benchmark or --protocol: {lines}.") from error
