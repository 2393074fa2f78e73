"""R4 and R5: damage is found and costs no result; a full disk stops a run and loses nothing.

The disk is full in three ways: by an injected ENOSPC at every single write, by a limit on the size
of files (which libraries written in C and Rust meet as well), and on a real small file system
where this process may mount one.
"""

import errno
import math
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lorastudy.store.checkpoints import find_damage, list_checkpoints
from lorastudy.store.folders import RunFolder
from support.reliability_rows import Row, count_failures
from support.tiny_runs import (
    KILLED,
    Case,
    assert_same_run,
    kill_at,
    note_in,
)

STORAGE = 74
FILES = ("weights.safetensors", "optimizer.safetensors", "trainer.json", "MANIFEST.json")
WRITES = ("write:", "append:", "checkpoint:", "publish:")  # points inside a write


def flip(path: Path, place: float = 0.5) -> None:
    raw = bytearray(path.read_bytes())
    raw[int((len(raw) - 1) * place)] ^= 1
    path.write_bytes(raw)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "flipped-first": lambda path: flip(path, 0.0),
    "flipped-last": lambda path: flip(path, 1.0),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "truncated-by-one": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "zero-tailed": lambda path: path.write_bytes(path.read_bytes()[:-7] + bytes(7)),
    "lengthened": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": Path.unlink,
    "made-a-folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.fixture(scope="module")
