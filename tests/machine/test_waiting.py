"""Threads of a run stop spinning while other programs use the cores, and results stay the same."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from lorastudy.machine import waiting
from lorastudy.machine.memory import CpuTimes


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def look_often(
    monkeypatch: pytest.MonkeyPatch, waited_share: float, *, free_from: float = 1e9
) -> list[int]:
    """Let the cores be as busy as said, until they are free; the list grows as sleeps end."""
    began = time.monotonic()
    asleep: list[int] = []
    idle = waiting._idle

    def read() -> CpuTimes:
        seconds = time.monotonic() - began
        ready = 1000 * seconds  # of a thousand threads, so never a few only
        waited = 1000 * waited_share * min(seconds, free_from)
        return CpuTimes(ready - waited, waited)

    def count(end: threading.Event) -> None:
        idle(end)
        asleep.append(threading.active_count())

    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(waiting, "ASLEEP_SECONDS", 0.01)
    monkeypatch.setattr(waiting, "read_cpu_times", read)
    monkeypatch.setattr(waiting, "_idle", count)
    return asleep


@pytest.mark.parametrize(("waited_share", "sleeps"), [(0.3, True), (0.01, False)])
def test_threads_sleep_while_others_use_the_cores(
    waited_share: float, sleeps: bool, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_before, asleep = threading.active_count(), look_often(monkeypatch, waited_share)
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    alone = x @ x
    with waiting.sleep_beside_others():
        for _ in range(50):
            assert torch.equal(x @ x, alone)
            time.sleep(0.004)
    assert bool(asleep) == sleeps
    assert all(n == n_before + 2 for n in asleep)  # the one that looks and the one that is idle
    assert threading.active_count() == n_before


def test_threads_stay_asleep_until_the_cores_are_free(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep = look_often(monkeypatch, 0.3, free_from=0.2)
    began = time.monotonic()
    with waiting.sleep_beside_others():
        while not asleep and time.monotonic() < began + 20:
            time.sleep(0.01)
        assert len(asleep) == 1 and time.monotonic() > began + 0.2
        time.sleep(0.1)
    assert len(asleep) == 1


def test_one_thread_waits_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = look_often(monkeypatch, 0.9)
    n_before = threading.active_count()
    with waiting.sleep_beside_others():
        assert threading.active_count() == n_before
    assert asleep == []
