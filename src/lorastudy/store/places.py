"""Where inputs are looked up; the same for every run of a study."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lorastudy.errors import ConfigError

Kind = Literal["models", "datasets"]


@dataclass(frozen=True, slots=True)
class Places:
    """Folders that a study reads from, and its cache."""

    base: Path  # relative paths of the study file start here
    mirror: Path | None = None  # laid out like the hub, searched first
    offline: bool = False  # never ask the hub
    cache: Path = Path()  # tokenised corpora; see default_cache
    # commits that a started study is pinned to, by `<kind>/<hub id>@<branch or tag>`
    revisions: Mapping[str, str] = field(default_factory=dict)

    def pin(self, kind: Kind, identifier: str, revision: str) -> str:
        """The commit that `revision` of a hub id stands for, or itself if that is not known."""
        return self.revisions.get(name_revision(kind, identifier, revision), revision)


def name_revision(kind: Kind, identifier: str, revision: str) -> str:
    """The key of a commit in `study.lock.json`: `models/openai-community/gpt2@main`."""
    return f"{kind}/{identifier}@{revision}"


def default_cache() -> Path:
    """$LORASTUDY_CACHE, else $XDG_CACHE_HOME/lorastudy, else ~/.cache/lorastudy.

    Raises:
        ConfigError: It would be in a home folder, and there is none, as in some containers.
    """
    own = os.environ.get("LORASTUDY_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(own).expanduser() if own else Path(shared).expanduser() / "lorastudy"
    except RuntimeError as error:
        raise ConfigError(
            f"there is no folder for the cache of tokens: {own or shared} names a home folder that "
            "is not known. Name another folder with the environment variable LORASTUDY_CACHE."
        ) from error
