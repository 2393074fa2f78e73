"""Write a commented study file to start from: a preset's, or one for a folder of texts."""

import re
from dataclasses import dataclass
from pathlib import Path

from lorastudy.config.mistakes import nearest
from lorastudy.config.models import BaseModelRef
from lorastudy.config.references import model_reference
from lorastudy.config.study_file import list_presets, load_study, preset_text, schema_text
from lorastudy.config.syntax import make_name
from lorastudy.config.yaml_text import write_value
from lorastudy.errors import ConfigError, possible_path
from lorastudy.store.files import refuse_unwritable, write_text
from lorastudy.units import write_portion

SCHEMA_FILE = "lorastudy.schema.json"


@dataclass(frozen=True, slots=True)
class WrittenStudy:
    """What was written, and what was found in a folder of texts."""

    file: Path
    schema: Path | None  # None: not asked for
    found: tuple[str, ...]  # lines about own data: its parts, and how they are cut


def write_study_file(
    start: str, out: Path | None, *, base_model: str, column: str, with_schema: bool
) -> WrittenStudy:
    """Write the study file of a preset, or one that compares arms on a folder's texts.

    Args:
        start: Name of a preset, or a folder with train, validation and, better, test files.
        out: The new file, after which a preset is named; `start`.yaml by default.
        base_model: With a folder: hub id or folder of the base model.
        column: With a folder of tables: the column that holds the text.
        with_schema: Also write the JSON Schema beside it, for editors.

    Raises:
        ConfigError: `start` is neither of the two, or a file would be overwritten.
        StorageError: The file cannot be written.
    """
    folder = possible_path(start)
    is_preset = start in list_presets()
    if not is_preset and not folder.is_dir():
        raise ConfigError(
            f"{start!r} is neither a preset ({', '.join(list_presets())}) nor a folder with texts"
            f"{nearest(start, list_presets())}."
        )
    path = out or Path(f"{start if is_preset else folder.resolve().name or 'my-study'}.yaml")
    if possible_path(path, key="--out ").exists():
        raise ConfigError(f"{path} exists already. Give another name with --out.")
    refuse_unwritable(path, is_folder=False)
    text, found = (
        (_named_after(path, start), ())
        if is_preset
        else _own_study(folder, path, base_model=base_model, column=column)
    )
    schema = path.parent / SCHEMA_FILE if with_schema else None
    if schema is not None:
        _write_schema(schema)
        text = f"# yaml-language-server: $schema={SCHEMA_FILE}\n{text}"
    write_text(path, text)
    return WrittenStudy(path, schema, found)


def _named_after(path: Path, preset: str) -> str:
    """The text of `preset` with the file's name, so that its folder is not that of the preset."""
    name = make_name(path.stem) or preset
    return re.sub(r"(?m)^name: .*$", f"name: {write_value(name)}", preset_text(preset), count=1)


def _own_study(
    folder: Path, path: Path, *, base_model: str, column: str
) -> tuple[str, tuple[str, ...]]:
    """The text of a study file for `folder`, and what was found there."""
    from lorastudy.study.own_data import find_parts, make_study_text  # slow: reads every format
    from lorastudy.study.own_rows import choose_rows, make_counter

    named = model_reference(base_model)
    if named.path is not None:  # as it was given, so that the study file can name it in this way
        named = BaseModelRef(path=base_model)
    parts = find_parts(folder, column=column)
    cut = {name: p for name, p in parts.items() if not p.has_choices}
    counter = make_counter(cut, named, column)
    chosen = choose_rows(cut, counter)
    text = make_study_text(folder, parts, path, chosen, base_model=named, column=column)
    load_study(text, str(path))
    lines = [
        f"{name}: {counter.describe(counts)} ({parts[name].pattern})"
        for name, counts in chosen.counts.items()
    ]
    of_choices = [name for name in parts if name not in cut]
    lines += [f"{name}: questions with choices ({parts[name].pattern})" for name in of_choices]
    held_out, path_of_train = chosen.held_out, parts["train"].pattern
    notes = [f"Chose {chosen.reason}." if chosen.reason else "", counter.note]
    if held_out is not None:
        lines.append(
            f"validation: {write_portion(held_out)} of the documents of {path_of_train}, chosen by "
            "seed 0 and not trained on, since no file is named validation"
        )
    if not {"validation", "test"} & set(parts):
        notes.append(
            "No file is named test either, so the study has no benchmark, and its arms cannot be "
            "compared. Add a test file under benchmarks."
        )
    return text, tuple(line for line in (*lines, *notes) if line)


def _write_schema(path: Path) -> None:
    """Bring the schema at `path` up to date; any other file is not touched.

    Raises:
        ConfigError: `path` is something else.
    """
    is_ours = path.is_file() and b'"title": "Study"' in path.read_bytes()
    if path.exists() and not is_ours:
        raise ConfigError(
            f"{path} exists and is not a schema of study files. Move it, or add --no-schema."
        )
    write_text(path, schema_text())
