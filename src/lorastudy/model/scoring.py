"""Nats of every scored target of a batch; a model is run only here.

Shapes: B = rows, T = positions, S = scored targets of the batch, V = vocabulary.

Labels are never passed to a model. Only scored positions go through the output layer, because the
logits of a row of 350 tokens are the largest tensor of a small model. When a model is wrapped, a
trial with random tokens shows whether "body, then output layer" is the whole model. If it is not
(soft-capped or scaled logits), the model's own logits are used.

The "fast" implementation replaces parts of the model by leaner ones and places rows one after the
other instead of padding them (`model/fast`). "compiled" is "fast" with its layers compiled by
torch.compile. "reference" is transformers + PEFT unchanged.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorastudy.data.batches import Batch
from lorastudy.data.rows import IntArray
from lorastudy.errors import is_out_of_memory
from lorastudy.model.fast.compiled import compile_layers
from lorastudy.model.fast.dropout import FastFunctionalDropout, draw_for_row
from lorastudy.model.fast.flat_rows import FlatRows
from lorastudy.model.fast.head import can_be_chunked, exponentiate_, sum_head_nats
from lorastudy.model.fast.speed_up import (
    drops_by_function,
    packs_hidden_keys,
    packs_rows,
    run_flat_rows,
    speed_up,
)
from lorastudy.model.rows_alone import KeptState, find_state_of_batches, split_rows
from lorastudy.model.text_part import find_body


@dataclass(frozen=True, slots=True)
class NextTokens:
    """What comes next for rows of one length: how likely tokens are, and what a model remembers."""

    logits: Tensor  # (B, V) float32
    cache: Any  # of all tokens so far; None: the model keeps none


@dataclass(frozen=True, slots=True)
class Continuation:
    """Tokens that follow those in the cache; without a cache, all tokens of the rows."""

    input_ids: Tensor  # (B, T)
    cache: Any = None
    begin: int | None = None  # position of the first of them; None: left to the model
    uses_cache: bool = True


SCORE_CHUNK = 512  # scored positions per chunk without gradients; this limits the logits


@dataclass(frozen=True, slots=True)
class Scorer:
    """Runs `network` in `precision` ("float32" or "bfloat16" autocast)."""

    network: PreTrainedModel
    precision: str
    splits_head: bool  # body and output layer can be run separately
    packs: bool = False  # rows are placed one after the other, without padding
    packs_masked: bool = False  # this also holds for rows in which some positions are hidden
    chunks_head: bool = False  # the output layer is trained without keeping its logits
    drops_by_function: bool = False  # dropout is not only in modules, which have been exchanged
    kept: KeptState | None = None  # rows are run one by one, each from this state; None: together

    def score(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of each scored target, (S,) float32, row by row, in nats.

        Differentiable where gradients are on.
        """
        with self._autocast(batch):
            targets = _select(batch.targets, batch.scored)  # (S,)
            if not self.splits_head:
                return _nats(self._scored_logits(batch), targets)
            hidden = self._scored_hidden(batch)
            head = self.network.get_output_embeddings()
            if torch.is_grad_enabled():
                return _nats(head(hidden), targets)
            chunks = zip(hidden.split(SCORE_CHUNK), targets.split(SCORE_CHUNK), strict=True)
            nats = _nats_in_place if self.chunks_head else _nats
            return torch.cat([nats(head(h), t) for h, t in chunks])

    def sum_nats(self, batch: Batch) -> Tensor:
        """The sum of `score`, (), for training: one backward pass, lean if the head allows it."""
        with FastFunctionalDropout() if self.drops_by_function else nullcontext():
            return self._sum_nats(batch)

    def _sum_nats(self, batch: Batch) -> Tensor:
        if not self.chunks_head:
            return self.score(batch).sum()
        with self._autocast(batch):
            targets = _select(batch.targets, batch.scored)
            head = self.network.get_output_embeddings()
            return sum_head_nats(head, self._scored_hidden(batch), targets)

    @torch.no_grad()
    def score_choices(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As `score`, and whether each target is the model's most likely token, (S,) bool.

        This is meant for few targets per row, since all their logits are kept at once.
        """
        with self._autocast(batch):
            targets = _select(batch.targets, batch.scored)  # (S,)
            logits = self._scored_logits(batch)
            return _nats(logits, targets), logits.argmax(-1) == targets

    @torch.no_grad()
    def look_ahead(self, step: Continuation) -> NextTokens:
        """The logits of the token after each row, all of one length and without padding.

        A model in which a row's length changes how its first tokens are computed keeps no cache.
        """
        if self.kept is not None:
            self.kept.put_back()
        keeps = self.kept is None and step.uses_cache
        known = {} if step.cache is None else {"past_key_values": step.cache}
        if step.begin is not None:
            places = torch.arange(step.input_ids.shape[1], device=step.input_ids.device)
            known["position_ids"] = (step.begin + places).expand_as(step.input_ids)
        run: Any = find_body(self.network) if self.splits_head else self.network
        with self._autocast(step):
            output = run(input_ids=step.input_ids, use_cache=keeps, **known)
            if self.splits_head:
                head: Any = self.network.get_output_embeddings()
                logits = head(output.last_hidden_state[:, -1])
            else:
                logits = output.logits[:, -1]
        cache = getattr(output, "past_key_values", None) if keeps else None
        return NextTokens(logits.float(), cache)

    @property
    def takes_rows_alone(self) -> bool:
        """Rows of a batch change each other, so each is run by itself."""
        return self.kept is not None

    def count_positions(self, batch: Batch) -> int:
        """Number of positions that the model computes for `batch`."""
        without_padding = self.kept is not None or self._packs(batch)
        return int(batch.n_read.sum()) if without_padding else batch.input_ids.numel()

    def keep_gradients(self) -> AbstractContextManager[object]:
        """Inside, backward passes only add to gradients; see `SharedScorer`."""
        return nullcontext()

    def _packs(self, batch: Batch) -> bool:
        return self.packs and (batch.attention_mask is None or self.packs_masked)

    def _autocast(self, batch: Batch | Continuation) -> torch.autocast:
        device = batch.input_ids.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _scored_logits(self, batch: Batch) -> Tensor:
        """The model's logits at scored positions, (S, V)."""
        if self.splits_head:
            logits: Tensor = self.network.get_output_embeddings()(self._scored_hidden(batch))
            return logits
        return self._run_rows(batch, self._run_whole)

    def _run_whole(self, batch: Batch) -> Tensor:
        output = self.network(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        )
        return _select(output.logits, batch.scored)

    def _scored_hidden(self, batch: Batch) -> Tensor:
        """Hidden states before the output layer at scored positions, (S, H)."""
        return self._run_rows(batch, self._run_body)

    def _run_body(self, batch: Batch) -> Tensor:
        if self._packs(batch):
            return _run_packed(self.network, batch)
        hidden = run_body(self.network, batch.input_ids, batch.attention_mask)
        return _select(hidden, batch.scored)

    def _run_rows(self, batch: Batch, run: Callable[[Batch], Tensor]) -> Tensor:
        """What `run` makes of the batch, (S, ...): of all rows at once, or of one after another."""
        if self.kept is None:
            return run(batch)
        parts = []
        for b, row in enumerate(split_rows(batch)):
            self.kept.put_back()
            with draw_for_row(b, row.input_ids.shape[1]):
                parts.append(run(row))
        return torch.cat(parts)


def make_scorer(
    network: PreTrainedModel,
    precision: str,
    *,
    implementation: str = "fast",
    keep_copies: bool = True,
) -> Scorer:
    """A scorer for `network`; finds out which of the leaner ways of running it are possible.

    With the "fast" implementation, modules of `network` are replaced in place by leaner ones.
    Without `keep_copies`, no bfloat16 copies of frozen weights are kept.

    Raises:
        ConfigError: The implementation is "compiled", and torch.compile does not work here.
    """
    splits_head = _head_is_separate(network)
    kept = find_state_of_batches(network)
    if implementation == "reference":
        return Scorer(network, precision, splits_head, kept=kept)
    speed_up(network, precision, keep_copies=keep_copies)
    head = network.get_output_embeddings()
    packs = splits_head and packs_rows(network)
    if implementation == "compiled":
        compile_layers(network)
    return Scorer(
        network,
        precision,
        splits_head,
        packs=packs,
        packs_masked=packs and packs_hidden_keys(network),
        chunks_head=splits_head and head is not None and can_be_chunked(head),
        drops_by_function=implementation == "fast" and drops_by_function(network),
        kept=kept,
    )


def run_body(network: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Hidden states before the output layer, (B, T, H)."""
    hidden: Tensor = find_body(network)(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=False
    ).last_hidden_state
    return hidden


def _run_packed(network: PreTrainedModel, batch: Batch) -> Tensor:
    """Hidden states at scored positions, (S, H); rows are one after the other, unpadded."""
    width, device = batch.input_ids.shape[1], batch.input_ids.device
    read = np.flatnonzero(np.arange(width) < batch.n_read[:, None])  # places in the padded batch
    bounds = (0, *np.cumsum(batch.n_read).tolist())
    visible = None
    if batch.attention_mask is not None:
        visible = _select(batch.attention_mask, read).bool()
    hidden = run_flat_rows(
        network,
        _select(batch.input_ids, read),
        torch.from_numpy(read % width).to(device),
        FlatRows(bounds, visible),
    )
    if len(batch.scored) == len(read):
        return hidden
    return hidden[torch.from_numpy(np.searchsorted(read, batch.scored)).to(device)]


def _select(padded: Tensor, places: IntArray) -> Tensor:
    """(B, T, ...) -> (n, ...): the entries at `places` of the flattened rows."""
    index = torch.from_numpy(places).to(padded.device, non_blocking=True)
    return padded.flatten(0, 1)[index]


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """(S, V), (S,) -> (S,); the softmax is in float32, whatever the type of the logits."""
    return nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def _nats_in_place(logits: Tensor, targets: Tensor) -> Tensor:
    """As `_nats`, but overwrites the logits; only without gradients."""
    return exponentiate_(logits.float(), targets)[0]


@torch.no_grad()
def _head_is_separate(network: PreTrainedModel) -> bool:
    head = network.get_output_embeddings()
    if head is None or find_body(network) is network:
        return False
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    ids = torch.arange(1, 9, device=device)[None]
    try:
        apart = head(run_body(network, ids, None))
        whole = network(input_ids=ids, use_cache=False).logits
    except (AttributeError, TypeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return False
    finally:
        network.train(was_training)
    return apart.shape == whole.shape and torch.equal(apart, whole)
