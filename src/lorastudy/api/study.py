"""A study as Python programs hold it: its settings, and where its inputs are looked for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lorastudy.config import models
from lorastudy.config.study_file import make_study
from lorastudy.errors import ConfigError
from lorastudy.store.folders import StudyFolder
from lorastudy.study.open import OpenedStudy, continue_study, open_study, places_here

StudyError = ConfigError  # the public name of mistakes in a study: all of them in one message


@dataclass(frozen=True, init=False)
class Study:
    """What is compared. `study.name`, `study.arms` and so on are the keys of a study file.

    `Study(name=..., base_model=..., data=..., training=..., seeds=..., arms=..., benchmarks=...)`
    takes the same keys and values as a study file, as dictionaries and lists. Relative paths in
    it start from the current folder.

    Raises:
        StudyError: Keys or values with mistakes; the message names all of them.
    """

    settings: models.Study
    base: Path = field(compare=False)  # folder that relative paths start from
    folder: Path | None = None  # of the study if it was started; None: it was not

    def __init__(self, **keys: object) -> None:
        self._fill(make_study(keys, "the study"), Path.cwd(), None)

    @classmethod
    def _of(cls, settings: models.Study, base: Path, folder: Path | None) -> "Study":
        study = cls.__new__(cls)
        study._fill(settings, base, folder)
        return study

    def _fill(self, settings: models.Study, base: Path, folder: Path | None) -> None:
        for name, value in (("settings", settings), ("base", base), ("folder", folder)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "settings":
            raise AttributeError(name)
        return getattr(self.settings, name)


def load_study(study: str | Path, changes: Mapping[str, object] | None = None) -> Study:
    """Read a preset such as "demo", a YAML file, or the folder of a study that was started.

    Args:
        study: Name of the preset, or a path.
        changes: Values that replace those of the file, by key path: {"training.epochs": 1}.

    Raises:
        StudyError: There is no such study, or it has mistakes; the message names all of them.
    """
    overrides = [f"{key}={json.dumps(value)}" for key, value in (changes or {}).items()]
    opened = open_study(str(study), overrides=overrides)
    is_started = opened.folder.path == Path(study)
    folder = opened.folder.path if is_started else None
    return Study._of(opened.study, opened.places.base, folder)


def open_for(
    study: Study | str | Path,
    *,
    out: str | Path | None = None,
    mirror: str | Path | None = None,
    offline: bool = False,
) -> OpenedStudy:
    """The study with its folder and the places of its inputs.

    Raises:
        StudyError: There is no such study, or its folder cannot be `out`.
    """
    to = None if out is None else Path(out)
    hub = None if mirror is None else Path(mirror)
    if not isinstance(study, Study):
        return open_study(str(study), out=to, mirror=hub, offline=offline)
    if study.folder is not None:
        return open_study(str(study.folder), out=to, mirror=hub, offline=offline)
    places = replace(places_here(hub, offline=offline), base=study.base)
    folder = StudyFolder(to or Path("studies") / study.settings.name)
    return continue_study(study.settings, folder, places)
