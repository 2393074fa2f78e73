"""The small texts of a study file: names, hub ids, module patterns and protocol names.

Each `type` below is a checked string or number for the models of `config`. A name is safe in a
path on every operating system and in a page without escaping, and nothing here can lead out of a
folder. Only the form of layer types and patterns is checked here; `model` decides which modules
they mean, with a real model.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from lorastudy.protocols import PROTOCOLS, describe_mistake, is_protocol

LAYER_TYPES = (
    *("attention", "projection", "attention-projection", "feed-forward", "output"),
    *("all-linear", "query", "key", "value"),
)
# Linear modules at the root of a model: the only patterns without a dot.
ROOT_PATTERNS = ("lm_head", "embed_out")
FULL_OR_LORA: Literal["full-or-lora"] = "full-or-lora"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)*", re.ASCII)
_FUNCTION = re.compile(r"[^:]+:[A-Za-z_][A-Za-z0-9_]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLACEMENT_PATTERN = re.compile(r"(?:\*|\w+)(?:\.(?:\*|\w+))+", re.ASCII)

Mistake = tuple[str, str]  # key below the model that found it ("" = itself), sentence


def make_name(text: str, *, most: int = 64) -> str:
    """`text` without the characters that a name cannot have, cut off; perhaps nothing is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:most].rstrip("-._")


def refuse(mistakes: list[Mistake]) -> None:
    """Raise one pydantic error that carries every mistake with its own key."""
    if mistakes:
        text = "; ".join(f"{key}: {what}" if key else what for key, what in mistakes)
        raise PydanticCustomError("study_mistakes", "{text}", {"text": text, "mistakes": mistakes})


def wrong_value(text: str, candidates: Iterable[str] = ()) -> PydanticCustomError:
    """The error of a single value: its `repr`, then `text`, then the nearest of `candidates`."""
    context = {"text": text, "candidates": tuple(candidates)}
    return PydanticCustomError("study_value", "{text}", context)


def _checked_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise wrong_value(
            "cannot name a folder; use 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit and not ending with '.'"
        )
    return value


def _checked_hub_id(value: str) -> str:
    if not _HUB_ID.fullmatch(value) or ".." in value or len(value) > 200:
        raise wrong_value("is not a hub id such as 'owner/name'; local files belong under path")
    return value


def _checked_revision(value: str) -> str:
    if not _REVISION.fullmatch(value) or ".." in value or len(value) > 200:
        raise wrong_value("is not a branch, tag or commit such as 'main'")
    return value


