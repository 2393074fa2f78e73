"""`decide`: limits that cannot be read, and folders that have nothing to decide yet."""

import json
from pathlib import Path

import pytest

from support.command_line import call, write_study


@pytest.mark.parametrize(
    ("option", "form"),
    [
        (("--device-memory", "0GB"), "8GB"),
        (("--device-memory=-1",), "8GB"),
        (("--time", "fast"), "1.5h"),
        (("--time", ""), "1.5h"),
        (("--size", "50"), "50MB"),
        (("--forget=-1",), "0.02"),
        (("--margin", "0"), "0.01"),
        (("--margin", "fast"), "0.01"),
    ],
)
def test_a_limit_that_cannot_be_read_is_answered_with_its_form(
    option: tuple[str, ...], form: str
) -> None:
    answer = call("decide", "nowhere", *option)
    assert answer.code == 2 and form in answer.err
    assert answer.err.startswith(f"lorastudy: {option[0].partition('=')[0]} ")


def test_a_study_without_finished_runs_says_what_is_missing(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    write_study(tmp_path, tiny_gpt2)
    for limits in ((), ("--time", "1h", "--forget", "0.1")):
        answer = call("decide", tmp_path, *limits)
        assert answer.code == call("table", tmp_path).code == 0, answer.err
        assert answer.out.startswith("Nothing to recommend")
        assert "5 of 5 runs: baseline-s0-" in answer.out
        assert f"lorastudy run {tmp_path}" in answer.out
    told = json.loads(call("decide", tmp_path, "--json").out)
    assert (told["outcome"], told["next"]["kind"]) == ("nothing to compare", "finish")
    nowhere = call("decide", tmp_path / "nowhere")
    assert nowhere.code == call("report", tmp_path / "nowhere").code == 2
