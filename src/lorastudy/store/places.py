"""Where inputs are looked up; the same for every run of a study."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """Folders that a study reads from, and its cache."""

    base: Path  # relative paths of the study file start here
    mirror: Path | None = None  # laid out like the hub, searched first
    offline: bool = False  # never ask the hub
    cache: Path = Path()  # tokenised corpora; see default_cache


def default_cache() -> Path:
    """$LORASTUDY_CACHE, else $XDG_CACHE_HOME/lorastudy, else ~/.cache/lorastudy."""
    if own := os.environ.get("LORASTUDY_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "lorastudy"
