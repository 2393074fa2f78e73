"""A command that is told to stop while it starts: exit 75, and no process is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lorastudy.config.study_file import dump_study
from support.tiny_runs import make_study, write_texts

INTERRUPTED = 75
SECONDS = 120  # patience for a busy machine


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def has_children(pid: int) -> bool:
    return any("forkserver" in " ".join(p.cmdline()) for p in psutil.Process(pid).children())


def is_group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["first handler", "fork server"])
def test_a_signal_in_the_first_second_ends_the_command_and_its_children(
    tiny_gpt2: Path, tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    texts = write_texts(tmp_path / "texts")
    (texts / "study.yaml").write_text(dump_study(make_study(tiny_gpt2)))
    command = [sys.executable, "-m", "lorastudy", "run", "study.yaml", "--out", "out"]
    process = subprocess.Popen(
        command,
        cwd=texts,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    if moment == "first handler":
        wait_until(lambda: catches(process.pid, signal.SIGTERM))
    else:
        wait_until(lambda: has_children(process.pid))
    process.send_signal(number)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == INTERRUPTED
    assert b"run the same command again" in said.lower() and b"Traceback" not in said
    ended = time.monotonic()
    wait_until(lambda: not is_group_alive(process.pid))
    assert time.monotonic() - ended < 3  # an importing fork server would stay for longer
