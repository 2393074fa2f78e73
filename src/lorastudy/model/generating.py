"""Greedy generation: the most likely token, again and again, until an answer ends.

Prompts of one length are continued together, so no row is padded and every family of models can do
it. The tokens are those that each prompt would be given alone and without a cache. Whether a cache
changes the logits is tried on a few tokens, since some families count positions wrong with one, and
others fail.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lorastudy.errors import is_out_of_memory
from lorastudy.model.fast.compiled import run_uncompiled
from lorastudy.model.scoring import Continuation
from lorastudy.model.sharing import AnyScorer

_N_TRIED, _N_PROMPT = 9, 5  # tokens of a text that is tried out, and of its part read at once
_CLOSE, _CLOSE_ROUNDED = 1e-3, 0.1  # of the largest logit, where all is float32 or not
MAX_POSITIONS = 4900  # of prompts and answers that are kept at once, as in scoring

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """When an answer is over."""

    max_new_tokens: int
    end_ids: frozenset[int]  # tokens that end it; they are not part of it
    is_over: Callable[[Ids], bool] = lambda _: False  # whether the tokens so far contain a stop


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model wrote after a prompt."""

    ids: Ids  # without a token that ended it
    is_cut: bool  # it has `max_new_tokens` tokens, and no end


def find_end_ids(network: PreTrainedModel) -> frozenset[int]:
    """The tokens at which the model's own settings end a text (generation_config.json)."""
    found = getattr(network.generation_config, "eos_token_id", None)
    return frozenset([found] if isinstance(found, int) else found or [])


def generate_greedily(
    scorer: AnyScorer,
    prompts: Sequence[Ids],
    ending: Ending,
    *,
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
    penalty: float = 1.0,
    max_positions: int = MAX_POSITIONS,
) -> tuple[Generated, ...]:
    """What the model writes after each prompt, in their order; prompts have at least one token.

    All members of a team have to call this with the same prompts, and each has all results.

    Args:
        scorer: The model and its precision.
        prompts: Token ids.
        ending: When an answer is over.
        device: Where the model is.
        poll: Called before every token; may raise to stop.
        penalty: By which logits of tokens that occurred before are divided where positive, and
            multiplied where negative; transformers' repetition_penalty. 1: the plain logits.
        max_positions: Tokens of prompts and answers that are kept at once.
    """
    scorer.network.eval()
    found: dict[int, Generated] = {}
    with run_uncompiled(scorer.network):
        use = choose_cache_use(scorer, device)
    longest_first = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    for length, group in groupby(longest_first, key=lambda i: len(prompts[i])):
        rows = list(group)
        at_once = max(1, max_positions // (length + ending.max_new_tokens))
        at_once = 1 if scorer.takes_rows_alone else at_once
        for begin in range(0, len(rows), at_once):
            part = rows[begin : begin + at_once]
            ids = torch.tensor([prompts[i] for i in part], device=device)
            with run_uncompiled(scorer.network):
                written = _continue_rows(scorer, ids, use, ending, poll=poll, penalty=penalty)
            found |= zip(part, written, strict=True)
    return tuple(found[i] for i in range(len(prompts)))


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How a model's cache is used when a text is continued."""

    is_used: bool  # if not, all tokens are read again for each new one
    names_positions: bool = False  # the model is told where the tokens stand

    def start(self, prompts: Tensor) -> Continuation:
        """The first step: all tokens of the prompts, (B, T)."""
        return Continuation(prompts, None, 0 if self.names_positions else None, self.is_used)

    def follow(self, read: Tensor, cache: object) -> Continuation:
        """The step after (B, T) tokens, of which all but the last are in the cache."""
        if cache is None:
            return self.start(read)
        begin = read.shape[1] - 1 if self.names_positions else None
        return Continuation(read[:, -1:], cache, begin)


@torch.no_grad()
def choose_cache_use(scorer: AnyScorer, device: torch.device) -> CacheUse:
    """The use of the cache with which the logits are those without it; if there is none, no use."""
    unused = CacheUse(is_used=False)
    if scorer.takes_rows_alone:
        return unused
    embedding: Any = scorer.network.get_input_embeddings()
    n_vocabulary = embedding.weight.shape[0]
    ids = torch.arange(1, _N_TRIED + 1, device=device)[None] % n_vocabulary
    alone = scorer.look_ahead(unused.start(ids)).logits
    plain, placed = CacheUse(is_used=True), CacheUse(is_used=True, names_positions=True)
    is_exact = scorer.precision == "float32" and all(
        parameter.dtype == torch.float32 for parameter in scorer.network.parameters()
    )
    limit = (_CLOSE if is_exact else _CLOSE_ROUNDED) * float(alone.abs().max())
    for use in (plain, placed):
        if _distance(scorer, use, ids, alone) <= limit:
            return use
    return unused


def _distance(scorer: AnyScorer, use: CacheUse, ids: Tensor, alone: Tensor) -> float:
    """How far logits after `ids`, most of them read one by one, are from those of all at once."""
    try:
        following = scorer.look_ahead(use.start(ids[:, :_N_PROMPT]))
        for n_read in range(_N_PROMPT + 1, ids.shape[1] + 1):
            following = scorer.look_ahead(use.follow(ids[:, :n_read], following.cache))
    except Exception as error:  # a family without a cache may raise anything
        if is_out_of_memory(error):
            raise
        return math.inf
    return float((following.logits - alone).abs().max())


def _continue_rows(
    scorer: AnyScorer,
    prompts: Tensor,
    use: CacheUse,
    ending: Ending,
    *,
    poll: Callable[[], None],
    penalty: float,
) -> list[Generated]:
    """The answers to prompts of one length, (B, T)."""
    answers: list[list[int]] = [[] for _ in prompts]
    is_open = [True] * len(prompts)
    step, read = use.start(prompts), prompts
    for _ in range(ending.max_new_tokens):
        poll()
        following = scorer.look_ahead(step)
        chosen = _penalise(following.logits, read, penalty).argmax(-1)
        for b, token in enumerate(chosen.tolist()):
            if not is_open[b]:
                continue
            if token in ending.end_ids:
                is_open[b] = False
                continue
            answers[b].append(token)
            is_open[b] = not ending.is_over(tuple(answers[b]))
        if not any(is_open):
            break
        # rows that have ended go on with the others, and what follows is not read
        read = torch.cat([read, chosen[:, None]], dim=1)
        step = use.follow(read, following.cache)
    pairs = zip(answers, is_open, strict=True)
    return [Generated(tuple(ids), is_cut) for ids, is_cut in pairs]


def _penalise(logits: Tensor, read: Tensor, penalty: float) -> Tensor:
    """Logits (B, V), lower for the tokens `read` (B, T) of each row."""
    if penalty == 1:
        return logits
    seen = logits.gather(1, read)
    lower = torch.where(seen < 0, seen * penalty, seen / penalty)
    return logits.scatter(1, read, lower)
