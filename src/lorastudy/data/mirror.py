"""Find a data set's files in a folder that is laid out like the hub, without any network.

    MIRROR/<owner>/<name>/README.md     YAML head: configs -> data_files -> split, path
    MIRROR/<owner>/<name>/<path>        .parquet, .jsonl, .csv, .txt

This module is used instead of `datasets`, which takes a second to import, copies every split of a
configuration into a cache, and does not say which file is damaged.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict

from lorastudy.errors import InputError, first_line, reading_user_files, show_names

# Keys of a configuration that change nothing of what is read here. Any other one is for `datasets`,
# which reads files with it: `sep`, `quoting`, `sample_by`, `field`, `skiprows`, `data_dir`, ...
_SAYS_NOTHING = {"description", "version", "features", "drop_labels", "drop_metadata"}


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _with_split(value: object) -> object:
    """A path without a split means the train split, as on the hub."""
    return {"split": "train", "path": value} if isinstance(value, str) else value


class _SplitFiles(BaseModel):
    split: str
    path: Annotated[list[str], BeforeValidator(_as_list)]


class _Config(BaseModel):
    model_config = ConfigDict(extra="allow")

    config_name: str = "default"
    default: bool = False
    data_files: Annotated[
        list[Annotated[_SplitFiles, BeforeValidator(_with_split)]], BeforeValidator(_as_list)
    ]


class _Card(BaseModel):
    configs: list[_Config]


@dataclass(frozen=True, slots=True)
class MirroredSplit:
    """The files of one split, in the order of the card."""

    config: str
    files: tuple[Path, ...]


def find_split(folder: Path, config: str | None, split: str) -> MirroredSplit:
    """The files of `split` in the data set folder of a mirror.

    Args:
        folder: MIRROR/<owner>/<name>.
        config: A name, or None for the default configuration, as the hub chooses it.
        split: A name; slices such as train[:10%] are not understood.

    Raises:
        InputError: The card, configuration, split or one of the files is missing.
    """
    card = _read_card(folder)
    chosen = _choose_config(card, config, folder)
    _refuse_settings(chosen, folder)
    patterns = [entry for entry in chosen.data_files if entry.split == split]
    if not patterns:
        raise InputError(
            f"{folder}, config {chosen.config_name!r}: no split {split!r} in this mirror; "
            f"it has {show_names(entry.split for entry in chosen.data_files)}. "
            "Choose one of these, or leave out --mirror to look on the hub."
        )
    files = [path for entry in patterns for path in _expand(folder, entry.path)]
    return MirroredSplit(chosen.config_name, tuple(files))


def _read_card(folder: Path) -> _Card:
    path = folder / "README.md"
    try:
        head = path.read_text(encoding="utf-8").split("---\n")[1]
        return _Card.model_validate(yaml.safe_load(head))
    except Exception as error:  # dates, tags and depth raise many kinds in a YAML reader
        raise InputError(
            f"{path} does not say which files hold which split ({first_line(error)}). "
            "Copy the data set's README.md from the hub, with `configs` and `data_files` in its "
            "YAML head."
        ) from error


def _choose_config(card: _Card, name: str | None, folder: Path) -> _Config:
    if name is not None:
        candidates = [entry for entry in card.configs if entry.config_name == name]
    elif len(card.configs) == 1:
        candidates = card.configs
    else:
        candidates = [entry for entry in card.configs if entry.default] or [
            entry for entry in card.configs if entry.config_name == "default"
        ]
    if not candidates:
        problem = "no default config" if name is None else f"no config {name!r}"
        names = show_names(entry.config_name for entry in card.configs)
        raise InputError(f"{folder}: {problem}; it has {names}. Set `config` to one of these.")
    return candidates[0]


def _refuse_settings(chosen: _Config, folder: Path) -> None:
    """Check that the card does not say how files are read, since it would not be followed."""
    extra = chosen.model_extra or {}
    found = [key for key, value in extra.items() if value is not None and key not in _SAYS_NOTHING]
    if found:
        raise InputError(
            f"{folder}/README.md, config {chosen.config_name!r}: {show_names(found, most=3)} would "
            "change how the files are read, and is not followed here. Leave out --mirror to read "
            "them with `datasets`, or write them as plain .parquet or .jsonl files and remove it."
        )


def _expand(folder: Path, patterns: Iterable[str]) -> list[Path]:
    files: list[Path] = []
    for pattern in patterns:
        parts = PurePosixPath(pattern)
        if parts.is_absolute() or ".." in parts.parts:
            raise InputError(f"{folder}/README.md: path {pattern!r} leads outside the data set.")
        advice = "Correct the path in README.md."
        with reading_user_files(f"{folder}/README.md: path {pattern[:60]!r} is not one", advice):
            found = sorted(path for path in folder.glob(pattern) if _is_data(path, folder))
        if not found:
            raise InputError(
                f"{folder}: no file matches {pattern!r}, which README.md lists. "
                "Complete the mirror, or leave out --mirror to use the hub."
            )
        files += found
    return files


def _is_data(path: Path, folder: Path) -> bool:
    """Whether `path` is a file that is not hidden, and in no hidden folder of the data set."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden
