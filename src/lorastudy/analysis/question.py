"""The question that a study declared before its runs: which pairs of arms, on which tests.

Its pairs are a family of their own over all tests, so they are adjusted for each other alone.
Everything else is exploratory: adjusted over all other pairs of a benchmark and protocol.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from lorastudy.analysis.pairs import choose_main_keys
from lorastudy.analysis.summary import ArmSummary, ScoreKey
from lorastudy.config.models import Study
from lorastudy.store.decisions import AskedQuestion


@dataclass(frozen=True, slots=True)
class Question:
    """A declared question and the pairs that answer it."""

    asked: AskedQuestion  # two names of arms, or the name of a question
    pairs: frozenset[tuple[str, str]]  # names of arms; full fine-tuning stands first
    tests: tuple[ScoreKey, ...]

    @property
    def arms(self) -> tuple[str, str] | None:
        """The two arms that are named; None for any other question."""
        return self.asked if isinstance(self.asked, tuple) else None

    def asks(self, key: ScoreKey, first: str, second: str) -> bool:
        """Whether the pair of arms is part of the question under the score `key`."""
        return key in self.tests and bool({(first, second), (second, first)} & self.pairs)


def list_pairs(asked: AskedQuestion, study: Study) -> tuple[tuple[str, str], ...]:
    """The pairs of arms that a question is about; none if the study lacks such arms.

    full-or-lora   full fine-tuning beside every LoRA arm, so that the choice of the best LoRA
                   arm is paid for
    where          every pair of LoRA arms
    all            every pair of trained arms
    two names      these two
    """
    of_method = {
        method: [arm.name for arm in study.arms if arm.method == method]
        for method in ("full", "lora")
    }
    match asked:
        case "full-or-lora":
            return tuple(product(of_method["full"], of_method["lora"]))
        case "where":
            return tuple(combinations(of_method["lora"], 2))
        case "all":
            return tuple(combinations([a.name for a in study.arms if a.method != "baseline"], 2))
        case (first, second):
            return ((first, second),) if {first, second} <= {a.name for a in study.arms} else ()


def find_question(
    asked: AskedQuestion | None,
    study: Study | None,
    arms: Sequence[ArmSummary],
    keys: Sequence[ScoreKey],
    forgetting: Collection[str],
) -> Question | None:
    """The question `asked` of a study about `arms`, over all its tests; None without one."""
    if study is None or asked is None:
        return None
    known = {arm.arm for arm in arms}
    pairs = frozenset(pair for pair in list_pairs(asked, study) if known >= set(pair))
    return Question(asked, pairs, list_test_keys(keys, forgetting))


def list_test_keys(keys: Sequence[ScoreKey], forgetting: Collection[str]) -> tuple[ScoreKey, ...]:
    """One score for each test: benchmarks for forgetting and padded scores are none."""
    return tuple(
        key
        for key in choose_main_keys(keys)
        if key.benchmark not in forgetting and not key.scores_padding
    )
