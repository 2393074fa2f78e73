"""The question that a study declared before its runs: which pairs of arms, on which tests.

Its pairs are a family of their own over all tests, so they are adjusted for each other alone.
Everything else is exploratory: adjusted over all other pairs of a benchmark and protocol.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product

from lorastudy.analysis.pairs import choose_main_keys
from lorastudy.analysis.summary import ArmSummary, ScoreKey
from lorastudy.config.models import Study


@dataclass(frozen=True, slots=True)
class Question:
    """A declared question and the pairs that answer it."""

    arms: tuple[str, str] | None  # the two arms that are named; None: every LoRA arm beside full
    pairs: frozenset[frozenset[str]]  # names of two arms each
    tests: tuple[ScoreKey, ...]

    def asks(self, key: ScoreKey, first: str, second: str) -> bool:
        """Whether the pair of arms is part of the question under the score `key`."""
        return key in self.tests and frozenset((first, second)) in self.pairs


def find_question(
    study: Study | None,
    arms: Sequence[ArmSummary],
    keys: Sequence[ScoreKey],
    forgetting: Collection[str],
) -> Question | None:
    """The declared question; None without one.

    For full-or-lora these are all pairs of a LoRA arm and full fine-tuning, so that the choice
    of the best LoRA arm is paid for.
    """
    if study is None or study.question is None:
        return None
    tests = list_test_keys(keys, forgetting)
    if not isinstance(study.question, str):
        return Question(study.question, frozenset((frozenset(study.question),)), tests)
    method = {arm.name: arm.method for arm in study.arms}
    full = [arm.arm for arm in arms if method.get(arm.arm) == "full"]
    loras = [arm.arm for arm in arms if method.get(arm.arm) == "lora"]
    return Question(None, frozenset(map(frozenset, product(full, loras))), tests)


def list_test_keys(keys: Sequence[ScoreKey], forgetting: Collection[str]) -> tuple[ScoreKey, ...]:
    """One score for each test: benchmarks for forgetting and padded scores are none."""
    return tuple(
        key
        for key in choose_main_keys(keys)
        if key.benchmark not in forgetting and not key.scores_padding
    )
