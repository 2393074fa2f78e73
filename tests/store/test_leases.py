"""One owner a run, also where the lock cannot be trusted; abandoned runs are taken over."""

import os
import threading
import time
from pathlib import Path

import pytest

from lorastudy.errors import OwnedError
from lorastudy.store import leases
from lorastudy.store.files import write_record
from lorastudy.store.folder_records import Lease
from lorastudy.store.folders import RunFolder
from lorastudy.store.leases import describe_process

STRANGER = Lease(host="another-machine", pid=1, boot="another boot")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "lora-s0-01234567")
    with folder.claim():
        pass
    return folder


def leave_lease(folder: RunFolder, lease: Lease, age_seconds: float = 0.0) -> Path:
    path = folder.path / ".lease"
    write_record(path, lease)
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


def test_an_owner_is_named_and_leaves_no_lease_behind(folder: RunFolder) -> None:
    path = folder.path / ".lease"
    with folder.claim() as abandoned:
        assert abandoned is None
        assert Lease.model_validate_json(path.read_bytes()) == describe_process()
        other = RunFolder(folder.path)
        assert other.is_owned()
        with pytest.raises(OwnedError, match=f"process {os.getpid()}"), other.claim():
            pass
    assert not path.exists() and not folder.is_owned()


def test_a_lease_of_this_boot_whose_lock_is_free_is_taken_over_with_a_note(
    folder: RunFolder,
) -> None:
    left = describe_process().model_copy(update={"pid": 12345})
    leave_lease(folder, left)
    with folder.claim() as abandoned:
        assert abandoned == left


def test_a_stale_lock_after_a_reboot_is_taken_over(folder: RunFolder) -> None:
    left = describe_process().model_copy(update={"boot": "the boot before"})
    leave_lease(folder, left)
    assert not folder.is_owned()
    with folder.claim() as abandoned:
        assert abandoned == left


def test_a_living_owner_on_another_machine_is_respected_though_the_lock_is_free(
    folder: RunFolder,
) -> None:
    leave_lease(folder, STRANGER, age_seconds=leases.LEASE_SECONDS / 2)
    assert folder.is_owned()
    with pytest.raises(OwnedError, match="another-machine"), folder.claim():
        pass
    assert (folder.path / ".lease").exists()


@pytest.mark.parametrize("age", [2 * leases.LEASE_SECONDS, -2 * leases.LEASE_SECONDS])
def test_an_owner_elsewhere_without_sign_of_life_is_replaced_though_clocks_were_set_back(
    folder: RunFolder, age: float
) -> None:
    leave_lease(folder, STRANGER, age_seconds=age)
    assert not folder.is_owned()
    with folder.claim() as abandoned:
        assert abandoned == STRANGER


@pytest.mark.parametrize("content", ["", "{", '{"host": 3}'])
def test_a_lease_that_a_crash_cut_off_keeps_nobody_out(folder: RunFolder, content: str) -> None:
    (folder.path / ".lease").write_text(content)
    with folder.claim():
        pass


def test_an_owner_shows_that_it_lives(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.01)
    path = folder.path / ".lease"
    with folder.claim():
        os.utime(path, (0, 0))
        for _ in range(500):
            if path.stat().st_mtime > 0:
                break
            time.sleep(0.01)
        assert path.stat().st_mtime > 0
    time.sleep(0.05)
    assert threading.active_count() < 10
    assert not path.exists()
