"""What a name in a command or a Python call means: a model, or a benchmark.

A model is a folder, a hub id or `demo`; a benchmark is one of the presets', or a file, a folder or
a pattern of files with texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from pydantic import ValidationError

from lorastudy.config.mistakes import describe_mistakes, nearest
from lorastudy.config.models import BaseModelRef, Benchmark
from lorastudy.config.study_file import list_presets, load_study, preset_text
from lorastudy.config.syntax import make_name
from lorastudy.errors import ConfigError, InputError, possible_path

_LONGEST_SHOWN = 60  # characters of a name that cannot be one
_DEMO = "demo"  # the model that comes with this package
_SIGNS_OF_PATHS = "./\\~*?["


def model_reference(model: str) -> BaseModelRef:
    """A folder if there is one of this name, else the builtin model `demo`, else a hub id.

    Raises:
        InputError: It is none of these.
    """
    try:
        if model.strip() and Path(model).is_file():
            raise InputError(
                f"{model} is a file. Give the folder of the model, with config.json and all else."
            )
        if model.strip() and Path(model).is_dir():  # an empty name would be the current folder
            return BaseModelRef(path=str(Path(model).resolve()))
        return BaseModelRef(builtin="demo") if model == _DEMO else BaseModelRef(id=model)
    except (ValidationError, OSError) as error:
        shown = model if len(model) <= _LONGEST_SHOWN else f"{model[:_LONGEST_SHOWN]}..."
        raise InputError(
            f"{shown!r} is neither a folder here nor a hub id such as owner/name. "
            "Give the folder of a model, or its id."
        ) from error


@dataclass(frozen=True, slots=True)
class Answering:
    """How a task is answered and judged, in a command or a call."""

    max_new_tokens: int | None = None  # of generated answers; None: the default
    stop: Sequence[str] | None = None  # texts before which a generated answer ends
    function: str | None = None  # of own-function: module:function or file.py:function


ANSWERING = Answering()


def find_benchmark(
    name: str,
    protocols: Sequence[str],
    *,
    limit: int | None = None,
    sample: int | None = None,
    column: str | None = None,
    sample_by: str | None = None,
    answering: Answering = ANSWERING,
) -> Benchmark:
    """A benchmark of the presets by name, or files of texts, to be scored under `protocols`.

    Args:
        name: Of a benchmark; or a file, a folder with files of one kind, or a glob.
        protocols: At least one.
        limit: Score only the first N documents; None: all.
        sample: Score only N random documents; None: all.
        column: The one that holds the text, in files that have columns; None: `text`.
        sample_by: What one document is in a text file; None: a line.
        answering: How answers are generated and judged, for protocols that do so.

    Raises:
        ConfigError: Neither; or a protocol that does not exist, or files of several kinds.
    """
    if not name.strip():
        raise ConfigError("--benchmark: the name is empty. Give a benchmark or a path.")
    known, path = _known_benchmarks(), possible_path(name, key="--benchmark ")
    if name in known:
        source = known[name].model_dump(exclude_defaults=True)
    elif path.is_dir():
        source = {"name": _name_of(name), "path": _pattern_of(path)}
    elif path.exists() or any(sign in name for sign in _SIGNS_OF_PATHS):
        source = {"name": _name_of(name), "path": name}
    else:
        raise ConfigError(
            f"--benchmark {name}: not one of {', '.join(known)}{nearest(name, known)}, and not a "
            "file or folder with texts. Give a path such as texts/*.txt, or one of these names."
        )
    chosen = _given(limit=limit, sample=sample, column=column, sample_by=sample_by)
    generation = _given(
        max_new_tokens=answering.max_new_tokens, stop=tuple(answering.stop or ()) or None
    )
    judged = _given(function=answering.function, generation=generation or None)
    return _checked_benchmark({**source, **chosen, **judged, "protocols": tuple(protocols)})


def _given(**values: object) -> dict[str, object]:
    """The values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def _name_of(path: str) -> str:
    """A name for the benchmark of a path or glob, from its last part that has letters."""
    for part in reversed(Path(path).resolve().parts):
        stem = part.partition(".")[0]
        if name := make_name(stem):
            return name
    return "texts"


def _pattern_of(folder: Path) -> str:
    """A glob for the files of `folder`, which are all of one kind.

    Raises:
        ConfigError: It has files of several kinds, or none.
    """
    files = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    endings = sorted({path.suffix for path in files})
    if not files:
        raise ConfigError(f"--benchmark {folder}: this folder has no file. Give one with texts.")
    if len(endings) != 1:
        found = f"files ending in {', '.join(endings)}"
        raise ConfigError(
            f"--benchmark {folder}: this folder has {found}, so it is not clear which of them are "
            f"meant. Name them with a pattern such as '{folder}/*.txt'."
        )
    return f"{escape(str(folder))}/*{endings[0]}"


def _known_benchmarks() -> dict[str, Benchmark]:
    studies = [load_study(preset_text(name), f"preset {name}") for name in list_presets()]
    return {b.name: b for study in reversed(studies) for b in study.benchmarks}


def _checked_benchmark(source: dict[str, object]) -> Benchmark:
    try:
        return Benchmark.model_validate(source)
    except ValidationError as error:
        lines = "; ".join(describe_mistakes(error, source))
        raise ConfigError(f"--benchmark or --protocol: {lines}.") from error
