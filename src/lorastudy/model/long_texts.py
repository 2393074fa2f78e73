"""Encode a long text in parts, where that gives the same ids as encoding it whole.

A tokenizer holds up to 200 bytes per character until it has returned all ids. A file of 100 MB that
is one document would take 20 GB. So a long text is cut between a letter and what follows it, where
nearly every tokenizer begins a new word. That it does is checked at every cut: the text around the
cut must have the same ids whole and in two parts. If not, the text is encoded whole.
"""

import re
from collections.abc import Callable, Sequence

PART = 1 << 19  # characters of a part, at most
_SOUGHT = 1 << 14  # characters at the end of a part in which a cut is sought
_AROUND = 256  # characters on each side of a cut that are encoded to check it
_WORD_ENDS = (
    re.compile(r"(?<=[^\W\d_])(?= [^\W\d_])"),  # before a space and a letter
    re.compile(r"(?<=[^\W\d_])(?=[^\w'’])"),  # before anything that is not part of a word
)

Encode = Callable[[Sequence[str]], list[list[int]]]


def encode_text(text: str, encode: Encode) -> list[int]:
    """The ids that `encode` gives for the text, which may be long."""
    ids: list[int] = []
    for part in _cut(text, encode):
        ids += encode([part])[0]
    return ids


def _cut(text: str, encode: Encode) -> list[str]:
    """Parts whose ids are together those of the text; the text alone where none are found."""
    parts, begin = [], 0
    while len(text) - begin > PART:
        cut = next((c for c in _find_cuts(text, begin) if _is_clean(text, c, encode)), None)
        if cut is None:
            return [text]
        parts.append(text[begin:cut])
        begin = cut
    return [*parts, text[begin:]]


def _find_cuts(text: str, begin: int) -> list[int]:
    """The last of each kind of place within a part from `begin` that may be cut."""
    end = begin + PART
    near = max(begin + 1, end - _SOUGHT)
    found = [[m.start() for m in place.finditer(text, near, end)] for place in _WORD_ENDS]
    return [cuts[-1] for cuts in found if cuts]


def _is_clean(text: str, cut: int, encode: Encode) -> bool:
    left, right = text[max(0, cut - _AROUND) : cut], text[cut : cut + _AROUND]
    whole, before, after = encode([left + right, left, right])
    return whole == before + after