def _checked_path(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise wrong_value(
            "is not a file, folder or glob: it is empty or has control characters; write folders "
            "with /, since a backslash in double quotes begins such a character"
        )
    return value


def _checked_function(value: str) -> str:
    if not _FUNCTION.fullmatch(value):
        raise wrong_value("does not name a function; write module:function or file.py:function")
    return value


def _checked_sha256(value: str) -> str:
    if not _SHA256.fullmatch(value):
        raise wrong_value("is not a SHA-256 digest: 64 characters from 0 to 9 and a to f")
    return value


def _checked_placement(value: str) -> str:
    if value in LAYER_TYPES or value in ROOT_PATTERNS or _PLACEMENT_PATTERN.fullmatch(value):
        return value
    if "." in value:
        raise wrong_value(
            "is not a module pattern: segments joined by dots, where '*' stands for exactly one "
            "whole segment, such as transformer.h.*.attn.c_proj",
        )
    raise wrong_value(
        "is neither a layer type nor a dotted module pattern; a module's name needs its path from "
        "the model's root, such as model.layers.*.self_attn.q_proj or transformer.h.*.attn.c_proj",
        (*LAYER_TYPES, *ROOT_PATTERNS),
    )


def _checked_protocol(value: str) -> str:
    if not is_protocol(value):
        examples = [protocol.example for protocol in PROTOCOLS]
        raise wrong_value("is not a protocol; N and S are numbers of tokens", examples)
    if mistake := describe_mistake(value):
        raise wrong_value(mistake)
    return value


def _checked_question(value: object) -> object:
    """Said here in one sentence, where pydantic has one for each form that does not fit."""
    is_pair = isinstance(value, tuple | list) and [type(part) for part in value] == [str, str]
    if value is not None and value != FULL_OR_LORA and not is_pair:
        raise wrong_value(
            f"is not a question; write {FULL_OR_LORA}, or the names of two arms such as "
            "[full, lora-1]"
        )
    return tuple(value) if isinstance(value, list) else value  # JSON has lists


def repeated(key: str, values: Sequence[object]) -> list[Mistake]:
    """A mistake for every value that the list `key` contains twice."""
    found = [i for i, value in enumerate(values) if value in values[:i]]
    return [(f"{key}.{i}".strip("."), f"{values[i]!r} is in this list twice") for i in found]


def _for_editors(**hints: Any) -> FieldInfo:
    """What the JSON Schema says about a text besides its type, for editors."""
    field: FieldInfo = Field(json_schema_extra=hints)
    return field


Name = Annotated[str, AfterValidator(_checked_name), _for_editors(pattern=f"^(?:{_NAME.pattern})$")]
HubId = Annotated[str, AfterValidator(_checked_hub_id)]
Revision = Annotated[str, AfterValidator(_checked_revision)]
FilePath = Annotated[str, AfterValidator(_checked_path)]
FunctionName = Annotated[
    str, AfterValidator(_checked_function), _for_editors(pattern=f"^(?:{_FUNCTION.pattern})$")
]
Sha256 = Annotated[
    str, AfterValidator(_checked_sha256), _for_editors(pattern=f"^(?:{_SHA256.pattern})$")
]
PlacementEntry = Annotated[
    str,
    AfterValidator(_checked_placement),
    _for_editors(
        anyOf=[
            {"enum": [*LAYER_TYPES, *ROOT_PATTERNS]},
            {"pattern": f"^(?:{_PLACEMENT_PATTERN.pattern})$"},
        ]
    ),
]
ProtocolName = Annotated[
    str,
    AfterValidator(_checked_protocol),
    _for_editors(
        anyOf=[
            {
                "pattern": f"^{protocol.expression}$",
                "description": protocol.description,
                "examples": [protocol.example],
            }
            for protocol in PROTOCOLS
        ],
    ),
]
LearningRate = Annotated[float, Field(gt=0, lt=1)]
Margin = Annotated[float, Field(gt=0, lt=1)]
Question = Annotated[
    Literal["full-or-lora"] | tuple[Name, Name] | None, BeforeValidator(_checked_question)
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
_T = TypeVar("_T")
# Keys that are not written, and so do not enter identities, while they are null or say nothing.
IfGiven = Annotated[_T | None, Field(exclude_if=lambda value: value is None)]
IfAny = Annotated[_T, Field(exclude_if=lambda value: not value)]
MOST = 10**9  # of anything that is counted
Count = Annotated[int, Field(ge=1, le=MOST)]


class StudyModel(BaseModel):
    """Base of everything in a study file: frozen, strict, finite, no unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        defer_build=True,  # most commands need few of the models
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The JSON Schema, with the docstring under a field as its description.

        pydantic's `use_attribute_docstrings` would read the source at every import.
        """
        reference = handler(core_schema)
        properties = handler.resolve_ref_schema(reference)["properties"]
        for name, text in _attribute_docstrings(cls).items():
            properties[name]["description"] = text
        return reference


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings directly under the fields of a model and of its bases."""
    texts: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if model.model_fields.keys() & inspect.get_annotations(owner).keys():
            (declaration,) = ast.parse(inspect.getsource(owner)).body
            assert isinstance(declaration, ast.ClassDef)
            for pair in pairwise(declaration.body):
                match pair:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                        value=ast.Constant(value=str(text))
                    ):
                        texts[name] = inspect.cleandoc(text)
    return texts
