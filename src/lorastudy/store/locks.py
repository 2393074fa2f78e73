"""`study.lock.json` with a seal, so that a later change to it shows.

The seal is over the JSON as it is stored, not over its fields, so a version with more fields
reads the seals of earlier ones. Locks of early versions have none and are read as they are.
"""

import hashlib
import json

from lorastudy.errors import StorageError
from lorastudy.store.files import read_record, write_record
from lorastudy.store.folders import StudyFolder
from lorastudy.store.records import StudyLock


def write_lock(folder: StudyFolder, lock: StudyLock) -> None:
    """Write the lock of a study.

    Raises:
        StorageError: The disk refused the write.
    """
    seal = _seal_of(lock.model_dump_json())
    write_record(folder.lock, lock.model_copy(update={"seal": seal}))


def read_lock(folder: StudyFolder) -> StudyLock:
    """The lock of a study, which has to exist.

    Raises:
        StorageError: It is not what was written.
    """
    lock = read_record(folder.lock, StudyLock)
    if lock.seal and lock.seal != _seal_of(folder.lock.read_text(encoding="utf-8")):
        raise StorageError(
            f"{folder.lock} is not the file that was written. Restore it from a copy."
        )
    return lock


def _seal_of(text: str) -> str:
    """SHA-256 over all keys of a JSON object but `seal`."""
    content = {key: value for key, value in json.loads(text).items() if key != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
