"""Rows with answers: a prompt with its completion, a conversation, or a question with choices.

A table's columns say what its rows are. `prompt` and `completion` hold two texts or two lists of
messages; `messages` holds a conversation; for `choices` see `data/choices.py`. A message has a
role and a content:

    {"prompt": "2 + 2 =", "completion": " 4"}
    {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]}

Nothing is repaired: a row without an answer, or with its roles out of order, stops the study.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from lorastudy.data.choices import CHOICES, choose_question_columns, read_question
from lorastudy.data.messages import (
    CONVERSATION,
    REPAIR,
    Message,
    Turns,
    check_roles,
    is_written_list,
    parse_list,
    read_turns,
    say_kind,
)
from lorastudy.errors import InputError

PAIR = ("prompt", "completion")
COLUMNS = (*PAIR, CONVERSATION, CHOICES)
_NOT_READ = ("tools", "chat_template_kwargs")  # columns that would change what a template writes

ExampleKind = Literal[
    "prompts and completions",
    "prompts and completions in messages",
    "messages",
    "questions with choices",
]
IN_PLAIN_TEXT: tuple[ExampleKind, ...] = ("prompts and completions", "questions with choices")


@dataclass(frozen=True, slots=True)
class Example:
    """One row with an answer."""

    place: str  # "questions.jsonl, line 3": for people
    prompt: str | Turns  # of a conversation: no turns
    completion: str | Turns  # of a conversation: all turns; of a question: its right choice
    choices: tuple[str, ...] = ()  # of a question, as the row has them
    continuations: tuple[str, ...] = ()  # the same as they follow the prompt

    @property
    def answer(self) -> int:
        """The place of the right choice."""
        return self.continuations.index(str(self.completion))

    @property
    def name(self) -> str:
        """Its place without folders, which differ between machines: "questions.jsonl, line 3"."""
        source, comma, row = self.place.rpartition(", ")
        return f"{PurePath(source).name}{comma}{row}"

    @property
    def answer_text(self) -> str:
        """The answer: the completion, or the content of the last turn."""
        part = self.completion
        return part if isinstance(part, str) else part[-1].content

    @property
    def asked(self) -> str | Turns:
        """What stands before the answer: the prompt, or all turns but the last one."""
        if isinstance(self.completion, str):
            return self.prompt
        turns = (*self.prompt, *self.completion)
        return tuple(turn for turn in turns[:-1] if isinstance(turn, Message))

    @property
    def question(self) -> str:
        """What was asked last, as one text."""
        return self.asked if isinstance(self.asked, str) else self.asked[-1].content

    @property
    def kind(self) -> ExampleKind:
        """What the row consists of."""
        if self.choices:
            return "questions with choices"
        if isinstance(self.completion, str):
            return "prompts and completions"
        return "prompts and completions in messages" if self.prompt else "messages"

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that people wrote, in order."""
        parts = (self.prompt, self.completion, *self.choices)
        return tuple(
            text
            for part in parts
            for text in ([part] if isinstance(part, str) else [turn.content for turn in part])
        )


def choose_columns(names: Iterable[str], column: str) -> tuple[str, ...]:
    """The columns that are read: `column`, if it is there, else those of rows with answers.

    Columns that have to be empty, since they would change how messages are written, come last.
    There are no columns if there is neither a text nor an answer.
    """
    known = set(names)
    if column in known and column not in (CONVERSATION, CHOICES):
        return (column,)
    is_pair = column not in known and known.issuperset(PAIR)
    if not is_pair and column != CONVERSATION and (found := choose_question_columns(known)):
        return found
    chosen = PAIR if is_pair else (CONVERSATION,)
    if not known.issuperset(chosen):
        return ()
    return (*chosen, *(name for name in _NOT_READ if name in known))


def is_conversation(column: str, value: Any) -> bool:
    """Whether a value of the column that a source names is a conversation, and not a text."""
    if column == CONVERSATION and isinstance(value, str):
        value = parse_list(value)
        return isinstance(value, list) and all(isinstance(message, dict) for message in value)
    return isinstance(value, list)


def is_plain_list(value: Any) -> bool:
    """Whether a value is a list without a single message, such as one of texts."""
    return isinstance(value, list) and not any(isinstance(part, dict) for part in value)


