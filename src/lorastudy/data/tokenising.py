"""Turn texts into token ids, document by document, and count the tokens of each context.

Plain forms are encoded without special tokens. The forms of lm-evaluation-harness are encoded as
it does: with the tokens that the tokenizer adds by itself. If a context alone has n tokens, the
last word is the whole text without its first n tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lorastudy.data.texts import Text
from lorastudy.data.turns import AnswerTokenizer
from lorastudy.errors import InputError
from lorastudy.protocols import Form

# Documents and characters at once: enough for the tokenizer's threads. A tokenizer holds up to 200
# bytes per character until it has returned all ids.
_BATCH = 1_000
_CHARACTERS = 1 << 21


class TokenizerLike(AnswerTokenizer, Protocol):
    """The parts of a tokenizer that a corpus needs."""

    @property
    def digest(self) -> str:
        """Hash of everything that decides the ids."""

    @property
    def vocabulary_size(self) -> int:
        """Every id is below this."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special tokens."""

    @property
    def count_altered(self) -> Callable[[str], int]:
        """How many letters of a text are changed before tokens are looked for."""

    def encode_as_configured(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, with the special tokens that the tokenizer adds by itself."""


def encode_texts(
    texts: Sequence[Text], form: Form, tokenizer: TokenizerLike, origin: str
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """The ids of each document, all inside the vocabulary, and how many of them are context.

    Raises:
        InputError: The tokenizer gives an id that is not in its vocabulary, or a last word has
            no token; the message names `origin`.
    """
    number = 0
    for part in _cut_batches(texts):
        for row, n_read in zip(*_tokenise(part, form, tokenizer), strict=True):
            number += 1
            ids = np.asarray(row, dtype=np.int64)
            outside = ids[(ids < 0) | (ids >= tokenizer.vocabulary_size)]
            if outside.size:
                raise InputError(
                    f"{origin}, document {number}: the tokenizer gives id {outside[0]}, "
                    f"but its vocabulary ends at {tokenizer.vocabulary_size - 1}. "
                    "Use the tokenizer that belongs to the base model."
                )
            if form == "last-words" and len(ids) <= n_read:
                raise InputError(
                    f"{origin}, document {number}: no token belongs to its last word "
                    "alone. Take out the document, or use another protocol."
                )
            yield ids, n_read


def _cut_batches(texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    begin, n_characters = 0, 0
    for place, text in enumerate(texts):
        n_characters += len(text.text)
        if place > begin and (n_characters > _CHARACTERS or place - begin == _BATCH):
            yield texts[begin:place]
            begin, n_characters = place, len(text.text)
    if begin < len(texts):
        yield texts[begin:]


def _tokenise(
    texts: Sequence[Text], form: Form, tokenizer: TokenizerLike
) -> tuple[list[list[int]], list[int]]:
    """Ids of each text and of its context, encoded as lm-evaluation-harness does."""
    if form in ("texts", "raw-texts", "stream"):
        return tokenizer.encode([text.text for text in texts]), [0] * len(texts)
    ids = tokenizer.encode_as_configured([text.text for text in texts])
    if form == "pages":
        return ids, [0] * len(texts)
    bare = tokenizer.encode([text.text for text in texts])
    read = tokenizer.encode_as_configured([text.context for text in texts])
    # without a context there is only the start token, which the row adds
    whole = [a if text.context else b for a, b, text in zip(ids, bare, texts, strict=True)]
    return whole, [len(c) if t.context else 0 for c, t in zip(read, texts, strict=True)]
