"""Files and folders that are written completely or not at all.

Every file is renamed to its final name after its bytes have reached the disk, so a reader needs
no lock. Files get the mode that the user's umask asks for (safetensors by itself writes 0600).
Files that grow line by line are in `store/lines.py`.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError

from lorastudy import faults
from lorastudy.errors import NO_ACCESS, StorageError

_UNFINISHED = (".partial", ".old")

Model = TypeVar("Model", bound=BaseModel)
_ATTEMPTS = 20  # attempts at a folder that other processes publish at the same time


@contextmanager
def storage_errors(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn an error of the file system under `path` into a StorageError (exit 74).

    Args:
        path: The file or folder to be written or moved.
        needed_bytes: Number of bytes to be written, if it is known.
    """
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise StorageError(
            f"cannot write {path}: {_reason(error)}. A file stands where a folder is needed, or a "
            "folder where a file is. Choose another name, then run the command again."
        ) from error
    except (OSError, SafetensorError) as error:
        if _number_of(error) in NO_ACCESS:
            raise StorageError(
                f"cannot write {path}: {_reason(error)}. Change the permissions there, or use a "
                "copy of the folder, or another one. Then run the command again."
            ) from error
        needed = "" if needed_bytes is None else f"{needed_bytes:,} bytes are needed and "
        raise StorageError(
            f"cannot write {path}: {_reason(error)}. {needed}{_free_space(path)} "
            "Free space or choose another folder, then run the command again."
        ) from error


def _reason(error: OSError | SafetensorError) -> str:
    """The reason in the operating system's words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = _number_of(error)
    return str(error) if number is None else os.strerror(number)


def _number_of(error: OSError | SafetensorError) -> int | None:
    """The operating system's number of an error; safetensors gives it in brackets."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def refuse_unwritable(path: Path, *, is_folder: bool) -> None:
    """Refuse a new file or folder that could not be written; meant for before long work.

    Raises:
        StorageError: A file or folder stands in its way, or the folder around it is read-only.
    """
    with storage_errors(path):
        if not is_folder and path.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        around = path if is_folder else path.parent
        while not os.path.lexists(around):
            around = around.parent
        if not around.is_dir():
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(around, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def write_text(path: Path, text: str) -> None:
    """Replace the file `path` by `text` in one step that a crash cannot cut in half."""
    content = text.encode()
    with storage_errors(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            faults.hit("write:before-bytes")
            with partial.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            faults.hit("write:before-rename")
            partial.replace(path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)  # its space may be the space that is missing
            raise
        flush_to_disk(path.parent)


def write_record(path: Path, record: BaseModel) -> None:
    """Write one record as indented JSON."""
    write_text(path, record.model_dump_json(indent=1) + "\n")


def read_record(path: Path, kind: type[Model]) -> Model:
    """The record stored in `path`.

    Raises:
        StorageError: The file is not a `kind`: it is damaged, or of another version.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        if (newer := say_if_newer(path, error)) is not None:
            raise StorageError(newer) from error
        raise StorageError(
            f"{path} is not a readable {kind.__name__} ({first_mistake(error)}). "
            "Restore the file from a copy."
        ) from error


def first_mistake(error: OSError | ValidationError) -> str:
    """What is wrong with a record in a few words, and at which of its keys."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    mistake = error.errors(include_url=False)[0]
    where = ".".join(map(str, mistake["loc"]))
    return f"{where}: {mistake['msg']}" if where else mistake["msg"]


def say_if_newer(path: Path, error: Exception) -> str | None:
    """What to do if only keys that this version does not know are wrong with a record."""
    if not isinstance(error, ValidationError):
        return None
    mistakes = error.errors(include_url=False)
    if {mistake["type"] for mistake in mistakes} != {"extra_forbidden"}:
        return None
    keys = ", ".join(".".join(map(str, mistake["loc"])) for mistake in mistakes)
    return (
        f"{path} was written by a newer version of lorastudy: this one does not know {keys}. "
        "Use that version for this folder; the file is not damaged."
    )


def publish_folder(
    final: Path, fill: Callable[[Path], None], needed_bytes: int | None = None
) -> None:
    """Give a folder its final name after everything that `fill` wrote into it is on the disk.

    An older folder of that name is replaced. Files of a failed attempt are removed.
    """
    with storage_errors(final, needed_bytes):
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            fill(partial)
            for path in sorted(partial.rglob("*")):
                if path.is_file():
                    share_as_umask_says(path)
                flush_to_disk(path)
            flush_to_disk(partial)
            faults.hit("publish:before-rename")
            _replace_folder(partial, final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        flush_to_disk(final.parent)


def _replace_folder(partial: Path, final: Path) -> None:
    """Replace a folder that is not empty, for which there is no single call; others may too."""
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    for attempt in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            final.rename(old)
        faults.hit("publish:between-renames")
        try:
            partial.rename(final)
            break
        except OSError as error:  # another process came between the two
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt == _ATTEMPTS - 1:
                raise
            shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def share_as_umask_says(path: Path) -> None:
    """Give a file the mode of its folder, without the right to execute."""
    path.chmod(path.parent.stat().st_mode & 0o666)


def remove_leftovers(folder: Path) -> None:
    """Delete unfinished files that killed writers left anywhere under `folder`.

    A folder that was moved aside to be replaced, and was not replaced, gets its name back. Only
    the owner may do this, because the partial files of a living writer look the same.
    """
    with storage_errors(folder):
        for path in sorted(folder.rglob(".*")):
            if path.name.endswith(".old") and not _final_of(path).exists():
                path.rename(_final_of(path))
            elif not path.name.endswith(_UNFINISHED):
                continue
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)  # perhaps gone with a folder above it


def _final_of(leftover: Path) -> Path:
    """`best` for `.best.4242.old`."""
    return leftover.with_name(leftover.name[1:].rsplit(".", 2)[0])


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
