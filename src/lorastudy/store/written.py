"""How far the records of an unfinished run were written, so that a later change to them shows.

    runs/<run>/written.json    for each record: how many bytes it began with, and their hash

Lines may follow after the noted ones: a resumed run drops them, or finds them in order. When the
run is finished, `SHA256SUMS` says the same about every file. Runs of early versions have no note,
and nothing is found in them.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from lorastudy.errors import StorageError
from lorastudy.store.files import flush_to_disk, read_record, storage_errors, write_record
from lorastudy.store.folder_records import CheckpointFile, WrittenRecords
from lorastudy.store.hashes import MISSING, Change, seal_of

WRITTEN = "written.json"


def note_written(folder: Path, records: Iterable[Path]) -> None:
    """Note how far the `records` under a run's `folder` are written, once they are on the disk.

    Raises:
        StorageError: The disk refused the write.
    """
    with storage_errors(folder / WRITTEN):
        files = {path.relative_to(folder).as_posix(): _describe(path) for path in records}
    _write_note(folder, files)


def note_one(folder: Path, name: str) -> None:
    """Note the record `name` as it is now, or that it is not there; the others stay as noted.

    To a damaged note nothing is added.

    Raises:
        StorageError: The disk refused the write.
    """
    note = _read_note(folder)
    is_damaged = note is None and (folder / WRITTEN).exists()
    before = note.files if note is not None else {}
    if is_damaged or (name not in before and not (folder / name).exists()):
        return
    files = {known: found for known, found in before.items() if known != name}
    with storage_errors(folder / WRITTEN):
        if (folder / name).exists():
            files[name] = _describe(folder / name)
    _write_note(folder, files)


def _describe(path: Path) -> CheckpointFile:
    flush_to_disk(path)
    content = path.read_bytes()
    return CheckpointFile(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _write_note(folder: Path, files: dict[str, CheckpointFile]) -> None:
    note = WrittenRecords(files=files)
    write_record(folder / WRITTEN, note.model_copy(update={"seal": seal_of(note)}))


def _read_note(folder: Path) -> WrittenRecords | None:
    """The note; None if there is none, or if it is not what was written."""
    try:
        note = read_record(folder / WRITTEN, WrittenRecords)
    except StorageError:
        return None
    return note if note.seal == seal_of(note) else None


def forget_written(folder: Path) -> None:
    """Delete the note, before records are cut; a new one has to follow."""
    with storage_errors(folder / WRITTEN):
        (folder / WRITTEN).unlink(missing_ok=True)


def find_rewritten(folder: Path) -> list[Change]:
    """Records that are missing, or do not begin with what was noted."""
    if not (folder / WRITTEN).exists():
        return []
    note = _read_note(folder)
    if note is None:
        return [Change(WRITTEN, "is not the file that was written")]
    found = ((name, _find_problem(folder / name, noted)) for name, noted in note.files.items())
    return [Change(name, problem) for name, problem in found if problem]


def _find_problem(path: Path, noted: CheckpointFile) -> str | None:
    if not path.exists():
        return MISSING
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"is not readable ({error.strerror})"
    if path.suffix != ".jsonl":  # which is never appended to
        is_same = len(content) == noted.bytes and _hash_begin(content, noted) == noted.sha256
        return None if is_same else "is not the file that was written"
    # a line may stand there twice, if both are the same: readers use it once
    once = b"".join(dict.fromkeys(content.splitlines(keepends=True)))
    is_sound = any(_hash_begin(text, noted) == noted.sha256 for text in (content, once))
    return None if is_sound else "does not begin with what was written"


def _hash_begin(content: bytes, noted: CheckpointFile) -> str:
    return hashlib.sha256(content[: noted.bytes]).hexdigest()
