"""What is wrong with a study file, in words: one line for each mistake that pydantic found.

A line is `key.path: sentence`. Values are shown by their `repr`, shortened, so that nothing
in a study file can write control characters to a terminal.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lorastudy.config.right_form import (
    allowed_keys,
    find_elsewhere,
    find_nearest,
    right_choice,
    right_form,
    shown,
    write_as_field,
)

_ALLOWED = "; allowed: "  # before the choices, at the end of a line
_SENTENCES = {
    "missing": "is required",
    "int_type": "must be a whole number, not {value}{form}",
    "int_from_float": "must be a whole number, not {value}",
    "float_type": "must be a number, not {value}{form}",
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
    return list(_say_once(line for details in found for line in _lines(details, data)))


def _say_once(lines: Iterable[str]) -> Iterator[str]:
    """The lines, each list of what is allowed only where it stands first."""
    said: set[str] = set()
    for line in lines:
        mistake, _, allowed = line.partition(_ALLOWED)
        yield mistake if allowed in said else line
        said.update([allowed] if allowed else [])


def nearest(word: str, candidates: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the most similar candidate, or nothing if none is similar."""
    found = find_nearest(word, candidates)
    return f" (did you mean {found!r}?)" if found else ""


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
        return f"unknown key{_right_key(details['loc'], value)}"
    if details["type"] == "literal_error":
        allowed = _quoted(context["expected"])
        form = right_choice(details["loc"], value, allowed)
        return f"{shown(value)} is not allowed{form}{_ALLOWED}{', '.join(allowed)}"
    if details["type"] == "study_value":
        return f"{shown(value)} {context['text']}{_choice(value, context['candidates'])}"
    sentence = _SENTENCES.get(details["type"])
    if sentence is None:
        return details["msg"]
    form = right_form(details["type"], details["loc"], value)
    return sentence.format(value=shown(value), form=form, **context)


def _right_key(path: Sequence[str | int], value: object) -> str:
    """What an unknown key is called here, or where else in a study it belongs."""
    key, allowed, said = str(path[-1]), allowed_keys(path[:-1]), ""
    if near := find_nearest(key, allowed):
        form = write_as_field((*path[:-1], near), value)
        said = f" (did you mean {near!r}?){f'; write {form}' if form else ''}"
    elif elsewhere := find_elsewhere(key):
        said = f" here (did you mean {' or '.join(elsewhere)}?)"
    return f"{said}{_ALLOWED}{', '.join(allowed)}"


def _choice(word: object, allowed: Sequence[str]) -> str:
    if not allowed:
        return ""
    return f"{nearest(str(word), allowed)}{_ALLOWED}{', '.join(allowed)}"


def _quoted(expected: str) -> list[str]:
    return re.findall(r"'([^']*)'", expected)


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
    return key if re.fullmatch(r"\w(?:[\w.-]{0,62}[\w-])?", key, re.ASCII) else shown(key)
