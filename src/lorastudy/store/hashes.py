"""Hashes of files that must not change any more: `SHA256SUMS`, as `sha256sum -c` reads it.

runs/<run>/best/SHA256SUMS    every file of the best epoch's folder
runs/<run>/SHA256SUMS         every file of a finished run, result.json included

They are written after the files that they name, so a file that differs was changed later.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from lorastudy.store.files import write_text

HASHES = "SHA256SUMS"


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal_of(record: BaseModel) -> str:
    """SHA-256 over all fields of `record` except its `seal`, so that damage to it shows."""
    return hashlib.sha256(record.model_dump_json(exclude={"seal"}).encode()).hexdigest()


def write_hashes(folder: Path, files: Mapping[str, str] | None = None) -> None:
    """Write the hashes of `files` (by path in `folder`), or of every file there."""
    found = hash_files(folder) if files is None else files
    lines = (f"{digest}  {name}\n" for name, digest in sorted(found.items()))
    write_text(folder / HASHES, "".join(lines))


def hash_files(folder: Path) -> dict[str, str]:
    """The hash of every file under `folder`, except hidden ones and `SHA256SUMS`."""
    return {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != HASHES and path.name[0] != "."
    }


def find_changes(folder: Path) -> list[str]:
    """What differs from `folder/SHA256SUMS`, one sentence each; that file has to exist."""
    path = folder / HASHES
    try:
        listed = dict(_read_lines(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        return [f"{path} is not readable ({error})"]
    changes = []
    for name, digest in listed.items():
        if not (folder / name).is_file():
            changes.append(f"{folder / name} is missing")
        elif hash_file(folder / name) != digest:
            changes.append(f"{folder / name} is not the file that was written")
    return changes


def _read_lines(text: str) -> Iterator[tuple[str, str]]:
    if not text.endswith("\n"):
        raise ValueError("it is cut off")
    for line in text.splitlines():
        digest, separator, name = line.partition("  ")
        if len(digest) != 64 or not separator:
            raise ValueError("a line has no hash")
        yield name, digest
