"""Count the letters of a text that a tokenizer changes before it looks for tokens.

Some tokenizers write every letter small, take accents away, or write a wide letter narrow. A model
with such a tokenizer need not predict what was lost, so its perplexity is of an easier text. White
space does not count, since many tokenizers write it in another way and find it again. Nor does it
count whether a letter and its accent are one character or two, since Unicode says they are equal.
"""

import re
from collections import Counter
from collections.abc import Callable
from difflib import SequenceMatcher
from functools import lru_cache
from unicodedata import normalize

from transformers import PreTrainedTokenizerFast

_LONGEST = 32  # letters of a word that are compared at once; the time grows with the square
_SPACE = re.compile(r"[\s▁]+")  # and what stands for a space in many vocabularies
_REMEMBERED = 1 << 17  # words


def make_counter(backend: PreTrainedTokenizerFast) -> Callable[[str], int]:
    """A function that says how many letters of a text `backend` changes or leaves out."""
    whole = backend.backend_tokenizer
    normaliser = whole.normalizer
    if normaliser is None:
        return lambda _: 0
    whole.no_padding()
    whole.no_truncation()

    @lru_cache(maxsize=_REMEMBERED)
    def count_in_word(word: str) -> int:
        wanted, read = _letters(word), _letters(normaliser.normalize_str(word))
        if wanted == read:
            return 0
        ids = whole.encode(word, add_special_tokens=False).ids
        # what is undone when tokens become text again was not lost
        if _letters(whole.decode(ids, skip_special_tokens=False)) == wanted:
            return 0
        blocks = SequenceMatcher(None, wanted, read).get_matching_blocks()
        return len(wanted) - sum(block.size for block in blocks)

    def count(text: str) -> int:
        parts = (
            word[begin : begin + _LONGEST]
            for word in text.split()
            for begin in range(0, len(word), _LONGEST)
        )
        return sum(n * count_in_word(part) for part, n in Counter(parts).items())

    return count


def _letters(text: str) -> str:
    return _SPACE.sub("", normalize("NFC", text))
