"""Sizes and durations as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorastudy.units import (
    read_bytes,
    read_seconds,
    write_bytes_up,
    write_clock,
    write_duration,
    write_mib,
    write_nats_up,
    write_seconds_up,
)


@pytest.mark.parametrize(("n_bytes", "text"), [(0, "0"), (3 * 2**19, "2"), (1234 * 2**20, "1,234")])
def test_bytes_are_written_in_whole_mib(n_bytes: int, text: str) -> None:
    assert write_mib(n_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (41.6, "0:42"), (725, "12:05"), (3599.6, "1:00:00"), (11099, "3:04:59")],
)
def test_time_left_has_hours_only_where_there_are_any(seconds: float, text: str) -> None:
    assert write_clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (4.24, "0:00:04.2"),
        (9.94, "0:00:09.9"),
        (9.96, "0:00:10"),
        (59.6, "0:01:00"),
        (725.4, "0:12:05"),
        (11099, "3:04:59"),
        (float("nan"), "not finite"),
    ],
)
def test_time_taken_has_a_tenth_below_ten_seconds(seconds: float, text: str) -> None:
    assert write_duration(seconds) == text


@given(st.integers(1, 10**12))
def test_an_amount_that_is_rounded_up_is_read_as_one_that_is_not_smaller(number: int) -> None:
    n_bytes, seconds = (
        read_bytes(write_bytes_up(number)),
        read_seconds(write_seconds_up(number / 7)),
    )
    assert n_bytes is not None and number <= n_bytes <= 1.01 * number + 1
    assert seconds is not None and number / 7 <= seconds <= 1.01 * number / 7
    assert number / 9e12 <= float(write_nats_up(number / 9e12)) <= 1.01 * number / 9e12
    assert write_nats_up(number / 1000) == f"{number / 1000:g}" or number > 999
    assert len(write_bytes_up(number).rstrip("GMkB").replace(".", "").strip("0")) <= 3


@pytest.mark.parametrize("text", ["", "12", "GB", "-3GB", "0GB", "1e3GB", "0.0001kB", "5h GB"])
def test_what_is_no_amount_of_bytes_is_not_read(text: str) -> None:
    assert read_bytes(text) is None


def test_units_are_read_in_both_bases_and_in_any_case() -> None:
    assert [read_bytes(text) for text in ("1.5GB", "1.5 GiB", "2kb")] == [1.5e9, 1.5 * 2**30, 2000]
    assert [read_seconds(text) for text in ("1.5h", "90 min", "45s", "2d")] == [
        *(5400, 5400, 45, 172_800)
    ]
