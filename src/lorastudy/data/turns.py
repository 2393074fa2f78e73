"""What each token of a written conversation is: a question, an answer, its end, or the template's.

A chat template is known only by what it writes. It is given contents that no row has, so what it
writes around contents can be told from them, whatever letters a row has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lorastudy.data.messages import Message, Turns
from lorastudy.protocols import ANSWER_CLASSES

PROMPT, HEADER, ANSWER, END = range(len(ANSWER_CLASSES))
_STAND_IN = "\ue000{}\ue001"  # content that no template changes and no row contains
_Frame = list[str | None]  # what stands before each content; None: the content is not written


@dataclass(frozen=True, slots=True)
class Written:
    """A row as a tokenizer wrote it; n tokens."""

    text: str
    ids: list[int]
    places: list[tuple[int, int]]  # (n) first and last character of each token, the last excluded
    by_assistant: list[int] | None = None  # (n) 1 between {% generation %} marks; None: not asked


class AnswerTokenizer(Protocol):
    """The parts of a tokenizer that rows with answers need."""

    @property
    def chat_template(self) -> str | None:
        """How messages are written; None: the tokenizer does not say."""

    @property
    def end_of_text(self) -> str:
        """The end-of-text token."""

    @property
    def added_ids(self) -> frozenset[int]:
        """Ids of tokens that stand for no text, such as those that end a turn."""

    def write_texts(self, texts: Sequence[str]) -> list[Written]:
        """Each text with the special tokens that the tokenizer adds by itself."""

    def write_chats(
        self, chats: Sequence[Turns], *, adds_header: bool = False, marks_assistant: bool = False
    ) -> list[Written]:
        """Each conversation as the chat template writes it."""


class TurnReader:
    """Finds the turns of conversations; remembers what is written around each sequence of roles."""

    def __init__(self, tokenizer: AnswerTokenizer) -> None:
        self._tokenizer = tokenizer
        self._frames: dict[tuple[str, ...], _Frame] = {}

    def classify(self, row: Written, turns: Turns) -> NDArray[np.uint8]:
        """The class of each token, by what the template wrote at its place."""
        of_text = np.full(len(row.text) + 1, HEADER, dtype=np.uint8)
        ends = []
        for begin, end, turn in _find_contents(row.text, turns, self._frame(turns)):
            of_text[begin:end] = ANSWER if turn.role == "assistant" else PROMPT
            if turn.role == "assistant":
                ends.append(end)
        first, last = np.array(row.places, dtype=np.int64).reshape(-1, 2).T
        classes: NDArray[np.uint8] = of_text[np.maximum(first, (first + last - 1) // 2)]
        # the first token after an answer that is not white space ends it, if it stands for no text
        added = self._tokenizer.added_ids
        for end in ends:
            after = range(int(np.searchsorted(first, end)), len(row.ids))
            is_seen = (
                i for i in after if row.ids[i] in added or row.text[first[i] : last[i]].strip()
            )
            place = next(is_seen, None)
            if place is not None and row.ids[place] in added:
                classes[place] = END
        return classes

    def _frame(self, turns: Turns) -> _Frame:
        """What the template writes before the contents of these roles, and which it writes."""
        roles = tuple(turn.role for turn in turns)
        if roles not in self._frames:
            stand_ins = [Message(r, _STAND_IN.format(i)) for i, r in enumerate(roles)]
            try:
                text = self._tokenizer.write_chats([tuple(stand_ins)])[0].text
            except Exception:  # it wants other contents; then contents are only searched for
                self._frames[roles] = [""] * len(roles)
                return self._frames[roles]
            parts: _Frame = []
            for message in stand_ins:
                before, found, rest = text.partition(message.content)
                parts.append(before if found else None)
                text = rest if found else text
            self._frames[roles] = parts
        return self._frames[roles]


def _find_contents(text: str, turns: Turns, frame: _Frame) -> Iterator[tuple[int, int, Message]]:
    """Where in `text` the content of each turn is: its first character, its end, and the turn.

    Templates write a content as it is, or without white space at its ends. A content that the
    template changed in another way is looked for, and left out if it is not there.
    """
    at = 0
    for before, turn in zip(frame, turns, strict=True):
        if before is None:
            continue
        begin = at + len(before) if text.startswith(before, at) else at
        content = turn.content
        if not text.startswith(content, begin):
            content = content.strip()
            begin = text.find(content, begin)
            if begin < 0 or not content:
                continue
        yield begin, begin + len(content), turn
        at = begin + len(content)
