"""Sizes and durations as people read them."""

import pytest

from lorastudy.units import write_clock, write_duration, write_mib


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
