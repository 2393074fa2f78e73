"""A benchmark whose documents are items with a right answer: answering, judging, storing.

Each item is stored by itself, so that arms can be compared item by item. Items are read and checked
in `run/task_items.py`.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch

from lorastudy.config.benchmarks import Generation
from lorastudy.data.examples import Example
from lorastudy.errors import InputError
from lorastudy.evaluate.judging import JudgeText, equals_text, judge_text, pick_choice
from lorastudy.evaluate.pairs import TokenPair, score_pairs
from lorastudy.evaluate.protocols import SizedProtocol
from lorastudy.evaluate.writing import write_continuations
from lorastudy.machine.team import ALONE, Team
from lorastudy.model.generating import MAX_POSITIONS, Ids
from lorastudy.model.sharing import AnyScorer
from lorastudy.model.tokenizer import Tokenizer
from lorastudy.store.counts import TextCounts
from lorastudy.store.document_sums import DocumentSums, ItemRecord
from lorastudy.store.records import EvaluationRecord


@dataclass(frozen=True, slots=True)
class AskedModel:
    """The model that answers, on a device, with a team; `poll` is called between its steps."""

    scorer: AnyScorer
    device: torch.device
    poll: Callable[[], None] = lambda: None
    team: Team = ALONE


@dataclass(frozen=True, slots=True)
class ScoredItems:
    """What a model answered to every item."""

    items: tuple[ItemRecord, ...]
    n_tokens: int  # generated, or scored in choices
    metric: str | None = None  # of lm-evaluation-harness


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedText:
    """A text that a model reads for an item: a prompt with one of its choices, or a prompt."""

    place: str  # "quiz.jsonl, line 3, choice 2 of 4"
    read: TokenPair  # a prompt without a choice is context alone
    n_cut: int = 0  # tokens at its beginning that the model has no room for
    is_right: bool = True  # whether the choice is the right one
    answer: str | None = None  # what a generated text is compared with; None: a choice is scored


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskItems(ABC):
    """The items of a benchmark under one protocol."""

    protocol: SizedProtocol
    tokenizer: Tokenizer
    digest: str  # of all items, and of everything else that decides which answers are right
    n_population: int | None = None  # items of which these are a random part; None: they are all

    @property
    @abstractmethod
    def n_units(self) -> int:
        """Items."""

    @property
    @abstractmethod
    def n_positions(self) -> int:
        """Tokens that are read or may be generated; those of a harness are guessed."""

    @property
    @abstractmethod
    def n_steps(self) -> int:
        """How often the model runs at most, roughly."""

    @property
    @abstractmethod
    def text(self) -> TextCounts:
        """How many items there are, and the tokens that are read for them."""

    @abstractmethod
    def list_asked(self) -> tuple[tuple[AskedText, ...], ...]:
        """What the model reads for every item, in their order."""

    @abstractmethod
    def first(self, n: int) -> Self:
        """The first `n` items alone."""

    @abstractmethod
    def answer(self, model: AskedModel) -> ScoredItems:
        """What the model answers to every item, in their order, and whether that is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnItems(TaskItems):
    """Items from rows of the user's, as a model reads them."""

    examples: tuple[Example, ...]
    pairs: tuple[TokenPair, ...] = ()  # of choices: those of the first item, of the second, ...
    prompts: tuple[Ids, ...] = ()  # for generation
    generation: Generation = field(default_factory=Generation)
    judge: JudgeText = equals_text

    @property
    def n_units(self) -> int:
        """Items."""
        return len(self.examples)

    def list_asked(self) -> tuple[tuple[AskedText, ...], ...]:
        """What the model reads for every item, in their order."""
        if not self.protocol.kind.chooses:
            return tuple(
                (AskedText(place=e.place, read=TokenPair(ids, len(ids)), answer=e.answer_text),)
                for e, ids in zip(self.examples, self.prompts, strict=True)
            )
        pairs = iter(self.pairs)
        return tuple(
            tuple(
                AskedText(
                    place=f"{example.place}, choice {number + 1} of {len(example.choices)}",
                    read=next(pairs),
                    is_right=number == example.answer,
                )
                for number in range(len(example.choices))
            )
            for example in self.examples
        )

    def first(self, n: int) -> Self:
        """The first `n` items alone."""
        examples = self.examples[:n]
        n_pairs = sum(len(example.choices) for example in examples)
        return replace(
            self, examples=examples, pairs=self.pairs[:n_pairs], prompts=self.prompts[:n]
        )

    @property
    def n_positions(self) -> int:
        """Tokens that are read or may be generated."""
        n_new = self.generation.max_new_tokens * len(self.prompts)
        return sum(len(p.ids) for p in self.pairs) + sum(map(len, self.prompts)) + n_new

    @property
    def text(self) -> TextCounts:
        """How many items there are, and the tokens that are read for them."""
        ids = [i for pair in self.pairs for i in pair.ids] + [i for p in self.prompts for i in p]
        n_unknown = sum(i == self.tokenizer.unknown_id for i in ids)
        return TextCounts(
            n_documents=self.n_units, n_tokens=len(ids), n_dropped=0, n_unknown=n_unknown
        )

    @property
    def n_steps(self) -> int:
        """How often the model runs at most, roughly."""
        n_batches = 1 + self.n_positions // MAX_POSITIONS
        return n_batches if self.pairs else n_batches * self.generation.max_new_tokens

    def answer(self, model: AskedModel) -> ScoredItems:
        """What the model answers to every item, in their order, and whether that is right."""
        return self._choose(model) if self.protocol.kind.chooses else self._generate(model)

    def _choose(self, model: AskedModel) -> ScoredItems:
        scores = score_pairs(
            model.scorer,
            self.pairs,
            length=self.protocol.length,
            end_id=self.tokenizer.end_id,
            device=model.device,
            poll=model.poll,
            team=model.team,
        )
        per_character = self.protocol.kind.judge == "likeliest-per-character"
        items, first = [], 0
        for example in self.examples:
            nats = tuple(scores.nats[first : first + len(example.choices)].tolist())
            first += len(nats)
            if not all(map(math.isfinite, nats)):
                raise InputError(
                    f"{example.place}: the model's likelihood of a choice is not a finite number. "
                    "Look at the weights, and at the precision."
                )
            chosen = pick_choice(nats, example.choices, per_character=per_character)
            right = float(chosen == example.answer)
            text = example.choices[chosen]
            items.append(self._describe(example, text, right=right, nats=nats))
        return ScoredItems(tuple(items), scores.n_scored)

    def _generate(self, model: AskedModel) -> ScoredItems:
        found = write_continuations(
            model.scorer,
            self.tokenizer,
            self.prompts,
            max_new_tokens=self.generation.max_new_tokens,
            stops=self.generation.stop,
            end_ids=self.tokenizer.ending_ids,
            device=model.device,
            poll=model.poll,
        )
        items = []
        for example, each in zip(self.examples, found, strict=True):
            right = judge_text(self.judge, each.text, example.answer_text, example.place)
            items.append(self._describe(example, each.text, right=float(right), is_cut=each.is_cut))
        return ScoredItems(tuple(items), sum(each.n_tokens for each in found))

    @staticmethod
    def _describe(example: Example, text: str, **values: Any) -> ItemRecord:
        answer = example.choices[example.answer] if example.choices else example.answer_text
        return ItemRecord(
            place=example.name, prompt=example.question, answer=answer, text=text, **values
        )


