"""JSON of every command can be read by every reader: it never holds NaN or Infinity."""

import json
from pathlib import Path

import pytest

from lorastudy.units import write_json


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_number_that_is_not_finite_becomes_null(value: float) -> None:
    text = write_json({"a": [value, (1.5, {"b": value})], "c": Path("x")}, indent=1)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    read = json.loads(text, parse_constant=refuse)
    assert read == {"a": [None, [1.5, {"b": None}]], "c": "x"}
