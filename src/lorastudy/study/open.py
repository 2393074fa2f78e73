"""From a name to a study: a preset, a YAML file, or the folder of a study that was started."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorastudy.config.mistakes import nearest
from lorastudy.config.models import Study
from lorastudy.config.study_file import (
    leaves_rounding_open,
    list_presets,
    load_study,
    preset_text,
    read_study_file,
    round_warmup,
    with_plan_of,
)
from lorastudy.config.two_studies import extends
from lorastudy.errors import ConfigError, possible_path
from lorastudy.store.collect import read_own_file, read_study
from lorastudy.store.files import read_record
from lorastudy.store.folder_records import FoundAt
from lorastudy.store.folders import StudyFolder
from lorastudy.store.locks import read_lock
from lorastudy.store.places import Places, default_cache


@dataclass(frozen=True, slots=True)
class OpenedStudy:
    """A study, the folder that it has or will have, and where its inputs are looked up."""

    study: Study
    folder: StudyFolder
    places: Places
    notes: tuple[str, ...] = ()  # how it differs from the file that was named


def open_study(
    name: str,
    *,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    mirror: Path | None = None,
    offline: bool = False,
) -> OpenedStudy:
    """Read a preset, a YAML file or an existing study folder.

    Args:
        name: A name of `list_presets()` or a path.
        out: Folder of the study; studies/NAME by default.
        overrides: `KEY=VALUE` texts, each of which replaces one value of the file.
        mirror: Folder laid out like the hub, searched first.
        offline: Never ask the hub.

    Raises:
        ConfigError: `name` is none of them, or arguments do not fit together.
    """
    here = places_here(mirror, offline=offline)
    path = possible_path(name)
    if out is not None:
        possible_path(out, key="--out ")
    is_preset = name in list_presets()
    if StudyFolder(path).study.is_file() or (path.is_dir() and not is_preset):
        if overrides or (out is not None and out.resolve() != path.resolve()):
            raise ConfigError(
                f"{path} is the folder of a study that was started; --set and --out do not "
                "change it. Copy its study.yaml and run the copy."
            )
        return open_folder(path, mirror=mirror, offline=offline)
    if is_preset:
        study = load_study(preset_text(name), f"preset {name}", overrides)
        places = here
    elif path.suffix in (".yaml", ".yml") or path.is_file():
        study = read_study_file(path, overrides)
        places = replace(here, base=path.resolve().parent)
    else:
        raise ConfigError(
            f"{name!r} is not a preset ({', '.join(list_presets())}), a YAML file or a study "
            f"folder{nearest(name, list_presets())}. "
            "`lorastudy init demo` writes a study file to start from."
        )
    folder = StudyFolder(out or Path("studies") / study.name)
    return continue_study(study, folder, replace(places, revisions=_locked_revisions(folder)))


def continue_study(study: Study, folder: StudyFolder, places: Places) -> OpenedStudy:
    """`study` as it goes on in `folder`, if it was started there.

    What its folder decided is added. A file that does not say how its warm-up is rounded goes on in
    the way in which its study was started: such a file once meant `down`.
    """
    started = _rounded_as_started(study, folder)
    note = (
        f"{folder.path} was started with a warm-up that is rounded down to whole steps, and goes "
        "on like this. In a new folder the same file rounds up (training.schedule.rounding)."
    )
    notes = () if started == study else (note,)
    return OpenedStudy(_with_decisions(started, folder), folder, places, notes)


def _rounded_as_started(study: Study, folder: StudyFolder) -> Study:
    """`study` with the rounding of the same study in `folder`, unless its file says one itself."""
    if not (leaves_rounding_open(study) and folder.study.is_file()):
        return study
    before = read_own_file(folder)
    same = round_warmup(study, before.training.schedule.rounding)
    return same if extends(before, same) or extends(same, before) else study


def _with_decisions(study: Study, folder: StudyFolder) -> Study:
    """The study with what its folder decided since its start, so that it goes on from there.

    That is what its budget means for each arm, or what the decisions in the folder added. Another
    study stays as it is, and is refused later.
    """
    has_budget = study.training.budget is not None
    if not folder.study.is_file() or not (folder.decisions.is_file() or has_budget):
        return study
    grown = read_study(folder)
    study = with_plan_of(study, grown)
    return grown if folder.decisions.is_file() and extends(study, grown) else study


def open_folder(path: Path, *, mirror: Path | None = None, offline: bool = False) -> OpenedStudy:
    """The study that was started in the folder `path`.

    Raises:
        ConfigError: It is not the folder of a study.
    """
    folder = StudyFolder(possible_path(path))
    study = read_study(folder)
    return OpenedStudy(study, folder, stored_places(folder, mirror, offline=offline))


def stored_places(folder: StudyFolder, mirror: Path | None, *, offline: bool) -> Places:
    """Where a started study found its inputs; a given mirror comes first.

    Raises:
        ConfigError: The given mirror does not exist.
    """
    here = replace(places_here(mirror, offline=offline), revisions=_locked_revisions(folder))
    if not folder.places.is_file():
        return here
    found = read_record(folder.places, FoundAt)
    if Path(found.base).is_dir():
        here = replace(here, base=Path(found.base))
    if mirror is None and found.mirror and Path(found.mirror).is_dir():
        here = replace(here, mirror=Path(found.mirror))
    return here


def _locked_revisions(folder: StudyFolder) -> dict[str, str]:
    return read_lock(folder).revisions if folder.lock.is_file() else {}


def places_here(mirror: Path | None, *, offline: bool) -> Places:
    """Look inputs up in `mirror`, the current folder, the cache and on the hub.

    Raises:
        ConfigError: The mirror is not a folder.
    """
    if mirror is not None and not possible_path(mirror, key="--mirror ").is_dir():
        raise ConfigError(
            f"--mirror {mirror}: this folder does not exist. Give one laid out like the hub."
        )
    return Places(Path.cwd(), mirror, offline, default_cache())
