"""What is wrong with a study file, in words: one line for each mistake that pydantic found.

A line is `key.path: sentence`. Values are shown by their `repr`, shortened, so that nothing
in a study file can write control characters to a terminal.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lorastudy.config.models import Study

# Keys that other tools use for the same thing, spelt too differently to be found as near.
_WORDS_OF_OTHERS = {
    "lr": "learning_rates",
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "placement",
    "batch_size": "rows_per_step",
    "per_device_train_batch_size": "micro_batch",
    "num_train_epochs": "epochs",
    "warmup_ratio": "warmup",
    "model": "base_model",
    "max_length": "length",
    "block_size": "length",
    "seed": "seeds",
    "datasets": "benchmarks",
    "eval_steps": "validate_every",
    "threshold": "min_delta",
    "test_size": "from_train",
    "val_set_size": "from_train",
    "bf16": "bfloat16",
    "fp16": "bfloat16",
    "fp32": "float32",
}
_SEEDS_SHOWN = 10
_SENTENCES = {
    "missing": "is required",
    "int_type": "must be a whole number, not {value}",
    "int_from_float": "must be a whole number, not {value}",
    "float_type": "must be a number, not {value}",
    "finite_number": "must be a finite number, not {value}",
    "bool_type": "must be true or false, not {value}",
    "string_type": "must be text, not {value}; put it in quotes",
    "tuple_type": "must be a list such as [...], not {value}{form}",
    "dict_type": "must be a mapping of keys, not {value}{form}",
    "model_type": "must be a mapping of keys, not {value}{form}",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} values",
    "greater_than": "must be greater than {gt}, not {value}",
    "greater_than_equal": "must be at least {ge}, not {value}",
    "less_than": "must be less than {lt}, not {value}",
    "less_than_equal": "must be at most {le}, not {value}",
    "string_too_short": "must not be empty",
}


def describe_mistakes(error: ValidationError, data: Mapping[str, Any]) -> list[str]:
    """One line `key.path: what is wrong` for each mistake, in the order of the fields.

    `data` is what was validated; it gives arms and benchmarks in key paths their names.
    """
    found = [details for details in error.errors(include_url=False) if not _is_echo(details)]
    return [line for details in found for line in _lines(details, data)]


def nearest(word: str, candidates: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the most similar candidate, or nothing if none is similar."""
    known = list(candidates)
    found = difflib.get_close_matches(word, known, n=1)
    if not found and _WORDS_OF_OTHERS.get(word) in known:
        found = [_WORDS_OF_OTHERS[word]]
    return f" (did you mean {found[0]!r}?)" if found else ""


def _is_echo(details: ErrorDetails) -> bool:
    """Pydantic calls a list too short if its only members are wrong, which was already said."""
    return details["type"] == "too_short" and bool(details["input"])


def _lines(details: ErrorDetails, data: Mapping[str, Any]) -> Iterator[str]:
    context = details.get("ctx", {})
    for key, what in context.get("mistakes", [("", _sentence(details, context))]):
        below = tuple(int(part) if part.isdecimal() else part for part in key.split(".") if part)
        yield f"{_key_path((*details['loc'], *below), data)}: {what}".removeprefix(": ")


def _sentence(details: ErrorDetails, context: Mapping[str, Any]) -> str:
    value = details["input"]
    if details["type"] == "extra_forbidden":
        allowed = _allowed_keys(details["loc"][:-1])
        return f"unknown key{_choice(str(details['loc'][-1]), allowed)}"
    if details["type"] == "literal_error":
        return f"{_shown(value)} is not allowed{_choice(value, _quoted(context['expected']))}"
    if details["type"] == "study_value":
        return f"{_shown(value)} {context['text']}{_choice(value, context['candidates'])}"
    sentence = _SENTENCES.get(details["type"])
    if sentence is None:
        return details["msg"]
    return sentence.format(value=_shown(value), form=_right_form(details), **context)


def _right_form(details: ErrorDetails) -> str:
    """How a value would be written that stands alone where a list or a mapping is expected."""
    value, path = details["input"], details["loc"]
    needs_form = details["type"] in ("tuple_type", "model_type") and not isinstance(value, dict)
    if not needs_form or value is None or path[-1] in ("arms", "benchmarks"):
        return ""
    shown = _shown(value).strip("'")
    if details["type"] == "tuple_type":
        if path == ("seeds",) and isinstance(value, int) and 1 < value <= _SEEDS_SHOWN:
            return f"; write {list(range(value))} for {value} seeds"
        if path == ("seeds",) and not isinstance(value, int):
            return "; write them one by one, such as [0, 1, 2]"
        return f"; write [{shown}]"
    keys = [key for key in ("id", "path") if key in _allowed_keys(path)]
    forms = " or ".join(f"{{{key}: {shown}}}" for key in keys)
    return f"; write {forms}" if forms else ""


def _choice(word: object, allowed: Sequence[str]) -> str:
    if not allowed:
        return ""
    return f"{nearest(str(word), allowed)}; allowed: {', '.join(allowed)}"


def _quoted(expected: str) -> list[str]:
    return re.findall(r"'([^']*)'", expected)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, tuple):
        return "a list"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _allowed_keys(path: Sequence[str | int]) -> list[str]:
    """The keys of the model at `path` in a study."""
    model: type[BaseModel] = Study
    for key in path:
        if isinstance(key, str):
            model = _model_in(model.model_fields[key].annotation)
    return list(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(_model_in(part) for part in get_args(annotation) if part is not Ellipsis)


def _key_path(path: Sequence[str | int], data: object) -> str:
    """The path with dots; a member of a list is named, not numbered, if its name is unique."""
    parts = []
    for key in path:
        parts.append(_name_of_member(data, key) if isinstance(key, int) else _plain_key(key))
        data = _below(data, key)
    return ".".join(parts)


def _below(data: object, key: str | int) -> object:
    if isinstance(data, dict):
        return data.get(key)
    if isinstance(data, list) and isinstance(key, int) and key < len(data):
        return data[key]
    return None


def _name_of_member(members: object, index: int) -> str:
    if not isinstance(members, list) or index >= len(members):
        return str(index)
    names = [part.get("name") if isinstance(part, dict) else None for part in members]
    name = names[index]
    if isinstance(name, str) and names.count(name) == 1 and _plain_key(name) == name:
        return name
    return str(index)


def _plain_key(key: str) -> str:
    return key if re.fullmatch(r"\w(?:[\w.-]{0,62}[\w-])?", key, re.ASCII) else _shown(key)
