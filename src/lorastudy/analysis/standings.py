"""How one arm stands beside another on the tests of a study, in one word.

The words of single pairs and the margin become one standing per test, and the standings of all
tests become one. The rules of a recommendation are written in these words.
"""

from collections.abc import Sequence
from typing import Literal

from lorastudy.analysis.pairs import Pair

Standing = Literal["better", "as good", "worse", "mixed", "open", "one seed", "no verdict"]


def stand_on_test(pair: Pair) -> Standing:
    """The standing of the first arm beside the second on one test.

    better, worse   the adjusted interval excludes zero, and is not within the margin
    as good         the adjusted interval lies within the margin, on whichever side of zero
    open            neither
    """
    if pair.is_equivalent:
        return "as good"
    match pair.verdict:
        case "lower":
            return "better"
        case "higher":
            return "worse"
        case "one seed" | "no verdict":
            return pair.verdict
        case _:
            return "open"


def stand(pairs: Sequence[Pair]) -> Standing:
    """The standing of the first arm beside the second on all tests.

    better     better on at least one test, and worse on none
    worse      worse on at least one test, and better on none
    mixed      better on one test and worse on another
    as good    shown on every test
    one seed, no verdict   on every test
    open       anything else
    """
    found = {stand_on_test(pair) for pair in pairs}
    if {"better", "worse"} <= found:
        return "mixed"
    for standing in ("better", "worse"):
        if standing in found:
            return standing
    return found.pop() if len(found) == 1 else "open" if found else "no verdict"
