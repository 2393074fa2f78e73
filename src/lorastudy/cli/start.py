"""`init` and `schema`: a commented study file to start from, and what editors need to help."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.completion import complete_presets
from lorastudy.cli.options import AsJson
from lorastudy.config.mistakes import nearest
from lorastudy.config.models import Study
from lorastudy.config.study_file import list_presets, load_study, preset_text
from lorastudy.errors import ConfigError
from lorastudy.store.files import write_text

SCHEMA_FILE = "lorastudy.schema.json"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("init")(init)
    app.command("schema")(schema)


def init(
    start: Annotated[
        str,
        typer.Argument(
            help="Preset (demo, paper, paper-sound), or a folder with your texts.",
            metavar="PRESET",
            autocompletion=complete_presets,
        ),
    ],
    *,
    out: Annotated[Path | None, typer.Option(help="File; default PRESET.yaml.")] = None,
    base_model: Annotated[
        str, typer.Option("--base", help="With a folder: hub id or folder of the base model.")
    ] = "openai-community/gpt2",
    column: Annotated[
        str, typer.Option(help="With a folder of tables: the column that holds the text.")
    ] = "text",
    with_schema: Annotated[
        bool,
        typer.Option("--schema/--no-schema", help="Also write the JSON Schema, for editors."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Write a commented study file to start from.

    A folder holds train, validation and, better, test: files such as train.txt or train-1.jsonl,
    or folders of such names. With the schema beside it an editor completes and checks the file.
    """
    folder = Path(start)
    is_preset = start in list_presets()
    if not is_preset and not folder.is_dir():
        raise ConfigError(
            f"{start!r} is no preset ({', '.join(list_presets())}) and no folder with texts"
            f"{nearest(start, list_presets())}."
        )
    path = out or Path(f"{start if is_preset else folder.resolve().name or 'my-study'}.yaml")
    if path.exists():
        raise ConfigError(f"{path} exists already. Give another name with --out.")
    said = ""
    if is_preset:
        text = preset_text(start)
    else:
        text, said = _own_study(folder, path, base_model=base_model, column=column)
    schema_path = path.parent / SCHEMA_FILE
    if with_schema:
        _write_schema(schema_path)
        text = f"# yaml-language-server: $schema={SCHEMA_FILE}\n{text}"
    write_text(path, text)
    if as_json:
        options.print_json({"file": path, "schema": schema_path if with_schema else None})
        return
    print(f"{said}Wrote {path}. Edit it, then:  lorastudy check {path}")


def _own_study(folder: Path, path: Path, *, base_model: str, column: str) -> tuple[str, str]:
    """The text of a study file for `folder`, and what was found there."""
    from lorastudy.study.own_data import find_parts, make_study_text

    parts = find_parts(folder, column=column)
    text = make_study_text(folder, parts, path, base_model=base_model, column=column)
    load_study(text, str(path))
    found = [
        f"{name}: {part.n_documents:,} documents in {part.pattern}\n"
        for name, part in parts.items()
    ]
    return text, "".join(found)


def _write_schema(path: Path) -> None:
    """Bring the schema at `path` up to date; a file that is none is left alone.

    Raises:
        ConfigError: `path` is something else.
    """
    if path.exists() and '"title": "Study"' not in path.read_text(encoding="utf-8"):
        raise ConfigError(
            f"{path} exists and is no schema of study files. Move it, or add --no-schema."
        )
    write_text(path, _schema_text())


def _schema_text() -> str:
    return json.dumps(Study.model_json_schema(), indent=1) + "\n"


def schema() -> None:
    """Print the JSON Schema of study files, for editors that complete and check YAML.

    `lorastudy init` writes it beside the study file, whose first line names it for editors:
    # yaml-language-server: $schema=lorastudy.schema.json
    """
    print(_schema_text(), end="")
