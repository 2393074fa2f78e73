"""A study file for a folder of texts: which of its files are trained on, and which are held out.

This is decided only by the files' names. Without a file for validation, a random part of the
training documents is held out, and the study file says so.
"""

import json
import os
import string
from collections.abc import Mapping
from glob import escape
from importlib.resources import files
from pathlib import Path

from lorastudy.config.models import BaseModelRef
from lorastudy.config.syntax import make_name
from lorastudy.config.yaml_text import write_value
from lorastudy.data.examples import Example
from lorastudy.data.files import SampleBy, read_rows
from lorastudy.data.formats import split_ending
from lorastudy.data.paths import find_files
from lorastudy.errors import ConfigError, InputError, show_names
from lorastudy.protocols import protocol_of_rows
from lorastudy.study.own_rows import TABLES, Part, RowChoice

_HELD_OUT = """\
  # There is no validation file, so this share of the training documents is held out. seed: 1 in the
  # same braces chooses others. Documents with the same text are on one side.
"""
_NO_BENCHMARK = """\
# There is no test file, so nothing is scored after training, and arms cannot be compared. Add one:
#   - {name: test, path: $path, protocols: [$protocols]}
benchmarks: []"""
SUFFIXES = (".txt", ".md", *TABLES)
_PARTS = {
    "train": ("train",),
    "validation": ("valid", "val", "dev", "held", "eval"),
    "test": ("test",),
}


def find_parts(folder: Path, *, column: str) -> dict[str, Part]:
    """The files to train on and, if there are any, to validate and to test on.

    Raises:
        ConfigError: The names do not say which files are which, or files other than those to test
            on hold questions with choices.
        InputError: A file cannot be read as text; all of them are read.
    """
    found = {name: _find_part(folder, name, column) for name in _PARTS}
    parts = {name: part for name, part in found.items() if part is not None}
    is_unread = "validation" not in parts and bool(_list_named(folder, "validation"))
    if "train" not in parts or is_unread:
        missing = [name for name in ("train", "validation") if name not in parts]
        raise ConfigError(_cannot_tell(folder, missing))
    asked = [part.pattern for name, part in parts.items() if name != "test" and part.has_choices]
    if asked:
        raise ConfigError(
            f"{asked[0]} holds questions with choices, which are for benchmarks. Name the file "
            "test, or write its rows with prompt and completion."
        )
    return parts


def make_study_text(
    folder: Path,
    parts: Mapping[str, Part],
    out: Path,
    chosen: RowChoice,
    *,
    base_model: BaseModelRef,
    column: str,
) -> str:
    """The commented study file that compares arms on `parts` of `folder`.

    Args:
        folder: Named in the file.
        parts: What `find_parts` found.
        out: Where the study file will be, since its paths start there.
        chosen: How rows are cut.
        base_model: What every arm starts from.
        column: The column with the text, in files that have columns.
    """
    base = out.resolve().parent
    sources = {name: _source(part, base, column, chosen.sample_by) for name, part in parts.items()}
    n_rows = max(n for n in (32, 16, 8, 4, 2, 1) if n <= max(1, chosen.n_rows))
    if chosen.held_out is not None:
        sources["validation"] = [f"from_train: {chosen.held_out:g}"]
    length, cut = chosen.rows.length, chosen.rows.cut
    text = (files("lorastudy") / "presets" / "own-data.template").read_text("utf-8")
    return string.Template(text).substitute(
        folder=_on_one_line(folder.resolve().name) or "this folder",
        name=write_value(make_name(folder.resolve().name) or "my-study"),
        base_model=_base_model(base_model, base),
        train="{" + ", ".join(sources["train"]) + "}",
        validation="{" + ", ".join(sources["validation"]) + "}",
        held_out=_HELD_OUT if chosen.held_out is not None else "",
        reason=f"  # {chosen.reason}\n" if chosen.reason else "",
        cut=cut,
        length=length,
        rows_per_step=n_rows,
        micro_batch=min(8, n_rows),
        benchmarks=_write_benchmark(parts, sources, cut, length),
    )


def _write_benchmark(
    parts: Mapping[str, Part], sources: Mapping[str, list[str]], cut: str, length: int
) -> str:
    """The benchmark: the test files, or the validation files, or none."""
    tested = "test" if "test" in parts else "validation"
    if tested not in parts:
        named = f"test{parts['train'].files[0].suffix}"
        protocols = _choose_protocols(parts["train"], cut, length)
        return string.Template(_NO_BENCHMARK).substitute(path=named, protocols=protocols)
    note = "" if "test" in parts else "  # it chose the epoch too: test files would be more honest"
    protocols = _choose_protocols(parts[tested], cut, length)
    lines = (f"  - name: {tested}{note}", *(f"    {line}" for line in sources[tested]))
    return "\n".join(("benchmarks:", *lines, f"    protocols: [{protocols}]"))


