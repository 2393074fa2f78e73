"""What a preview shows, as values: parts, rows, and tokens as texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lorastudy.model.tokenizer import Tokenizer
from lorastudy.protocols import ANSWER_CLASSES, AnswerClass

SeenClass = Literal["start", "text", "wrong", "cut-off", "padding"] | AnswerClass
SEEN_CLASSES: tuple[SeenClass, ...] = (
    "start",
    "text",
    *ANSWER_CLASSES,
    "wrong",
    "cut-off",
    "padding",
)
_LONGEST_CHARACTER = 4  # tokens of bytes that one character may take


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Tokens of one class in all rows of a part."""

    token_class: SeenClass
    n_tokens: int
    n_scored: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring tokens of a row that have one class, and are all scored or all not."""

    token_class: SeenClass
    is_scored: bool
    n_tokens: int
    tokens: tuple[str, ...]  # their text; tokens of one character stand together; no padding


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One row."""

    place: str  # "train.jsonl, line 3", "document 3"
    n_tokens: int  # that the model reads
    n_scored: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class PreviewPart:
    """Training, validation, or a benchmark under one protocol."""

    name: str  # as in study.lock.json: "train", "held-out--answers"
    n_documents: int
    n_rows: int
    length: int  # most tokens of a row
    classes: tuple[ClassCount, ...]  # those that have tokens
    longest: str  # place of the longest row
    n_without_row: int  # documents that give no row: empty ones, or rows that are left out
    without_row: tuple[str, ...]  # places of the first of them
    rows: tuple[PreviewRow, ...]  # the first ones, and the longest
    note: str = ""  # what the model does with them, if they are items of a task

    @property
    def longest_row(self) -> PreviewRow:
        """The first of the longest rows; a document may have several rows with its place."""
        return max(self.rows, key=lambda row: row.n_tokens)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a study's rows look like."""

    name: str
    parts: tuple[PreviewPart, ...]


def decode_tokens(
    tokenizer: Tokenizer, ids: Sequence[int], before: int | None = None
) -> tuple[str, ...]:
    """The text of each token; tokens that are bytes of one character stand together.

    `before` is the token before the first one. Each text is decoded together with what stands
    before it, since tokenizers such as Llama 2's remove a space where decoding begins.
    """
    texts, text = [], ""
    waiting: list[int] = []
    known = [] if before is None else [before]
    for token in ids:
        waiting.append(token)
        text = _decode(tokenizer, [*known, *waiting]).removeprefix(_decode(tokenizer, known))
        if not text.endswith("\N{REPLACEMENT CHARACTER}") or len(waiting) == _LONGEST_CHARACTER:
            texts.append(text)
            known, waiting = waiting, []
    return (*texts, text) if waiting else tuple(texts)


def _decode(tokenizer: Tokenizer, ids: list[int]) -> str:
    return str(tokenizer.backend.decode(ids, clean_up_tokenization_spaces=False))
