"""What a study file may have, key by key: wrong values are explained in words of this program."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any, get_origin

import pytest
from pydantic import BaseModel

from lorastudy.config.models import Study
from lorastudy.config.right_form import _models_in
from lorastudy.config.study_file import load_study, make_study, preset_text
from lorastudy.config.yaml_text import parse_yaml
from lorastudy.data.choices import read_question
from lorastudy.errors import ConfigError, UserError
from lorastudy.study.price import read_price
from lorastudy.units import read_bytes, read_count

FROM_PYDANTIC = ("should ", "match pattern", "Input", "Value error", "validation error")
WRONG = (None, "", "x y", -1.5, {}, [], [{}])
TEXT = preset_text("demo")


def list_keys(model: type[BaseModel], above: tuple[str | int, ...] = ()) -> Iterator[tuple]:
    for key, field in model.model_fields.items():
        yield (*above, key)
        inside = (*above, key, *([0] if get_origin(field.annotation) is tuple else []))
        for below in _models_in(field.annotation):
            yield from list_keys(below, inside)


def put(study: dict[str, Any], path: tuple[str | int, ...], value: object) -> None:
    """Set one value; what is missing above it is made."""
    node: Any = study
    for key, below in pairwise(path):
        if not (isinstance(node, list) or isinstance(node.get(key), dict | list)):
            node[key] = [{}] if below == 0 else {}
        node = node[key]
    node[path[-1]] = value


def test_no_wrong_value_is_explained_in_words_of_a_library() -> None:
    n_refused, sound = 0, parse_yaml(TEXT, "demo")
    for path in list_keys(Study):
        for value in WRONG:
            study = deepcopy(sound)
            put(study, path, value)
            try:
                make_study(study, "the study")
            except ConfigError as error:
                n_refused += 1
                found = [words for words in FROM_PYDANTIC if words in str(error)]
                assert not found, (path, value, str(error))
    assert n_refused > 500


@pytest.mark.parametrize("function", ["judge", "judge:", ":judge", "a.py:1", "a:b:c"])
def test_the_form_of_a_function_is_said(function: str) -> None:
    task = f"{{name: b, path: c, protocols: [own-function], function: {function!r}}}"
    with pytest.raises(ConfigError, match=r"benchmarks\.b\.function: .* write module:function or"):
        load_study(TEXT, "the study", [f"benchmarks=[{task}]"])


def test_digits_of_other_scripts_are_not_numbers() -> None:
    assert read_count("2M") and read_bytes("12GB") and read_price("1.20/h").per_hour == 1.2
    assert read_count("२M") is None and read_bytes("१२GB") is None
    for read in (
        lambda: read_price("१.२०/h"),
        lambda: load_study(TEXT, "s", ["arms.lora-1.alpha=२r"]),
        lambda: load_study(TEXT, "s", ["arms.lora-1.layers=०-१"]),
        lambda: load_study(TEXT, "s", ["seeds.०=9"]),
        lambda: read_question("row 1", ("question", "choices", "answer"), ("?", ["y", "n"], "०")),
    ):
        with pytest.raises(UserError):
            read()
