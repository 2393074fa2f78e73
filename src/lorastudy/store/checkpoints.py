"""Checkpoints that exist completely or not at all.

    checkpoints/
      step-00000120/
        MANIFEST.json            step, identity, environment, size and SHA-256 of each file, seal
        weights.safetensors      trained tensors only
        optimizer.safetensors    AdamW's moments
        trainer.json             where training stands
      .step-00000180.4242.partial/   being written, or left by a killed process
    quarantine/                  checkpoints that failed verification

A run resumes from the newest checkpoint that verifies. Damaged ones are set aside and never used.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from lorastudy import faults
from lorastudy.errors import InputError, StorageError, first_line
from lorastudy.store.files import publish_folder, read_record, storage_errors
from lorastudy.store.folder_records import CheckpointFile, CheckpointManifest
from lorastudy.store.hashes import hash_file, seal_of
from lorastudy.store.records import Fingerprint

MANIFEST = "MANIFEST.json"
KEPT = 2  # the newest one, and one to fall back to
_FINAL_NAME = re.compile(r"step-([0-9]{8,})")

FileWriter = Callable[[Path], object]  # for example: lambda path: save_file(tensors, path)


def write_checkpoint(
    root: Path,
    step: int,
    files: Mapping[str, FileWriter],
    *,
    identity: str,
    environment: Fingerprint,
    needed_bytes: int | None = None,
) -> Path:
    """Write `files` as the checkpoint of `step`, delete all but the newest `KEPT`, return it.

    Raises:
        StorageError: The disk refused a write; earlier checkpoints still exist.
    """

    def fill(folder: Path) -> None:
        written: dict[str, CheckpointFile] = {}
        for name, write_file in files.items():
            faults.hit(f"checkpoint:before-{name}")
            path = folder / name
            write_file(path)
            written[name] = CheckpointFile(bytes=path.stat().st_size, sha256=hash_file(path))
        faults.hit("checkpoint:before-manifest")
        manifest = CheckpointManifest(
            step=step, identity=identity, environment=environment, files=written
        )
        sealed = manifest.model_copy(update={"seal": seal_of(manifest)})
        (folder / MANIFEST).write_text(_as_text(sealed))

    final = root / f"step-{step:08d}"
    publish_folder(final, fill, needed_bytes)
    with storage_errors(root):
        faults.hit("checkpoint:before-delete-old")
        for old in list_checkpoints(root)[:-KEPT]:
            shutil.rmtree(old)
    return final


def list_checkpoints(root: Path) -> list[Path]:
    """Finished checkpoint folders under `root`, oldest first; not yet verified."""
    found = [path for path in root.glob("step-*") if _FINAL_NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def newest_sound_checkpoint(root: Path) -> Path | None:
    """The newest checkpoint that verifies; newer ones go to quarantine/. None if there is none.

    Raises:
        InputError: There are checkpoints, but all of them are damaged; none is moved.
    """
    damage: dict[Path, list[str]] = {}
    for folder in reversed(list_checkpoints(root)):
        damage[folder] = find_damage(folder)
        if not damage[folder]:
            _set_aside([path for path in damage if path != folder], root.parent / "quarantine")
            return folder
    if not damage:
        return None
    found = "\n".join(f"  {text}" for texts in damage.values() for text in texts)
    raise InputError(
        f"every checkpoint of {root.parent.name} is damaged:\n{found}\n"
        "Restore one from a copy, or train this run again from its start with --restart."
    )


def _set_aside(folders: list[Path], quarantine: Path) -> None:
    for folder in folders:
        with storage_errors(folder):
            quarantine.mkdir(exist_ok=True)
            shutil.rmtree(quarantine / folder.name, ignore_errors=True)
            folder.rename(quarantine / folder.name)


def read_manifest(folder: Path) -> CheckpointManifest:
    """The content of a checkpoint's `MANIFEST.json`.

    Raises:
        StorageError: It is not what was written.
    """
    path = folder / MANIFEST
    manifest = read_record(path, CheckpointManifest)
    is_whole = manifest.seal == seal_of(manifest) and path.read_text() == _as_text(manifest)
    if not is_whole or folder.name != f"step-{manifest.step:08d}":
        raise StorageError(f"{path} is not the file that was written.")
    return manifest


def _as_text(manifest: CheckpointManifest) -> str:
    return manifest.model_dump_json(indent=1) + "\n"


def find_damage(folder: Path) -> list[str]:
    """The files in `folder` that differ from what was written, one sentence each; or nothing."""
    try:
        files = read_manifest(folder).files
    except StorageError as error:
        return [first_line(error)]
    damage = []
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            damage.append(f"{path} is missing")
        elif path.stat().st_size != expected.bytes or hash_file(path) != expected.sha256:
            damage.append(f"{path} is not the file that was written")
    return damage