def _choose_protocols(tested: Part, cut: str, length: int) -> str:
    if tested.has_choices:
        return "choice"
    if tested.has_answers:
        return protocol_of_rows(has_answers=True).pattern
    return "rows-text, document" if cut == "lines" else f"document, blocks-{length}"


def _find_part(folder: Path, name: str, column: str) -> Part | None:
    """The files whose name, or whose folder's name, begins with a word for this part."""
    named = _list_named(folder, name)
    if any(path.is_dir() for path in named) and len(named) > 1:
        raise ConfigError(
            f"{folder}: {', '.join(path.name for path in named)} all look like {name}. "
            "Keep one of them, or write the study file from `lorastudy init demo`."
        )
    is_folder = bool(named) and named[0].is_dir()
    texts = [p for p in (sorted(named[0].iterdir()) if is_folder else named) if _is_text(p)]
    if not texts:
        return None
    word = next((word for word in _PARTS[name] if texts[0].name.lower().startswith(word)), "")
    pattern = _pattern_of(texts, "" if is_folder else texts[0].name[: len(word)])
    rows = [row for path in texts for row in read_rows(path, column=column, sample_by="line")]
    examples = [row for row in rows if isinstance(row, Example)]
    has_answers, has_choices = bool(examples), any(row.choices for row in examples)
    if not has_answers and not any(isinstance(row, str) and row.strip() for row in rows):
        raise InputError(f"{pattern}: there is no text in it. Put the {name} texts there.")
    return Part(pattern, tuple(texts), has_answers, has_choices)


def _list_named(folder: Path, name: str) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.name.lower().startswith(_PARTS[name])]


def _pattern_of(texts: list[Path], beginning: str) -> str:
    """A path or glob that matches `texts`, whose names begin with a word, and nothing else."""
    if len(texts) == 1:
        return str(texts[0])
    pattern = f"{escape(str(texts[0].parent))}/{escape(beginning)}*{texts[0].suffix}"
    if [path.resolve() for path in find_files(pattern, Path())] != [p.resolve() for p in texts]:
        raise ConfigError(
            f"{texts[0].parent}: no single pattern matches {', '.join(p.name for p in texts)} and "
            "nothing else. Put them into a folder of their own, all with the same ending."
        )
    return pattern


def _is_text(path: Path) -> bool:
    is_hidden = path.name.startswith(".")  # macOS puts such files beside others
    return path.is_file() and not is_hidden and split_ending(path)[0] in SUFFIXES


def _cannot_tell(folder: Path, missing: list[str]) -> str:
    there = [path.name for path in sorted(folder.iterdir())]
    shown = show_names(there, most=8) if there else "nothing"
    unread = [path for name in missing for path in _list_named(folder, name)]
    if unread:
        paths = ", ".join(map(str, unread))
        return (
            f"{paths}: there is no file of texts. Files have to lie in the folder itself, and "
            f"their names have to end with one of {', '.join(SUFFIXES)}."
        )
    return (
        f"{folder}: no file or folder named {' or '.join(missing)}; it holds {shown}. "
        "You have to say which texts are trained on and which are held out: name them train, "
        "validation and, better still, test, such as train.txt or train/*.txt "
        f"({', '.join(SUFFIXES)}). Without validation files, a random part of train is held out."
    )


def _source(part: Part, base: Path, column: str, sample_by: SampleBy) -> list[str]:
    """`key: value` lines of a source, with its path as seen from `base`."""
    lines = [f"path: {_path_from(base, part.pattern)}"]
    if column != "text" and not part.is_text:
        lines.append(f"column: {json.dumps(column, ensure_ascii=False)}")
    if sample_by != "line" and part.is_text:
        lines.append(f"sample_by: {sample_by}")
    return lines


def _base_model(named: BaseModelRef, base: Path) -> str:
    if named.path is not None:
        return f"{{path: {_path_from(base, named.path)}}}"
    key, value = ("builtin", named.builtin) if named.builtin else ("id", named.id)
    return f"{{{key}: {json.dumps(value)}}}"


def _path_from(base: Path, path: str) -> str:
    """`path` as a study file in `base` names it, in quotes; an absolute one stays as it is."""
    seen = path if Path(path).is_absolute() else os.path.relpath(Path.cwd() / path, base)
    return json.dumps(seen, ensure_ascii=False)


def _on_one_line(text: str) -> str:
    """`text` for a comment, which a line break would end."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
