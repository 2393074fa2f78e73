"""Rows with a question, choices, and the one of them that is right; read and checked row by row.

    {"question": "Capital of France?", "choices": ["Paris", "Rome"], "answer": 0}
    {"prompt": "2 + 2 =", "choices": ["3", "4"], "answer": "4"}
    {"question": ..., "choices": {"text": ["Paris", "Rome"], "label": ["A", "B"]}, "answerKey": "A"}

The answer is a place among the choices, counted from 0, or the text or label of one. Nothing is
repaired: a row whose answer is missing or is not among its choices stops the study.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lorastudy.data.messages import REPAIR
from lorastudy.errors import InputError

CHOICES = "choices"
_PROMPTS = ("prompt", "question")
_ANSWERS = ("answer", "answerKey", "label", "gold")
_PLACE = re.compile(r"[0-9]{1,9}")  # Python refuses to convert thousands of digits


@dataclass(frozen=True, slots=True)
class Question:
    """What a row asks, and what may be answered."""

    prompt: str
    choices: tuple[str, ...]
    answer: int  # place of the right choice

    @property
    def continuations(self) -> tuple[str, ...]:
        """Each choice as it follows the prompt: after a space, unless one of them has it."""
        has_space = self.prompt[-1:].isspace()
        return tuple(c if has_space or c[:1].isspace() else f" {c}" for c in self.choices)


def choose_question_columns(known: set[str]) -> tuple[str, ...]:
    """The columns of a question, its choices and its answer; none if there are no choices."""
    prompts = [name for name in _PROMPTS if name in known]
    if CHOICES not in known or not prompts:
        return ()
    return (prompts[0], CHOICES, *[name for name in _ANSWERS if name in known][:1])


def read_question(place: str, columns: Sequence[str], values: Sequence[Any]) -> Question:
    """The question of the row at `place`.

    Args:
        place: Where the row is, for people.
        columns: As `choose_question_columns` gives them.
        values: One value for each of them.

    Raises:
        InputError: The prompt is empty, there are fewer than two choices, two of them are the same,
            or the answer is missing or not among them.
    """
    prompt, (texts, labels) = values[0], _read_choices(place, values[1])
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(
            f"{place}: {columns[0]} is {'empty' if isinstance(prompt, str) else 'not text'}, so "
            f"nothing is asked. {REPAIR}"
        )
    answer = values[2] if len(values) > 2 else None
    if answer is None or answer == "":
        raise InputError(
            f"{place} has no answer: give the place of the right choice, counted from 0, or its "
            "text, in a column named answer."
        )
    return Question(prompt, texts, _find_answer(place, answer, texts, labels))


def _read_choices(place: str, value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The choices and their labels, which most rows do not have."""
    if isinstance(value, str):  # of a CSV file
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    labels: tuple[str, ...] = ()
    if isinstance(value, dict) and {"text", "label"} <= value.keys():
        labels, value = tuple(map(str, value["label"] or ())), value["text"]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InputError(f'{place}: choices is not a list of texts such as ["yes", "no"]. {REPAIR}')
    if len(value) < 2:
        raise InputError(
            f"{place} has {len(value) or 'no'} choice{'' if value else 's'}, and at least 2 are "
            f"needed. {REPAIR}"
        )
    if any(not text.strip() for text in value):
        raise InputError(f"{place}: choice {_first_blank(value)} is blank. {REPAIR}")
    stripped = [text.strip() for text in value]
    if len(set(stripped)) < len(value):
        twice = next(text for text in stripped if stripped.count(text) > 1)
        raise InputError(f"{place}: the choice {twice!r} is there twice. {REPAIR}")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise InputError(f"{place}: the label {twice!r} stands for two choices. {REPAIR}")
    return tuple(value), labels if len(labels) == len(value) else ()


def _first_blank(choices: Sequence[str]) -> int:
    return next(i for i, text in enumerate(choices) if not text.strip())


def _find_answer(place: str, answer: Any, choices: tuple[str, ...], labels: tuple[str, ...]) -> int:
    for known in (labels, choices):
        if isinstance(answer, str) and answer in known:
            return known.index(answer)
    is_written = isinstance(answer, str) and _PLACE.fullmatch(answer)
    number = int(answer) if is_written else answer
    if isinstance(number, float) and number.is_integer():  # of a column with gaps
        number = int(number)
    if not isinstance(number, int) or isinstance(number, bool):
        raise InputError(f"{place}: the answer {answer!r} is not one of the choices. {REPAIR}")
    if not 0 <= number < len(choices):
        raise InputError(
            f"{place}: the answer {number} is beyond the {len(choices)} choices, which are counted "
            f"from 0. {REPAIR}"
        )
    return number
