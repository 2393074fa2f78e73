"""Who owns a run: a lock that the kernel drops with its process, and a lease with the owner.

    runs/<run>/.lock     flock; a killed process loses it at once
    runs/<run>/.lease    host, process and boot of the owner; its time is the last sign of life

On a local disk the lock alone would be enough. On NFS and Lustre two machines may both receive it,
so an owner on another machine that showed a sign of life within `LEASE_SECONDS` is respected too.
The times that are compared are those that the file server writes; no machine's clock is trusted.
"""

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lorastudy.errors import OwnedError, StorageError
from lorastudy.store.files import read_record, storage_errors, write_record
from lorastudy.store.folder_records import Lease

LEASE_SECONDS = 120.0  # without a sign of life, after which another machine may take over
HEARTBEAT_SECONDS = 15.0
_CLAIM_SECONDS = 2.0  # `is_owned` in another process takes the lock for a moment
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def own(folder: Path) -> Iterator[Lease | None]:
    """Own `folder` while the block lasts; gives the lease that was taken over, if there is one.

    Raises:
        OwnedError: Another process owns it (exit 73).
        StorageError: The folder cannot be written.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    with storage_errors(folder):
        try:
            lock.acquire(timeout=_CLAIM_SECONDS, poll_interval=0.02)
        except Timeout:  # an OSError too
            raise _owned_by_another(folder, _read_lease(folder / ".lease")) from None
    try:
        with _leased(folder) as abandoned:
            yield abandoned
    finally:
        lock.release()


def is_owned(folder: Path) -> bool:
    """Whether some process owns `folder` now."""
    if not (folder / ".lock").exists():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            pass
    except Timeout:
        return True
    except OSError:
        return (folder / ".lease").exists()  # a folder that may only be read
    return _living_stranger(folder) is not None


def describe_process() -> Lease:
    """This process, as a lease describes it."""
    return Lease(host=platform.node(), pid=os.getpid(), boot=_boot_id())


@contextmanager
def _leased(folder: Path) -> Iterator[Lease | None]:
    path = folder / ".lease"
    before = _read_lease(path)
    if (stranger := _living_stranger(folder)) is not None:
        raise _owned_by_another(folder, stranger)
    write_record(path, describe_process())
    ended = threading.Event()
    threading.Thread(target=_beat, args=(path, ended), daemon=True).start()
    try:
        yield before
    finally:
        ended.set()
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        with suppress(OSError):  # the folder may be gone; the next write in it will say so
            os.utime(path)


def _living_stranger(folder: Path) -> Lease | None:
    """The owner on another machine that recently showed a sign of life; None if there is none.

    The caller has the lock, which is reliable within one boot of one machine.
    """
    path = folder / ".lease"
    lease = _read_lease(path)
    if lease is None or lease.boot == _boot_id() or lease.host == platform.node():
        return None
    with suppress(OSError):
        age = _time_of_the_file_system(folder) - path.stat().st_mtime
        return lease if abs(age) < LEASE_SECONDS else None
    return None


def _time_of_the_file_system(folder: Path) -> float:
    probe = folder / ".lock"
    os.utime(probe)
    return probe.stat().st_mtime


def _read_lease(path: Path) -> Lease | None:
    try:
        return read_record(path, Lease)
    except StorageError:
        return None  # missing, or cut off by a crash: nobody can be named


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return platform.node()  # not Linux: the host name has to be enough


def _owned_by_another(folder: Path, lease: Lease | None) -> OwnedError:
    who = f" (process {lease.pid} on {lease.host})" if lease else ""
    return OwnedError(
        f"{folder.name} is being executed by another process{who}. "
        "Wait for it, or stop that process; `lorastudy status` shows how far it is."
    )
