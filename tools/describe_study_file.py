"""Write docs/study-file.md from the models of a study file, so that the page cannot go stale.

./run python tools/describe_study_file.py > docs/study-file.md
"""

import types
import typing
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lorastudy.config.benchmarks import BestBy, Generation, Samples
from lorastudy.config.budget import PlannedArm, TrainingBudget
from lorastudy.config.models import (
    Arm,
    BaseModelRef,
    Benchmark,
    Data,
    EarlyStopping,
    MixedSource,
    Optimizer,
    Rows,
    Schedule,
    Source,
    Study,
    Training,
    TrainSource,
    ValidationSource,
)

PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("", Study),
    ("base_model", BaseModelRef),
    ("data", Data),
    ("data.train, data.validation, data.best_by.items, and each of benchmarks", Source),
    ("data.train, besides the keys of a source", TrainSource),
    ("each of data.train.mixture, besides the keys of a source", MixedSource),
    ("data.validation, besides the keys of a source", ValidationSource),
    ("data.rows", Rows),
    ("data.best_by", BestBy),
    ("training", Training),
    ("training.schedule", Schedule),
    ("training.optimizer", Optimizer),
    ("training.early_stopping", EarlyStopping),
    ("training.budget", TrainingBudget),
    ("each of training.budget.planned", PlannedArm),
    ("each of arms", Arm),
    ("each of benchmarks, besides the keys of a source", Benchmark),
    ("generation of data.best_by and of each of benchmarks", Generation),
    ("samples", Samples),
)
HEAD = """\
# Study file

Every key, what it may hold, and what it is where it is left out. Unknown keys and wrong types are
refused, all at once, with the nearest known name. `lorastudy init` writes commented files to start
from, and beside them the JSON Schema with which an editor completes and checks these keys.
How layer types, patterns and protocols are written: [Own data and model](own-data.md),
[Protocols](protocols.md).

Any key can be replaced for one command: `--set training.epochs=2`, `--set arms.lora-1.rank=8`,
`--set seeds=[0]`. (`tools/describe_study_file.py` writes this page.)
"""


def describe_page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(title, part) for title, part in PARTS)


def _section(title: str, part: type[BaseModel]) -> str:
    is_source = issubclass(part, Source) and part is not Source
    inherited = set(Source.model_fields) if is_source else set()
    described = part.model_json_schema()["properties"]
    rows = [
        f"| `{key}` | {_kind(field)} | {_default(field)} | {described[key]['description']} |"
        for key, field in part.model_fields.items()
        if key not in inherited
    ]
    heading = title[:1].upper() + title[1:] if title.startswith("each") else title
    doc = (part.__doc__ or "").splitlines()[0]
    return "\n".join(
        [
            "",
            f"## {heading or 'The file'}",
            "",
            doc,
            "",
            "| key | holds | left out | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _kind(field: FieldInfo) -> str:
    return _kind_of(field.annotation)


def _kind_of(kind: Any) -> str:
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _kind_of(inside[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (Union, types.UnionType):
        return " or ".join("`null`" if a is type(None) else _kind_of(a) for a in inside)
    if origin is tuple:
        inner = _kind_of(inside[0])
        return f"list of {inner}s" if Ellipsis in inside else f"{len(inside)} of {inner}"
    if origin is dict or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return "mapping"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[kind]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.default
    assert value is not PydanticUndefined
    if isinstance(value, BaseModel):
        return "its own defaults"
    if value is None or value == ():
        return "–"
    if isinstance(value, tuple):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    print(describe_page(), end="")
