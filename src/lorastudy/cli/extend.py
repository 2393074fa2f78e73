"""`extend`: add arms or seeds to a study."""

from pathlib import Path
from typing import Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.options import AsJson, StudyDir
from lorastudy.errors import ConfigError
from lorastudy.store.collect import read_study
from lorastudy.store.folders import StudyFolder
from lorastudy.units import write_count


def extend(
    folder: StudyDir,
    arm: Annotated[
        list[Path] | None,
        typer.Option(help="YAML file with one arm or a list of arms (repeatable)."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=0, help="Number of seeds to add.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Add arms or seeds to a study; `lorastudy run DIR` then executes only the new runs."""
    from lorastudy.study.extend import extend_folder

    texts = [(str(path), _read_text(path)) for path in arm or []]
    added = extend_folder(StudyFolder(folder), texts, n_seeds=seeds)
    if as_json:
        options.print_json({"added": added})
    else:
        study = read_study(StudyFolder(folder))
        if waiting := [arm.name for arm in study.arms if not study.is_planned(arm)]:
            print(f"`run` first plans what the budget means for {', '.join(waiting)}.")
        print(f"Added {write_count(len(added), 'run')}. Next:  lorastudy run {folder}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--arm {path}: {error}. Give a YAML file with an arm.") from error
