"""A model as lm-evaluation-harness asks it: its requests, answered by the model trained here.

The answers are those of the harness' own HFLM. What cannot be answered is refused.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from lorastudy.errors import InputError
from lorastudy.evaluate.pairs import TokenPair, encode_pairs, score_pairs
from lorastudy.evaluate.writing import write_continuations
from lorastudy.machine.team import Team
from lorastudy.model.generating import find_end_ids
from lorastudy.model.sharing import AnyScorer
from lorastudy.model.tokenizer import Tokenizer
from lorastudy.run.harness_settings import (
    read_generation,
    read_penalty,
    refuse_perplexity,
    refuse_settings,
)


class Answering(Protocol):
    """What answers the requests of the harness, in their order."""

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether it is the greedy one."""

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """The log-likelihood of each text."""

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The text that is generated after each context."""


def as_harness_has_it(answering: Answering) -> Any:
    """The same as an object of the harness' own class of models."""
    from lm_eval.api.model import LM

    def call(name: str) -> Callable[..., Any]:
        return lambda _, requests, **__: getattr(answering, name)(requests)

    names = ("loglikelihood", "loglikelihood_rolling", "generate_until")
    return type("LorastudyModel", (LM,), {name: call(name) for name in names})()


class StandIn:
    """Answers without a model, so that a task can be tried before there is one."""

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Every continuation is equally likely."""
        return [(-1.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Every text is equally likely."""
        return [-1.0] * len(requests)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Nothing is written, or a sentence, in turn."""
        return ["" if place % 2 else " not 1 answer, but 2." for place in range(len(requests))]


@dataclass(slots=True, kw_only=True)
class HarnessModel:
    """Answers the requests of one task, as HFLM does."""

    task: str  # for people
    scorer: AnyScorer
    tokenizer: Tokenizer
    length: int  # tokens that the model reads at most
    device: torch.device
    poll: Callable[[], None]
    team: Team
    n_tokens: int = 0  # scored or generated so far

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether it is the greedy one."""
        scores = score_pairs(
            self.scorer,
            encode_choices(self.task, requests, self.tokenizer, self.length),
            length=self.length,
            end_id=self.tokenizer.end_id,
            device=self.device,
            poll=self.poll,
            team=self.team,
        )
        self.n_tokens += scores.n_scored
        found = zip(scores.nats.tolist(), scores.is_greedy.tolist(), strict=True)
        return [(-nats, is_greedy) for nats, is_greedy in found]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Not for tasks: perplexities of texts have protocols of their own."""
        raise refuse_perplexity(self.task)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The text that is generated greedily after each context, before the first stop."""
        refuse_settings("the model", self._own_settings)
        found: dict[int, str] = {}
        by_settings: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            settings = json.dumps(request.args[1], sort_keys=True, default=str)
            by_settings.setdefault(settings, []).append(place)
        for places in by_settings.values():
            contexts = [requests[place].args[0] for place in places]
            texts = self._generate(contexts, dict(requests[places[0]].args[1]))
            found |= zip(places, texts, strict=True)
        return [found[place] for place in range(len(requests))]

    @property
    def _own_settings(self) -> dict[str, Any]:
        """Of generation, in the model's folder."""
        return vars(self.scorer.network.generation_config)

    def _generate(self, contexts: list[str], settings: dict[str, Any]) -> list[str]:
        asked = read_generation(self.task, settings, self.length)
        prompts = self.tokenizer.encode_as_configured(contexts)
        found = write_continuations(
            self.scorer,
            self.tokenizer,
            [tuple(ids[-(self.length - asked.n_new) :]) for ids in prompts],
            max_new_tokens=asked.n_new,
            stops=asked.stops,
            end_ids=find_end_ids(self.scorer.network) | {self.tokenizer.end_id},
            device=self.device,
            poll=self.poll,
            penalty=asked.penalty or read_penalty("the model", self._own_settings) or 1.0,
        )
        self.n_tokens += sum(each.n_tokens for each in found)
        return [each.text for each in found]


def encode_choices(
    task: str, requests: Sequence[Any], tokenizer: Tokenizer, length: int
) -> list[TokenPair]:
    """The tokens of contexts and their continuations, in the order of `requests`.

    Raises:
        InputError: The model cannot score one of them; the message names its document.
    """
    pairs = encode_pairs([request.args[:2] for request in requests], tokenizer)
    for request, pair in zip(requests, pairs, strict=True):
        if not 1 <= pair.n_targets <= length:
            found = f"{pair.n_targets:,} tokens" if pair.n_targets > 0 else "no token of its own"
            raise InputError(
                f"{task}, document {request.doc_id}: the choice {request.args[1].strip()[:40]!r} "
                f"has {found}, and the model reads 1 to {length:,}. Leave the document out with "
                "the benchmark's limit, or choose another task."
            )
    return pairs