def read_example(place: str, values: Sequence[Any], columns: Sequence[str] = ()) -> Example:
    """The row at `place`, of a conversation, or of a prompt and its completion.

    Args:
        place: Where the row is, for people.
        values: One value for a conversation, else two; then those of columns that are not read.
        columns: Their names.

    Raises:
        InputError: A value has another form, an answer is missing, or roles are out of order.
    """
    values = _leave_unread(place, values, columns)
    if CHOICES in columns:
        asked = read_question(place, columns, values)
        following = asked.continuations
        return Example(place, asked.prompt, following[asked.answer], asked.choices, following)
    if len(values) == 1:
        turns = read_turns(place, columns[0] if columns else CONVERSATION, values[0])
        check_roles(place, turns)
        return Example(place, (), turns)
    prompt, completion = values
    if not isinstance(prompt, str) or not isinstance(completion, str):
        return _read_message_pair(place, prompt, completion)
    if is_written_list(prompt) and is_written_list(completion):
        return _read_turns_pair(place, prompt, completion)
    return _read_text_pair(place, prompt, completion)


def _leave_unread(place: str, values: Sequence[Any], columns: Sequence[str]) -> Sequence[Any]:
    """The values of the columns that are read; those of the others have to be empty."""
    unread = [pair for pair in zip(columns, values, strict=False) if pair[0] in _NOT_READ]
    for name, value in unread:
        if value not in (None, "", [], {}, "[]", "{}"):
            raise InputError(
                f"{place}: the column {name!r} changes how messages are written, and is not read. "
                "Leave it out, or write its content into the messages."
            )
    return values[: len(values) - len(unread)]


def _read_text_pair(place: str, prompt: str, completion: str) -> Example:
    if not completion.strip():
        raise InputError(f"{place} has no answer: its completion is blank. {REPAIR}")
    if not prompt:
        raise InputError(
            f"{place}: the prompt is empty, so nothing stands before the answer. {REPAIR}"
        )
    return Example(place, prompt, completion)


def _read_message_pair(place: str, prompt: Any, completion: Any) -> Example:
    if completion is None:
        raise InputError(f"{place} has no answer: its completion is nothing (null). {REPAIR}")
    for name, value in zip(PAIR, (prompt, completion), strict=True):
        if not isinstance(value, str | list):
            raise InputError(
                f"{place}: {name} is {say_kind(value)}, neither text nor a list of messages. "
                f"{REPAIR}"
            )
    if isinstance(prompt, str) or isinstance(completion, str):
        raise InputError(
            f"{place}: prompt is {say_kind(prompt)} and completion is {say_kind(completion)}. "
            "Both have to be text, or both lists of messages."
        )
    return _read_turns_pair(place, prompt, completion)


def _read_turns_pair(place: str, prompt: Any, completion: Any) -> Example:
    before = read_turns(place, "prompt", prompt)
    after = read_turns(place, "completion", completion)
    check_roles(place, (*before, *after))
    if before[-1].role != "user":
        raise InputError(
            f"{place}: the prompt ends with a message of {before[-1].role!r}, so the completion "
            "does not begin with an answer. Let the prompt end with a message of 'user'."
        )
    return Example(place, before, after)


def require_one_kind(examples: Sequence[Example], origin: str) -> None:
    """Check that all rows of a source are of one kind.

    Raises:
        InputError: They are not.
    """
    other = next((e for e in examples if e.kind != examples[0].kind), None)
    if other is not None:
        raise InputError(
            f"{other.place} holds {other.kind}, and {examples[0].place} holds "
            f"{examples[0].kind}. All rows of {origin} have to be of one kind."
        )


def digest_examples(examples: Iterable[Example]) -> str:
    """SHA-256 over the content of all rows; their places do not matter."""
    digest = hashlib.sha256()
    for example in examples:
        parts = [_as_json(example.prompt), _as_json(example.completion)]
        parts += [list(example.choices)] if example.choices else []
        digest.update(json.dumps(parts).encode() + b"\n")
    return digest.hexdigest()


def _as_json(part: str | Turns) -> object:
    return part if isinstance(part, str) else [[turn.role, turn.content] for turn in part]
