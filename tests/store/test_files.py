"""Writes are whole or not at all, say what they need, and take the mode the umask gives."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import save_file

from lorastudy import faults
from lorastudy.errors import StorageError
from lorastudy.store.files import (
    publish_folder,
    refuse_unwritable,
    remove_leftovers,
    storage_errors,
    write_text,
)
from lorastudy.store.lines import append_record, read_last_record, read_records


class Line(BaseModel):
    n: int


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], None]]:
    def install(point: str, number: int) -> None:
        def handler(reached: str) -> None:
            if reached == point:
                raise OSError(number, os.strerror(number))

        monkeypatch.setattr(faults, "handler", handler)

    yield install
    faults.handler = None


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def write_model(folder: Path) -> None:
    save_file({"a": torch.zeros(3)}, folder / "model.safetensors")
    (folder / "notes.txt").write_text("two")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_published_files_have_the_mode_that_the_umask_asks_for(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        publish_folder(tmp_path / "best", write_model)
        write_text(tmp_path / "result.json", "{}")
    finally:
        os.umask(before)
    files = [*(tmp_path / "best").iterdir(), tmp_path / "result.json"]
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(mode)}


@pytest.mark.parametrize("point", ["write:before-bytes", "write:before-rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_refused_file_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, fail_at: Callable[[str, int], None], point: str, number: int
) -> None:
    write_text(tmp_path / "result.json", "old")
    fail_at(point, number)
    with pytest.raises(StorageError) as caught:
        write_text(tmp_path / "result.json", "new one")
    assert (tmp_path / "result.json").read_text() == "old"
    assert names(tmp_path) == {"result.json"}
    message = str(caught.value)
    assert os.strerror(number) in message
    assert "7 bytes are needed" in message and "bytes are free" in message


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_may_only_be_read_is_no_matter_of_space(
    tmp_path: Path, fail_at: Callable[[str, int], None], number: int
) -> None:
    fail_at("write:before-bytes", number)
    with pytest.raises(StorageError, match="Change the permissions") as refused:
        write_text(tmp_path / "result.json", "new")
    with pytest.raises(StorageError, match="Change the permissions"), storage_errors(tmp_path):
        raise SafetensorError(f"Error while writing: I/O error: refused (os error {number})")
    assert os.strerror(number) in str(refused.value) and "bytes" not in str(refused.value)


@pytest.mark.parametrize("path", ["file/below", "file/below/it", "folder"])
def test_a_name_that_is_something_else_is_no_matter_of_space(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="Choose another name") as refused:
        write_text(tmp_path / path, "new")
    assert "bytes" not in str(refused.value)
    with pytest.raises(StorageError, match="Choose another name"):
        refuse_unwritable(tmp_path / path, is_folder=False)


def test_a_path_that_can_be_written_is_not_refused_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for path in ("new", "file", "some/where/new"):
        refuse_unwritable(tmp_path / path, is_folder=False)
    refuse_unwritable(tmp_path, is_folder=True)
    assert names(tmp_path) == {"file"}
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # as a read-only folder
    with pytest.raises(StorageError, match="Permission denied"):
        refuse_unwritable(tmp_path / "some" / "where", is_folder=True)


@pytest.mark.parametrize("point", ["publish:before-rename", "publish:between-renames"])
def test_a_refused_folder_gives_its_space_back(
    tmp_path: Path, fail_at: Callable[[str, int], None], point: str
) -> None:
    fail_at(point, errno.ENOSPC)
    with pytest.raises(StorageError, match="5 bytes are needed"):
        publish_folder(tmp_path / "best", write_model, needed_bytes=5)
    assert names(tmp_path) == set()


def test_what_safetensors_says_of_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    in_words = "Error while serializing: I/O error: No space left on device (os error 28)"
    expected = r"safetensors: No space left on device\. 9 bytes"
    with pytest.raises(StorageError, match=expected), storage_errors(path, 9):
        raise SafetensorError(in_words)


def test_a_kill_between_the_renames_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_folder(tmp_path / "best", write_model)
    monkeypatch.setattr(faults, "handler", die_between)
    child = os.fork()
    if child == 0:
        publish_folder(tmp_path / "best", lambda folder: (folder / "new.txt").write_text("new"))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 99
    assert not (tmp_path / "best").exists()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {"best"}
    assert names(tmp_path / "best") == {"model.safetensors", "notes.txt"}


def die_between(point: str) -> None:
    if point == "publish:between-renames":
        os._exit(99)


def test_processes_that_publish_the_same_folder_at_once_all_succeed(tmp_path: Path) -> None:
    children = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for _ in range(5):
                    publish_folder(
                        tmp_path / "figures", lambda f, n=number: (f / "x").write_text(str(n))
                    )
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * 8
    assert names(tmp_path) == {"figures"}


def test_a_write_into_a_folder_that_was_deleted_is_a_storage_error(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    append_record(folder / "steps.jsonl", Line(n=1))
    shutil.rmtree(folder)
    with pytest.raises(StorageError, match="No such file or directory"):
        append_record(folder / "steps.jsonl", Line(n=2))
    assert not folder.exists()


def test_a_torn_last_line_is_no_line(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    append_record(path, Line(n=1))
    with path.open("ab") as stream:
        stream.write(b'{"n": 2')
    assert read_records(path, Line) == (Line(n=1),)
    assert read_last_record(path, Line) == Line(n=1)


@pytest.mark.parametrize("line", [b'{"n": "x"}', b"\0\0\0\0", b"{", b"[]"])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "steps.jsonl"
    append_record(path, Line(n=1))
    with path.open("ab") as stream:
        stream.write(line + b"\n")
    with pytest.raises(StorageError, match=r"steps\.jsonl: line 2 .*"):
        read_records(path, Line)
    with pytest.raises(StorageError, match="its last line"):
        read_last_record(path, Line)
