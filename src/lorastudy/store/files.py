"""Writes that happen completely or not at all, and lines that survive a kill.

Every file gets its final name by one rename after its bytes have reached the disk, so a
reader needs no lock. Lines are appended with one write and flushed to the disk; a torn
last line, left by a crash, is ignored by the reader and cut off before the next append.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from lorastudy import faults
from lorastudy.errors import StorageError

_UNFINISHED = (".partial", ".old")

Model = TypeVar("Model", bound=BaseModel)
_LONGEST_LINE_BYTES = 8192  # a step or an epoch has about 300


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the file system under `path` into a StorageError (exit 74)."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}. "
            f"{_free_space(path)} Free space or choose another folder, then run the command again."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Replace the file `path` by `text` in one step that a crash cannot cut in half."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        faults.hit("write:before-rename")
        partial.replace(path)
        flush_to_disk(path.parent)


def write_record(path: Path, record: BaseModel) -> None:
    """Write one record as indented JSON."""
    write_text(path, record.model_dump_json(indent=1) + "\n")


def read_record(path: Path, kind: type[Model]) -> Model:
    """The record stored in `path`.

    Raises:
        StorageError: The file is not a `kind`: damaged, or of another version.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise StorageError(
            f"{path} is not a readable {kind.__name__}: {error}. "
            "Restore the file, or delete it to have it made again."
        ) from error


def append_record(path: Path, record: BaseModel) -> None:
    """Add one line; when this returns, the line survives a kill of the process."""
    with storage_errors(path), path.open("ab") as stream:
        stream.write(record.model_dump_json().encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_records(path: Path, kind: type[Model]) -> tuple[Model, ...]:
    """All whole lines of `path`; none if the file is not there."""
    if not path.is_file():
        return ()
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn
    return tuple(kind.model_validate(json.loads(line)) for line in lines)


def read_last_record(path: Path, kind: type[Model]) -> Model | None:
    """The last whole line of `path`, found without reading the rest; None if there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _LONGEST_LINE_BYTES))
        lines = stream.read().split(b"\n")[:-1]
    return kind.model_validate_json(lines[-1]) if lines else None


def replace_records(path: Path, records: tuple[BaseModel, ...]) -> None:
    """Make `path` hold exactly `records`, as a resumed run does with what it will repeat."""
    write_text(path, "".join(record.model_dump_json() + "\n" for record in records))


def publish_folder(final: Path, fill: Callable[[Path], None]) -> None:
    """Give a folder its final name after everything `fill` wrote into it is on the disk.

    An older folder of that name is replaced.
    """
    with storage_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        fill(partial)
        for path in sorted(partial.rglob("*")):
            flush_to_disk(path)
        flush_to_disk(partial)
        faults.hit("publish:before-rename")
        old = final.with_name(f".{final.name}.{os.getpid()}.old")
        if final.exists():
            final.rename(old)
        partial.rename(final)
        flush_to_disk(final.parent)
        shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left unfinished anywhere under `folder`.

    Only its one owner may do this: the partial files of a living writer look the same.
    """
    with storage_errors(folder):
        for path in sorted(folder.rglob(".*")):
            if not path.name.endswith(_UNFINISHED):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)  # gone already if it lay in a folder before it


def flush_to_disk(path: Path) -> None:
    """Force a file, or the names in a folder, out of the page cache (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_space(path: Path) -> str:
    parent = next((p for p in path.parents if p.exists()), None)
    if parent is None:
        return ""
    return f"{shutil.disk_usage(parent).free:,} bytes are free there."