def describe_items(
    benchmark: str, part: TaskItems, scored: ScoredItems, seconds: float
) -> DocumentSums:
    """The stored form of the answers."""
    right = np.array([item.right for item in scored.items])
    accuracy, n = float(right.mean()), len(right)
    error = None
    if part.n_population is not None and n > 1:
        left_out = max(0.0, 1 - n / part.n_population)
        error = math.sqrt(left_out * float(right.var(ddof=1)) / n)
    evaluation = EvaluationRecord(
        benchmark=benchmark,
        protocol=part.protocol.name,
        protocol_version=part.protocol.kind.version,
        cross_entropy=None,
        perplexity=None,
        n_tokens=scored.n_tokens,
        n_documents=n,
        sum_nats=None,
        seconds=seconds,
        averaged_over="documents",
        accuracy=accuracy,
        tokenizer_digest=part.tokenizer.digest,
        n_population=part.n_population,
        standard_error=error,
        metric=scored.metric,
        n_cut=sum(item.is_cut for item in scored.items),
        text=part.text,
    )
    return DocumentSums(evaluation=evaluation, unit="item", items=scored.items)


def time_answers(part: TaskItems, model: AskedModel) -> tuple[ScoredItems, float]:
    """The answers, and the seconds that they took."""
    began = time.perf_counter()
    return part.answer(model), time.perf_counter() - began
