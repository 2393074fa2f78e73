"""Questions with answers that a tiny model can learn in a minute: sums of two small digits.

Every sum is asked in several ways. Which questions are in train, validation and test follows from
a hash of the question, so a test asks sums that were trained on in ways in which they were not: a
model that learned the sums answers, and one that learned only how answers look does not.
"""

import hashlib
from collections.abc import Iterator
from itertools import product

from lorastudy.data.examples import Example

_DIGITS = range(7)
_WAYS = (
    "{a} + {b} =",
    "What is {a} plus {b}?",
    "Add {a} and {b}.",
    "The sum of {a} and {b} is",
    "{a} and {b} more make",
    "Take {a}, then add {b}:",
    "How much is {a} and {b}?",
    "{a} plus {b} equals",
)
_N_TEST, _N_VALIDATION = 100, 42  # questions; all others are trained on
SPLITS = ("train", "validation", "test")


def read_questions(split: str) -> list[Example]:
    """The questions of one of `SPLITS` with their answers, always in the same order."""
    ordered = sorted(_list_questions(), key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    n_held_out = _N_TEST + _N_VALIDATION
    chosen = {
        "test": ordered[:_N_TEST],
        "validation": ordered[_N_TEST:n_held_out],
        "train": ordered[n_held_out:],
    }[split]
    return [
        Example(f"builtin arithmetic, {split}, question {number}", question, f" {answer}")
        for number, (question, answer) in enumerate(chosen, start=1)
    ]


def _list_questions() -> Iterator[tuple[str, int]]:
    for way, a, b in product(_WAYS, _DIGITS, _DIGITS):
        yield way.format(a=a, b=b), a + b
