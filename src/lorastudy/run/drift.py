"""May this process continue what another one began? Only in the same environment.

Another version, device or number of threads rounds differently, so the result would not belong to
any single environment. `--allow-drift` accepts this, and the report then says so.
"""

from collections.abc import Collection

from lorastudy.config.differences import ABSENT, list_differences, show_value
from lorastudy.errors import EnvironmentDriftError, InputError
from lorastudy.store.checkpoints import list_checkpoints, read_manifest
from lorastudy.store.files import read_record
from lorastudy.store.folders import RunFolder
from lorastudy.store.records import Manifest

_NOT_COMPARED = {"environment", "drift"}


def settle_drift(folder: RunFolder, now: Manifest, *, allow_drift: bool) -> Manifest:
    """The manifest to continue with: `now`, with all accepted changes of the environment.

    Raises:
        EnvironmentDriftError: The environment differs and `allow_drift` is off (exit 6).
        InputError: Data or model differ, which is never accepted (exit 3).
    """
    before = _find_earlier(folder, now)
    if before is None:
        return now
    if changed := _list_differences(_rest(before), _rest(now)):
        raise InputError(
            f"{folder.path.name} was started with other inputs ({'; '.join(changed)}). "
            "Restore data and base model, or train this run again with --restart."
        )
    changed = _compare_environments(before, now, exclude={"commit"})
    if changed and not allow_drift:
        raise EnvironmentDriftError(
            f"{folder.path.name} was started differently ({'; '.join(changed)}). Go back to that "
            "environment, continue in this one with --allow-drift (the report will say so), or "
            "train the run again with --restart."
        )
    # another commit may have changed nothing that matters: it is noted and not refused
    changed = _compare_environments(before, now)
    return now.model_copy(update={"drift": (*before.drift, *changed)})


def has_progress(folder: RunFolder) -> bool:
    """Whether an earlier process left something to continue: a checkpoint or a score."""
    return bool(list_checkpoints(folder.checkpoints)) or any(folder.evaluations.glob("*.json"))


def _find_earlier(folder: RunFolder, now: Manifest) -> Manifest | None:
    """The environment of the run's files; None if there is nothing to continue."""
    if not has_progress(folder):
        return None
    if folder.manifest.exists():
        return read_record(folder.manifest, Manifest)
    if not (checkpoints := list_checkpoints(folder.checkpoints)):
        return None
    environment = read_manifest(checkpoints[-1]).environment
    return now.model_copy(update={"environment": environment})


def _rest(manifest: Manifest) -> dict[str, object]:
    return manifest.model_dump(exclude=_NOT_COMPARED)


def _compare_environments(
    before: Manifest, now: Manifest, exclude: Collection[str] = ()
) -> list[str]:
    then, here = (m.environment.model_dump(exclude=set(exclude)) for m in (before, now))
    return [f"environment.{text}" for text in _list_differences(then, here)]


def _list_differences(old: object, new: object) -> list[str]:
    found = sorted(list_differences(old, new), key=lambda each: each.path)
    return [f"{each.path}: {_shown(each.old)} then, {_shown(each.new)} now" for each in found]


def _shown(value: object) -> str:
    return "None" if value is ABSENT else show_value(value, repr)
