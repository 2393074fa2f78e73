"""Count the letters of a text that a tokenizer changes before it looks for tokens.

Some tokenizers write every letter small, take accents away, or write a wide letter narrow. A model
with such a tokenizer need not predict what was lost, so its perplexity is of an easier text. White
space does not count, since many tokenizers write it in another way and find it again.
"""

import re
from collections import Counter
from collections.abc import Callable
from difflib import SequenceMatcher
from functools import lru_cache

from transformers import PreTrainedTokenizerFast

_LONGEST = 200  # letters of a word that are compared at once
_SPACE = re.compile(r"[\s▁]+")  # and what stands for a space in many vocabularies
_REMEMBERED = 1 << 17  # words


def make_counter(backend: PreTrainedTokenizerFast) -> Callable[[str], int]:
    """A function that says how many letters of a text `backend` changes or leaves out."""
    normaliser = backend.backend_tokenizer.normalizer
    if normaliser is None:
        return lambda _: 0

    @lru_cache(maxsize=_REMEMBERED)
    def count_in_word(word: str) -> int:
        wanted, read = _SPACE.sub("", word), _SPACE.sub("", normaliser.normalize_str(word))
        if wanted == read:
            return 0
        ids = backend(word, add_special_tokens=False, verbose=False)["input_ids"]
        # what is undone when tokens become text again was not lost
        if _SPACE.sub("", str(backend.decode(ids))) == wanted:
            return 0
        blocks = SequenceMatcher(None, wanted, read, autojunk=False).get_matching_blocks()
        return len(wanted) - sum(block.size for block in blocks)

    def count(text: str) -> int:
        parts = (
            word[begin : begin + _LONGEST]
            for word in text.split()
            for begin in range(0, len(word), _LONGEST)
        )
        return sum(n * count_in_word(part) for part, n in Counter(parts).items())

    return count
