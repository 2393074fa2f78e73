"""A command that is told to stop while it starts: exit 75, and no process is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path

import psutil
import pytest

from lorastudy.config.study_file import dump_study
from lorastudy.errors import InterruptedRunError
from lorastudy.interrupts import StopFlag, signals_blocked
from lorastudy.launch import probe, worker
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


def fork_servers(pid: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(pid).children() if "forkserver" in " ".join(p.cmdline())]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["first handler", "fork server"])
def test_a_signal_in_the_first_second_ends_the_command_and_its_children(
    tiny_gpt2: Path, tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    texts = write_texts(tmp_path / "texts")
    (texts / "study.yaml").write_text(dump_study(make_study(tiny_gpt2)))
    command = [sys.executable, "-m", "lorastudy", "run", "study.yaml", "--out", "out"]
    said = tmp_path / "said.txt"  # no pipe, which would stay open as long as a child
    numbers = (signal.SIGINT, signal.SIGHUP)  # a script ignores the first by `&`, nohup the second
    was = {ignored: signal.signal(ignored, signal.SIG_IGN) for ignored in numbers}
    with said.open("w") as stream:
        process = subprocess.Popen(command, cwd=texts, stderr=stream, start_new_session=True)
    for ignored, handler in was.items():
        signal.signal(ignored, handler)
    servers: list[psutil.Process] = []
    if moment == "first handler":
        wait_until(lambda: catches(process.pid, signal.SIGTERM))
        assert not catches(process.pid, signal.SIGHUP)
    else:
        wait_until(lambda: process.poll() is not None or bool(fork_servers(process.pid)))
        servers = fork_servers(process.pid)
        assert servers
        servers[0].send_signal(number)
        time.sleep(0.5)  # for the server to be in its imports, and to end or complain if it would
        assert servers[0].status() != psutil.STATUS_ZOMBIE
    os.killpg(process.pid, number)  # as a terminal sends Ctrl-C
    assert process.wait(timeout=SECONDS) == INTERRUPTED
    # while it imports, a fork server that is left to itself stays for many seconds
    assert psutil.wait_procs(servers, timeout=3)[1] == []
    message = said.read_text()
    assert "run the same command again" in message.lower() and "Traceback" not in message


def test_a_signal_before_a_worker_listens_stops_it_when_it_does() -> None:
    with signals_blocked():  # as the fork server starts
        if (started := os.fork()) == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            stop = StopFlag()
            stop.listen()
            os._exit(InterruptedRunError.exit_code if stop.requested else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(started, 0)[1]) == INTERRUPTED


def test_a_process_that_tries_an_arm_ends_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "try_arm", lambda _: time.sleep(SECONDS))
    ours, theirs = Pipe()
    if (tried := os.fork()) == 0:
        ours.close()
        probe._work(None, theirs)  # type: ignore[arg-type]
        os._exit(0)
    theirs.close()
    ours.close()  # as the system does for a command that was killed
    try:
        wait_until(lambda: os.waitpid(tried, os.WNOHANG)[0] == tried)
    except AssertionError:
        os.kill(tried, signal.SIGKILL)
        raise
