"""Hashes of files that must not change any more: `SHA256SUMS`, as `sha256sum -c` reads it.

runs/<run>/best/SHA256SUMS    every file of the best epoch's folder
runs/<run>/SHA256SUMS         every file of a finished run, result.json included

They are written after the files that they name, so a file that differs was changed later.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from lorastudy.errors import StorageError, first_line
from lorastudy.store.files import write_text

HASHES = "SHA256SUMS"
MISSING = "is missing"
_SETTLED_NS = 100_000_000  # a file that was changed more recently may change again unnoticed

_FileState = tuple[Path, int, int, int]  # inode, bytes, time of the last change in nanoseconds
_known: dict[_FileState, str] = {}


class Change(NamedTuple):
    """A file that is not as `SHA256SUMS` says."""

    name: str  # in its folder
    problem: str  # "is missing"

    def __str__(self) -> str:
        return f"{self.name} {self.problem}"


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_once(path: Path) -> str:
    """As `hash_file`, but a file that has not changed since is not read again."""
    found = path.stat()
    state = (path, found.st_ino, found.st_size, found.st_mtime_ns)
    if (known := _known.get(state)) is not None:
        return known
    digest = hash_file(path)
    if time.time_ns() - found.st_mtime_ns > _SETTLED_NS:
        _known[state] = digest
    return digest


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


def read_hashes(folder: Path) -> dict[str, str]:
    """The hashes that `folder/SHA256SUMS` lists, by path in `folder`.

    Raises:
        StorageError: The file is missing or damaged.
    """
    path = folder / HASHES
    try:
        lines = list(_read_lines(path.read_text(encoding="utf-8")))
        listed = dict(lines)
        if len(listed) != len(lines):
            raise ValueError("a file is there twice")
        return listed
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} is not readable ({first_line(error)}).") from error


def find_changes(
    folder: Path, is_chosen: Callable[[str], bool] = lambda name: True
) -> list[Change]:
    """What differs from `folder/SHA256SUMS`, which has to exist, among the files `is_chosen`."""
    try:
        listed = read_hashes(folder)
    except StorageError:
        return [Change(HASHES, "is missing or damaged")]
    chosen = {name: digest for name, digest in listed.items() if is_chosen(name)}
    found = ((name, _find_problem(folder / name, digest)) for name, digest in chosen.items())
    return [Change(name, problem) for name, problem in found if problem]


def _find_problem(path: Path, digest: str) -> str | None:
    if not path.is_file():
        return MISSING
    try:
        return None if hash_once(path) == digest else "is not the file that was written"
    except OSError as error:
        return f"is not readable ({error.strerror})"


def _read_lines(text: str) -> Iterator[tuple[str, str]]:
    if not text.endswith("\n"):
        raise ValueError("it is cut off")
    for line in text.splitlines():
        digest, separator, name = line.partition("  ")
        if len(digest) != 64 or not separator:
            raise ValueError("a line has no hash")
        yield name, digest
