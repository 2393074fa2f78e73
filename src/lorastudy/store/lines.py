"""Files of records that grow by one line at a time, and lose no line when a process is killed.

A line is appended with one write, which a kill of the process cannot undo. If a crash leaves an
incomplete last line, readers ignore it, and `replace_records` drops it when the run resumes.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from lorastudy import faults
from lorastudy.errors import StorageError
from lorastudy.store.files import Model, first_mistake, say_if_newer, storage_errors, write_text

_LONGEST_LINE_BYTES = 8192  # the line of a step or an epoch has about 300


def append_record(path: Path, record: BaseModel) -> None:
    """Add one line; when this returns, the line survives a kill of the process.

    A loss of power may lose it until the file is flushed, which every checkpoint does first.
    """
    line = record.model_dump_json().encode() + b"\n"
    with storage_errors(path, len(line)):
        faults.hit("append:before-line")
        with path.open("ab", buffering=0) as stream:
            n_written = stream.write(line)
        if n_written != len(line):
            raise OSError(errno.ENOSPC, f"only {n_written} bytes of a line were written")


def read_records(path: Path, kind: type[Model]) -> tuple[Model, ...]:
    """All complete lines of `path`; none if the file does not exist.

    Raises:
        StorageError: A line is not a `kind`.
    """
    if not path.is_file():
        return ()
    lines = path.read_bytes().split(b"\n")[:-1]  # everything after the last newline is incomplete
    return tuple(_read_line(path, kind, line, f"line {n}") for n, line in enumerate(lines, 1))


def read_last_records(path: Path, kind: type[Model], most: int) -> tuple[Model, ...]:
    """Up to `most` complete lines from the end of `path`, found without reading the rest.

    There are fewer if lines are long, since only the last 8 KiB are read.

    Raises:
        StorageError: One of them is not a `kind`.
    """
    if not path.is_file():
        return ()
    begin = max(0, path.stat().st_size - _LONGEST_LINE_BYTES)
    with path.open("rb") as stream:
        stream.seek(begin)
        lines = stream.read().split(b"\n")[:-1]
    if begin and len(lines) > 1:
        lines = lines[1:]  # the first one is cut off
    return tuple(_read_line(path, kind, line, "one of its last lines") for line in lines[-most:])


def read_last_record(path: Path, kind: type[Model]) -> Model | None:
    """The last complete line of `path`; None if there is none.

    Raises:
        StorageError: It is not a `kind`.
    """
    return next(iter(read_last_records(path, kind, 1)), None)


@dataclass(frozen=True, slots=True)
class ReadUntil:
    """How far a growing file of records was read."""

    inode: int  # another one: the file was replaced, and is read from its start
    n_bytes: int  # up to the end of a line


def find_end(path: Path) -> ReadUntil:
    """The end of the last whole line of `path`, found without reading the lines before it."""
    if not path.is_file():
        return ReadUntil(0, 0)
    with path.open("rb") as stream:
        found = os.fstat(stream.fileno())
        begin = max(0, found.st_size - _LONGEST_LINE_BYTES)
        stream.seek(begin)
        return ReadUntil(found.st_ino, begin + stream.read().rfind(b"\n") + 1)


def read_new_records(
    path: Path, kind: type[Model], until: ReadUntil
) -> tuple[tuple[Model, ...], ReadUntil]:
    """The whole lines of `path` after `until`, and where they end.

    Raises:
        StorageError: A line is not a `kind`.
    """
    if not path.is_file():
        return (), until
    with path.open("rb") as stream:
        found = os.fstat(stream.fileno())
        is_same = found.st_ino == until.inode and found.st_size >= until.n_bytes
        begin = until.n_bytes if is_same else 0
        stream.seek(begin)
        whole = stream.read().rpartition(b"\n")[0]
    lines = whole.split(b"\n") if whole else []
    records = tuple(_read_line(path, kind, line, "one of its last lines") for line in lines)
    return records, ReadUntil(found.st_ino, begin + len(whole) + bool(whole))


def _read_line(path: Path, kind: type[Model], line: bytes, position: str) -> Model:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        if (newer := say_if_newer(path, error)) is not None:
            raise StorageError(newer) from error
        raise StorageError(
            f"{path}: {position} is not a readable {kind.__name__} ({first_mistake(error)}). "
            "Restore the file, or train this run again with --restart."
        ) from error


def replace_records(path: Path, records: tuple[BaseModel, ...]) -> None:
    """Write exactly `records` to `path`; a resumed run drops the records that it will repeat."""
    write_text(path, "".join(record.model_dump_json() + "\n" for record in records))
