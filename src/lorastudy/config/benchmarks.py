"""What models are scored on: texts, rows with answers, or a task, and under which protocols."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lorastudy.config.sources import Source
from lorastudy.config.syntax import (
    Count,
    FilePath,
    FunctionName,
    IfGiven,
    Mistake,
    Name,
    ProtocolName,
    StudyModel,
    refuse,
    repeated,
)
from lorastudy.protocols import Protocol, find_protocol

NEW_TOKENS = 64  # that are generated if a study file does not say how many


class Generation(StudyModel):
    """How answers are generated: greedily, one token after the other."""

    max_new_tokens: Count = NEW_TOKENS
    """Generate at most this many tokens per item."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts before which an answer ends; an end-of-text token ends it as well."""


class Samples(Generation):
    """Prompts after which every model writes, for people to read; nothing is judged."""

    prompts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """The prompts; or give a path."""
    path: FilePath | None = None
    """File with one prompt per line, or with rows that have prompts; their answers are not read."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.prompts) == (self.path is not None):
            refuse([("", "exactly one of prompts and path is needed")])
        return self


@dataclass(frozen=True, slots=True)
class TaskRules:
    """How the items of a task on rows are chosen, answered and judged."""

    label: str  # of the rows, for people
    sample: int | None
    generation: Generation | None
    function: str | None


class BestBy(StudyModel):
    """A task on validation whose right answers choose the best weights; losses decide ties."""

    protocol: ProtocolName
    """choice, choice-per-character, exact-match, numeric-match or own-function."""
    items: Source | None = None
    """Rows to answer, such as questions with choices; null: the rows of data.validation."""
    sample: Annotated[int, Field(ge=2)] | None = None
    """Answer this many random items, the same every time; null: all."""
    generation: Generation | None = None
    """How answers are generated, for protocols that judge generated texts; null: its defaults."""
    function: FunctionName | None = None
    """For own-function: module:function or file.py:function, called with text and answer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        kind = find_protocol(self.protocol)
        if not kind.chooses and not kind.generates:
            what = f"{self.protocol} does not say which answers to rows are right; use choice, "
            others = "choice-per-character, exact-match, numeric-match or own-function"
            refuse([("protocol", what + others)])
        refuse(_mistakes_of_judging(self.generation, self.function, [kind]))
        return self

    @property
    def rules(self) -> TaskRules:
        """How its items are answered."""
        label = "data.validation" if self.items is None else "data.best_by.items"
        return TaskRules(label, self.sample, self.generation, self.function)


class Benchmark(Source):
    """A test set, and the protocols under which it is scored."""

    name: Name
    """Used in tables and file names."""
    protocols: Annotated[tuple[ProtocolName, ...], Field(min_length=1)]
    """Names of protocols, such as rows-text, document, sliding-1024-512 or exact-match."""
    role: Literal["test", "forgetting"] = "test"
    """forgetting: neutral text, on which tuned models are compared with the baseline."""
    sample: Annotated[int, Field(ge=2)] | None = None
    """Score this many random documents (or windows, or items), with a standard error; null: all."""
    generation: IfGiven[Generation] = None
    """How answers are generated, for protocols that judge generated texts; null: its defaults."""
    function: IfGiven[FunctionName] = None
    """For own-function: module:function or file.py:function, called with text and answer."""

    task: IfGiven[Annotated[str, Field(min_length=1)]] = None
    """For lm-eval-task, in place of id or path: a task of lm-evaluation-harness, or a YAML file."""
    num_fewshot: IfGiven[Annotated[int, Field(ge=0)]] = None
    """Solved examples before each item of a task; null: as the task says."""
    metric: IfGiven[Annotated[str, Field(min_length=1)]] = None
    """What a task is judged by, such as acc_norm or exact_match,strict-match; null: its first."""

    @property
    def parts(self) -> tuple[str, ...]:
        """As those of a source; of a task, its name alone."""
        return super().parts if self.task is None else (self.task,)

    def _origins(self) -> dict[str, object]:
        return {**super()._origins(), "task": self.task}

    @model_validator(mode="after")
    def _check_protocols(self) -> Self:
        mistakes = repeated("protocols", self.protocols)
        kinds = [find_protocol(name) for name in self.protocols]
        mistakes += _mistakes_of_judging(self.generation, self.function, kinds)
        mistakes += self._list_mistakes_of_task([kind.judge == "harness" for kind in kinds])
        refuse(mistakes)
        return self

    @property
    def rules(self) -> TaskRules:
        """How its items are answered, under a protocol that is a task on rows."""
        label = f"benchmark {self.name!r}"
        return TaskRules(label, self.sample, self.generation, self.function)

    def _list_mistakes_of_task(self, of_harness: list[bool]) -> list[Mistake]:
        mistakes: list[Mistake] = []
        if (self.task is not None) != all(of_harness) or all(of_harness) != any(of_harness):
            mistakes.append(
                ("protocols", "lm-eval-task is for a task, which has no other protocol")
            )
        if self.task is None:
            where, given = "a task", ["num_fewshot", "metric"]
        else:
            where, given = "rows", ["sample", *(k for k in self._set_keys() if k != "limit")]
        return mistakes + [
            (key, f"applies to {where} only; remove it")
            for key in given
            if getattr(self, key) is not None
        ]


def _mistakes_of_judging(
    generation: Generation | None, function: str | None, kinds: Sequence[Protocol]
) -> list[Mistake]:
    mistakes: list[Mistake] = []
    if generation is not None and not any(kind.generates for kind in kinds):
        mistakes.append(_unused("generation", "exact-match, numeric-match and own-function"))
    needs_function = any(kind.judge == "function" for kind in kinds)
    if function is not None and not needs_function:
        mistakes.append(_unused("function", "own-function"))
    if function is None and needs_function:
        mistakes.append(("function", "is required by the protocol own-function"))
    return mistakes


def _unused(key: str, protocols: str) -> Mistake:
    return (key, f"applies to the protocols {protocols} only; remove it")
