"""How likely a model finds texts that follow a context, as lm-evaluation-harness reads them.

A context and its continuation are tokenised together, with the tokens that the tokenizer adds by
itself. The context's own number of tokens says where the continuation begins, and its own tokens
are read, also where they differ from the first ones of both together. Spaces at the end of a
context belong to the continuation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lorastudy.data.batches import Padding
from lorastudy.data.rows import RowTable
from lorastudy.evaluate.score import FloatArray, score_rows
from lorastudy.machine.team import ALONE, Team
from lorastudy.model.sharing import AnyScorer
from lorastudy.model.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A context and what follows it, as one list of n tokens."""

    ids: tuple[int, ...]
    n_context: int  # at least 1

    @property
    def n_targets(self) -> int:
        """Tokens whose likelihood counts."""
        return len(self.ids) - self.n_context


@dataclass(frozen=True, slots=True)
class PairScores:
    """What a model says of N pairs."""

    nats: FloatArray  # (N,) summed over the continuation: minus its log-likelihood
    is_greedy: npt.NDArray[np.bool_]  # (N,) each token of it is the model's first choice
    n_scored: int
    seconds: float


def encode_pairs(texts: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> list[TokenPair]:
    """Contexts and continuations as tokens; after an empty context, the start token stands."""
    moved = [_move_spaces(*pair) for pair in texts]
    wholes = tokenizer.encode_as_configured([a + b for a, b in moved])
    contexts = tokenizer.encode_as_configured([a for a, _ in moved])
    bare = tokenizer.encode([b for _, b in moved])
    found = []
    for (context, _), whole, read, alone in zip(moved, wholes, contexts, bare, strict=True):
        if context:
            found.append(TokenPair((*read, *whole[len(read) :]), len(read)))
        else:
            start = [] if alone[:1] == [tokenizer.start_id] else [tokenizer.start_id]
            found.append(TokenPair((*start, *alone), 1))
    return found


def score_pairs(
    scorer: AnyScorer,
    pairs: Sequence[TokenPair],
    *,
    length: int,
    end_id: int,
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
    team: Team = ALONE,
) -> PairScores:
    """The nats of every continuation, in the order of `pairs`.

    The model reads at most `length` tokens, not counting the last target; a longer pair loses its
    beginning. Every continuation has 1 to `length` targets. `end_id` fills batches.
    """
    sizes = np.array([len(pair.ids) for pair in pairs])
    ends = np.cumsum(sizes)
    first = ends - sizes
    table = RowTable(
        prefix=None,
        begins=np.maximum(first, ends - length - 1),
        ends=ends,
        scored_from=first + np.array([pair.n_context for pair in pairs]),
        documents=np.arange(len(pairs)),
    )
    scores = score_rows(
        scorer,
        np.concatenate([np.array(pair.ids, dtype=np.int64) for pair in pairs]),
        table,
        Padding(end_id, None),
        device=device,
        poll=poll,
        count_first_choices=True,
        team=team,
    )
    assert scores.n_first_choices is not None, "they were asked for"
    return PairScores(
        nats=scores.sum_nats,
        is_greedy=scores.n_first_choices == scores.n_scored,
        n_scored=int(scores.n_scored.sum()),
        seconds=scores.seconds,
    )


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation
