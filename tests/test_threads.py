"""How many threads compute."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from lorastudy.errors import ConfigError
from lorastudy.threads import (
    count_cores,
    let_crowded_threads_sleep,
    refuse_threads,
    share_cores,
)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("n_processes", "most", "n_threads"),
    [(1, "", 8), (2, "", 4), (3, "", 2), (99, "", 1), (1, "3", 3), (4, "3", 2), (1, "3,2", 3)]
    + [(1, nonsense, 8) for nonsense in ("0", "-1", "many")],
)
def test_a_process_takes_its_share_of_the_cores_and_at_most_omp_num_threads(
    n_processes: int,
    most: str,
    n_threads: int,
    eight_cores: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", most)
    assert share_cores(n_processes) == n_threads


@pytest.mark.parametrize("said", [None, "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_how_threads_wait_is_set_only_where_nobody_said_so(
    said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {said: "7"} if said else {}
    monkeypatch.setattr(os, "environ", dict(environment))
    let_crowded_threads_sleep()
    chosen = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
    assert os.environ == (environment or chosen)


@pytest.mark.parametrize(("n_threads", "is_too_many"), [(None, False), (32, False), (33, True)])
def test_far_more_threads_than_cores_are_refused(
    n_threads: int | None, is_too_many: bool, eight_cores: None
) -> None:
    with pytest.raises(ConfigError, match="at most 8") if is_too_many else nullcontext():
        refuse_threads(n_threads)


@pytest.mark.parametrize(
    ("files", "n_cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_the_quota_of_a_container_counts(
    files: dict[str, str], n_cores: int, eight_cores: None, tmp_path: Path
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert count_cores(tmp_path) == n_cores
