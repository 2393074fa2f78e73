"""`init`: a commented study file to start from, with the schema that editors use."""

from pathlib import Path
from typing import Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.completion import complete_presets
from lorastudy.cli.options import AsJson

Start = Annotated[
    str,
    typer.Argument(
        help="Preset (demo, demo-answers, paper, paper-sound), or a folder with your texts.",
        metavar="PRESET|FOLDER",
        autocompletion=complete_presets,
    ),
]
Base = Annotated[
    str, typer.Option("--base", help="With a folder: hub id or folder of the base model.")
]
Column = Annotated[
    str, typer.Option(help="With a folder of tables: the column that holds the text.")
]
WithSchema = Annotated[
    bool, typer.Option("--schema/--no-schema", help="Also write the JSON Schema, for editors.")
]


def init(
    start: Start,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write; default: NAME.yaml.", parser=options.named_path, metavar="PATH"
        ),
    ] = None,
    base_model: Base = "openai-community/gpt2",
    column: Column = "text",
    with_schema: WithSchema = True,
    as_json: AsJson = False,
) -> None:
    """Write a commented study file to start from.

    A folder has files for training, validation and, better, testing, named for example train.txt
    or train-1.jsonl, or folders with such names. With the schema, an editor completes and checks
    the study file.
    """
    from lorastudy.study.init import write_study_file

    written = write_study_file(
        start, out, base_model=base_model, column=column, with_schema=with_schema
    )
    if as_json:
        options.print_json({"file": written.file, "schema": written.schema, "found": written.found})
        return
    for line in written.found:
        print(line)
    print(f"Wrote {written.file}. Edit it, then:  lorastudy check {written.file}")
