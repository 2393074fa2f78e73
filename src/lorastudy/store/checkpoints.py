"""Checkpoints that exist completely or not at all.

    checkpoints/
      step-00000120/
        MANIFEST.json            size and SHA-256 of every other file
        weights.safetensors      trained tensors only
        optimizer.safetensors    AdamW's moments
        trainer.json             where training stands
      .step-00000180.4242.partial/   being written, or left by a killed process
    quarantine/                  checkpoints that failed verification

Resuming takes the newest checkpoint that verifies; damaged ones are set aside, never used.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from lorastudy import faults
from lorastudy.store.files import publish_folder, storage_errors

MANIFEST = "MANIFEST.json"
KEPT = 2  # the newest, and one to fall back to
_FINAL_NAME = re.compile(r"step-(\d{8,})")

FileWriter = Callable[[Path], object]  # for example: lambda path: save_file(tensors, path)


def write_checkpoint(root: Path, step: int, files: Mapping[str, FileWriter]) -> Path:
    """Write `files` as the checkpoint of `step`, delete all but the newest `KEPT`, return it."""

    def fill(folder: Path) -> None:
        manifest: dict[str, dict[str, int | str]] = {}
        for name, write_file in files.items():
            faults.hit(f"checkpoint:before-{name}")
            path = folder / name
            write_file(path)
            path.chmod(0o644)  # safetensors writes 0600, which locks colleagues out
            manifest[name] = {"bytes": path.stat().st_size, "sha256": hash_file(path)}
        text = json.dumps({"step": step, "files": manifest}, indent=1) + "\n"
        (folder / MANIFEST).write_text(text)

    final = root / f"step-{step:08d}"
    publish_folder(final, fill)
    faults.hit("checkpoint:before-delete-old")
    for old in list_checkpoints(root)[:-KEPT]:
        shutil.rmtree(old)
    return final


def list_checkpoints(root: Path) -> list[Path]:
    """Finished checkpoint folders under `root`, oldest first; not yet verified."""
    return sorted(path for path in root.glob("step-*") if _FINAL_NAME.fullmatch(path.name))


def newest_sound_checkpoint(root: Path) -> Path | None:
    """The newest checkpoint that verifies, or None; those that do not go to quarantine/."""
    for folder in reversed(list_checkpoints(root)):
        if not find_damage(folder):
            return folder
        with storage_errors(folder):
            quarantine = root.parent / "quarantine"
            quarantine.mkdir(exist_ok=True)
            shutil.rmtree(quarantine / folder.name, ignore_errors=True)
            folder.rename(quarantine / folder.name)
    return None


def find_damage(folder: Path) -> list[str]:
    """What in `folder` is not what was written, one sentence each; empty if all is sound."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{folder / MANIFEST} is not readable ({error})"]
    damage = []
    for name, (n_bytes, digest) in expected.items():
        path = folder / name
        if not path.is_file():
            damage.append(f"{path} is missing")
        elif path.stat().st_size != n_bytes or hash_file(path) != digest:
            damage.append(f"{path} is not the file that was written")
    return damage


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
