"""Values of an arm that are more than a number or a name: budgets, alphas, layers, mappings.

Each `type` below is checked in form only. What a placement means in a model, and which keys a
method of PEFT knows, is decided in `model`.
"""

import json
import math
import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, WithJsonSchema
from pydantic_core import PydanticKnownError

from lorastudy.config.syntax import Count, PlacementEntry, wrong_value
from lorastudy.units import COUNT_PATTERN, read_count

_ALPHA = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?r")
_LAYERS = re.compile(r"[0-9]+(?:-[0-9]+)?|last-[1-9][0-9]*")

_Value = TypeVar("_Value")


class HashableMapping(dict[str, _Value]):
    """A mapping as a part of a frozen value; nobody changes it after it was made."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True, default=repr))


def _count_budget(value: object) -> object:
    """Trainable parameters as a number: of 1_600_000, 1.6e6 or "1.6M"."""
    if isinstance(value, str):
        found = read_count(value)
        if found is None:
            raise wrong_value("is not a number of parameters, such as 1600000, 800k or 1.6M")
        value = found
    if isinstance(value, float) and math.isfinite(value) and round(value) == value:
        return round(value)
    return value


def _check_alpha(value: object) -> object:
    if isinstance(value, str):
        if not _ALPHA.fullmatch(value) or multiple_of_rank(value) == 0:
            raise wrong_value("is neither a number nor a multiple of the rank, such as 2r")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticKnownError("float_type")
    if not math.isfinite(value):
        raise PydanticKnownError("finite_number")
    if value <= 0:
        raise PydanticKnownError("greater_than", {"gt": 0})
    return float(value)


def multiple_of_rank(alpha: str) -> float:
    """The factor of an alpha that follows the rank: 2.0 of "2r"."""
    return float(alpha.removesuffix("r"))


def _check_layers(value: str) -> str:
    if not _LAYERS.fullmatch(value):
        raise wrong_value("does not name layers; write 3, 0-5 or last-4 (layers count from 0)")
    first, _, last = value.partition("-")
    if last and first != "last" and int(last) < int(first):
        raise wrong_value("ends before it begins; write the lower layer first, such as 0-5")
    return value


def pick_layers(layers: str, n_layers: int) -> range:
    """The layers that "3", "0-5" or "last-4" names in a model of `n_layers`.

    The range may end beyond the model; the caller says so.
    """
    first, _, last = layers.partition("-")
    if first == "last":
        return range(n_layers - int(last), n_layers)
    return range(int(first), int(last or first) + 1)


def _check_start(value: object) -> object:
    if not isinstance(value, bool | str) or value == "":
        raise wrong_value("is neither true, false nor a name such as gaussian or pissa")
    return value


def _with_lists(value: object) -> object:
    """Lists for tuples at every depth, as JSON has them."""
    if isinstance(value, dict):
        return {key: _with_lists(part) for key, part in value.items()}
    return [_with_lists(part) for part in value] if isinstance(value, tuple | list) else value


def _schema(*forms: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(forms)})


Positive = Annotated[float, Field(gt=0)]
Budget = Annotated[
    Count,
    BeforeValidator(_count_budget),
    _schema(
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": f"^(?:{COUNT_PATTERN})$"},
    ),
]
Alpha = Annotated[
    float | str,
    BeforeValidator(_check_alpha),
    _schema(
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": f"^(?:{_ALPHA.pattern})$"},
    ),
]
Layers = Annotated[
    str,
    AfterValidator(_check_layers),
    Field(json_schema_extra={"pattern": f"^(?:{_LAYERS.pattern})$"}),
]
StartName = Annotated[bool | str, BeforeValidator(_check_start)]
RankPattern = Annotated[dict[PlacementEntry, Count], AfterValidator(HashableMapping)]
AlphaPattern = Annotated[dict[PlacementEntry, Positive], AfterValidator(HashableMapping)]
PeftKeys = Annotated[
    dict[str, JsonValue],
    BeforeValidator(_with_lists),
    AfterValidator(HashableMapping),
    WithJsonSchema({"type": "object", "required": ["peft_type"]}),
]
