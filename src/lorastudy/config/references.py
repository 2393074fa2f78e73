"""What a name in a command or a Python call means: a model, or a benchmark.

A model is a folder or a hub id; a benchmark is one of the presets' or a file of texts.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from lorastudy.config.mistakes import nearest
from lorastudy.config.models import BaseModelRef, Benchmark
from lorastudy.config.study_file import list_presets, load_study, preset_text
from lorastudy.errors import ConfigError, InputError

_LONGEST_SHOWN = 60  # characters of a name that cannot be one
_FILES = (".txt", ".jsonl", ".json", ".parquet", ".csv")


def model_reference(model: str) -> BaseModelRef:
    """A folder if there is one of this name, else a hub id.

    Raises:
        InputError: It is neither.
    """
    try:
        if Path(model).is_dir():
            return BaseModelRef(path=str(Path(model).resolve()))
        return BaseModelRef(id=model)
    except (ValidationError, OSError) as error:
        shown = model if len(model) <= _LONGEST_SHOWN else f"{model[:_LONGEST_SHOWN]}..."
        raise InputError(
            f"{shown!r} is neither a folder here nor a hub id such as owner/name. "
            "Give the folder of a model, or its id."
        ) from error


def find_benchmark(
    name: str, protocols: Sequence[str], *, limit: int | None = None, sample: int | None = None
) -> Benchmark:
    """A benchmark of the presets by name, or a file, to be scored under `protocols`.

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
    source["protocols"] = tuple(protocols)
    if limit is not None:
        source["limit"] = limit
    if sample is not None:
        source["sample"] = sample
    return _checked_benchmark(source)


def _known_benchmarks() -> dict[str, Benchmark]:
    studies = [load_study(preset_text(name), f"preset {name}") for name in list_presets()]
    return {b.name: b for study in reversed(studies) for b in study.benchmarks}


def _checked_benchmark(source: dict[str, object]) -> Benchmark:
    try:
        return Benchmark.model_validate(source)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"--benchmark or --protocol: {lines}.") from error
