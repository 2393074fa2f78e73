"""Messages of a conversation: read and checked one by one, with the place of the one that is wrong.

    [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]

A list may also be written as JSON in a text, as in CSV files.
"""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lorastudy.errors import InputError, show_names

CONVERSATION = "messages"
REPAIR = "Repair or remove the row."
_ROLES = ("system", "user", "assistant")
_WRITTEN = re.compile(r"\s*\[\s*\{\s*['\"](?:role|content)['\"]\s*:")  # messages in a text


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


Turns = tuple[Message, ...]


def read_turns(place: str, column: str, value: Any) -> Turns:
    """The messages of a list, or of a text that holds one as JSON.

    Raises:
        InputError: It is not a list of messages with a role and a content.
    """
    value = parse_list(value)
    if not isinstance(value, list) or not value:
        what = "an empty list" if value == [] else say_kind(value)
        raise InputError(
            f"{place}: {column} is {what}, not a list of messages such as "
            f'[{{"role": "user", "content": "..."}}]. {REPAIR}'
        )
    return tuple(
        _read_message(f"{place}: message {number} of {column}", message)
        for number, message in enumerate(value, 1)
    )


def parse_list(value: Any) -> Any:
    """The list that a text such as that of a CSV file holds as JSON; other values as they are."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def is_written_list(text: str) -> bool:
    """Whether a text begins as a list of messages does, such as that of a CSV file."""
    return _WRITTEN.match(text) is not None


def _read_message(place: str, value: Any) -> Message:
    if not isinstance(value, dict) or not {"role", "content"} <= value.keys():
        found = f"the keys {show_names(value)}" if isinstance(value, dict) else say_kind(value)
        is_renamed = isinstance(value, dict) and {"from", "value"} <= value.keys()
        advice = "Rename from to role, and value to content." if is_renamed else REPAIR
        raise InputError(f"{place} has {found}, not role and content. {advice}")
    role, content = value["role"], value["content"]
    if role not in _ROLES:
        raise InputError(f"{place}: the role {role!r} is not one of {show_names(_ROLES)}.")
    if not isinstance(content, str):
        raise InputError(f"{place}: the content is {say_kind(content)}, not text. {REPAIR}")
    if unread := [key for key, v in value.items() if key not in ("role", "content") and v]:
        raise InputError(
            f"{place} also has {show_names(unread)}, which is not read. Write it into the content, "
            "or leave it out."
        )
    if role == "assistant" and not content.strip():
        raise InputError(f"{place} has no answer: its content is blank. {REPAIR}")
    return Message(role, content)


def check_roles(place: str, turns: Turns) -> None:
    """See that, after an optional system message, user and assistant take turns."""
    spoken = turns[1:] if turns[0].role == "system" else turns
    n_system = len(turns) - len(spoken)
    for number, turn in enumerate(spoken):
        expected = _ROLES[1 + number % 2]
        if turn.role != expected:
            raise InputError(
                f"{place}: roles are out of order: message {number + 1 + n_system} is of "
                f"{turn.role!r}, where {expected!r} has its turn. {REPAIR}"
            )
    if not spoken or spoken[-1].role != "assistant":
        raise InputError(
            f"{place} has no answer: its last message is of {turns[-1].role!r}, not of "
            f"'assistant'. {REPAIR}"
        )


def say_kind(value: Any) -> str:
    """What a value is, in words, where something else was expected."""
    names = {str: "text", list: "a list", dict: "an object", type(None): "nothing (null)"}
    return names.get(type(value), f"of type {type(value).__name__}")