def killed(case: Case, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Killed after the last checkpoint, before its epoch was validated."""
    folder = case.folder(tmp_path_factory.mktemp("killed"), "killed")
    assert case.child(folder, kill_at("run:after-validation", 2)) == KILLED
    return folder


def copy(killed: RunFolder, case: Case, parent: Path, name: str) -> RunFolder:
    folder = case.folder(parent, name)
    shutil.copytree(killed.path, folder.path)
    return folder


def test_r4_every_damage_to_the_newest_checkpoint_is_found_and_the_result_is_equal(
    case: Case, whole: RunFolder, killed: RunFolder, tmp_path: Path
) -> None:
    row = Row("R4")

    def trial(kind: str, name: str) -> Callable[[], None]:
        def carry_out() -> None:
            folder = copy(killed, case, tmp_path, f"{kind}-{name}")
            newest = list_checkpoints(folder.checkpoints)[-1]
            DAMAGE[kind](newest / name)
            assert find_damage(newest)
            case.execute_with(folder, None)
            assert [path.name for path in folder.quarantine.iterdir()] == [newest.name]
            assert_same_run(whole, folder)
            shutil.rmtree(folder.path)

        return carry_out

    trials = [trial(kind, name) for kind in DAMAGE for name in FILES]
    failed = count_failures(trials)
    n = len(trials)
    row.show(f"{n - failed} of {n} found, fallen back and equal: {len(DAMAGE)} kinds x 4 files")
    assert failed == 0


def full_disk_at(point: str, nth: int) -> Callable:
    count = iter(range(10**9))

    def handler(reached: str, _stop: object) -> None:
        if reached == point and next(count) >= nth:  # and it stays full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return handler


def committed(folder: RunFolder) -> dict[str, bytes]:
    """All that readers trust: checkpoints, the best epoch, scores; by relative path."""
    kept = (folder.checkpoints, folder.best, folder.evaluations)
    return {
        str(path.relative_to(folder.path)): path.read_bytes()
        for parent in kept
        for path in parent.rglob("*")
        if path.is_file()
    }


def test_r5_a_disk_that_is_full_at_any_write_loses_nothing(
    case: Case, whole: RunFolder, tmp_path: Path
) -> None:
    row = Row("R5")
    log = tmp_path / "points"
    log.touch()
    assert case.child(case.folder(tmp_path, "count"), note_in(log)) == 0
    points = [point for point in log.read_text().split() if point.startswith(WRITES)]

    def trial(point: str, nth: int) -> Callable[[], None]:
        def carry_out() -> None:
            folder = case.folder(tmp_path, f"{point}-{nth}".replace(":", "_"))
            assert case.child(folder, full_disk_at(point, nth)) == STORAGE
            assert not [path for path in folder.path.rglob("*.partial")]
            for checkpoint in list_checkpoints(folder.checkpoints):
                assert not find_damage(checkpoint)
            before = committed(folder)
            case.execute_with(folder, None)
            after = committed(folder)
            names = {name for name in before if name.startswith("evaluations")}
            assert all(after[name] == before[name] for name in names)
            assert_same_run(whole, folder)
            shutil.rmtree(folder.path)

        return carry_out

    every = [(point, points[:place].count(point)) for place, point in enumerate(points)]
    trials = [trial(*hit) for hit in every]
    failed = count_failures(trials)
    n = len(trials)
    row.show(f"{n - failed} of {n} writes refused with exit 74 and equal after space is freed")
    assert failed == 0


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.6, 0.99])  # of the largest file of a run
def test_a_limit_on_the_size_of_files_is_a_full_disk(
    case: Case, whole: RunFolder, share: float, tmp_path: Path
) -> None:
    folder = case.folder(tmp_path, "limited")
    limit = int(share * max(path.stat().st_size for path in whole.path.rglob("*")))

    def limited(_point: str, _stop: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    assert case.child(folder, limited) == STORAGE
    assert case.child(folder) == 0
    assert_same_run(whole, folder)


@pytest.fixture
def small_disk(whole: RunFolder, tmp_path: Path) -> Iterator[Path]:
    """A file system that holds one checkpoint, and not two of them with the best epoch."""
    folder = tmp_path / "disk"
    folder.mkdir()
    page = resource.getpagesize()
    files = (path for path in whole.path.rglob("*") if path.is_file())
    n_pages = 0.4 * sum(math.ceil(file.stat().st_size / page) for file in files)
    n_pages += 2  # written.json, and the next one beside it
    size = f"size={n_pages * page / 1024:.0f}k"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("this process may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_real_disk_that_is_full_stops_the_run_and_more_space_finishes_it(
    case: Case, whole: RunFolder, small_disk: Path
) -> None:
    folder = case.folder(small_disk, "run")
    assert case.child(folder) == STORAGE
    assert list_checkpoints(folder.checkpoints)
    failure = folder.read_result()
    assert failure is None or "bytes are free" in str(failure.reason)
    grow = ["mount", "-o", "remount,size=4m", str(small_disk)]
    subprocess.run(grow, check=True)
    assert case.child(folder) == 0
    assert_same_run(whole, folder)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
@pytest.mark.parametrize("point", ["publish:before-rename", "write:before-rename"])
def test_an_input_output_error_is_a_storage_error(
    case: Case, whole: RunFolder, point: str, number: int, tmp_path: Path
) -> None:
    folder = case.folder(tmp_path, "broken")
    count = iter(range(10**9))

    def handler(reached: str, _stop: object) -> None:
        if reached == point and next(count) == 3:
            raise OSError(number, os.strerror(number))

    assert case.child(folder, handler) == STORAGE
    failure = folder.read_result()
    assert failure is not None and os.strerror(number) in str(failure.reason)
    assert case.child(folder) == 0
    assert_same_run(whole, folder)


def test_a_refused_fsync_is_a_storage_error(case: Case, whole: RunFolder, tmp_path: Path) -> None:
    folder = case.folder(tmp_path, "unsynced")

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def handler(reached: str, _stop: object) -> None:
        if reached == "checkpoint:before-manifest":
            os.fsync = refuse

    assert case.child(folder, handler) == STORAGE
    assert not list_checkpoints(folder.checkpoints)
    assert case.child(folder) == 0
    assert_same_run(whole, folder)


@pytest.mark.parametrize("what", ["run", "checkpoints"])
def test_a_folder_deleted_in_flight_never_gives_a_wrong_result(
    case: Case, whole: RunFolder, what: str, tmp_path: Path
) -> None:
    folder = case.folder(tmp_path, "deleted")
    gone = folder.path if what == "run" else folder.checkpoints
    count = iter(range(10**9))

    def handler(reached: str, _stop: object) -> None:
        if reached == "train:after-optimizer" and next(count) == 4:
            shutil.rmtree(gone)

    code = case.child(folder, handler)
    assert code == (STORAGE if what == "run" else 0)
    assert case.child(folder) == 0
    assert_same_run(whole, folder)


def test_a_run_folder_that_is_moved_resumes_where_it_lies(
    case: Case, whole: RunFolder, killed: RunFolder, tmp_path: Path
) -> None:
    folder = copy(killed, case, tmp_path, "before")
    moved = case.folder(tmp_path / "elsewhere", "after")
    moved.path.parent.mkdir(parents=True)
    folder.path.rename(moved.path)
    assert case.child(moved) == 0
    assert_same_run(whole, moved)
    texts = [p.read_text() for p in moved.path.rglob("*.json*") if p.name != "spec.json"]
    assert not any(str(tmp_path) in text for text in texts)


@pytest.mark.parametrize("name", ["steps", "epochs"])
def test_a_duplicate_line_is_kept_once_and_found_by_fsck(
    case: Case, whole: RunFolder, killed: RunFolder, name: str, tmp_path: Path
) -> None:
    folder = copy(killed, case, tmp_path, "twice")
    path: Path = getattr(folder, name)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *lines]))
    assert case.child(folder) == 0
    assert_same_run(whole, folder)


@pytest.mark.parametrize("is_noted", [True, False])
@pytest.mark.parametrize("name", ["steps", "epochs"])
def test_a_lost_line_is_refused_and_never_papered_over(
    case: Case, whole: RunFolder, killed: RunFolder, name: str, *, is_noted: bool, tmp_path: Path
) -> None:
    folder = copy(killed, case, tmp_path, "lost")
    if not is_noted:  # how far the records were written, so that only their numbers show a gap
        (folder.path / "written.json").unlink()
    path: Path = getattr(folder, name)
    kept = path.read_bytes()
    path.write_bytes(b"".join(kept.splitlines(keepends=True)[1:]))
    assert case.child(folder) == STORAGE
    failure = folder.read_result()
    assert failure is not None and path.name in str(failure.reason)
    path.write_bytes(kept)
    assert case.child(folder) == 0
    assert_same_run(whole, folder)


@pytest.mark.parametrize("kind", ["flipped", "truncated", "emptied", "deleted"])
def test_a_damaged_best_epoch_is_never_scored(
    case: Case, killed: RunFolder, kind: str, tmp_path: Path
) -> None:
    folder = copy(killed, case, tmp_path, "best")
    DAMAGE[kind](folder.best / "adapter_model.safetensors")
    assert case.child(folder) == STORAGE
    failure = folder.read_result()
    assert failure is not None and "adapter_model.safetensors" in str(failure.reason)
    assert not folder.evaluations.exists()
