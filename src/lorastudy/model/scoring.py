"""Nats of every scored target of a batch: the one place where a model is run.

Shapes: B = rows, T = positions, S = scored targets of the batch, V = vocabulary.

Labels are never passed to a model. Only scored positions go through the output layer: the
logits of a row of 350 tokens are the largest tensor of a small model. Whether "body, then
output layer" is the whole model is tried once, on random tokens, when the model is wrapped;
where it is not (soft-capped or scaled logits), the model's own logits are used.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorastudy.data.batches import Batch
from lorastudy.loss import IGNORE_INDEX

SCORE_CHUNK = 1024  # scored positions a chunk when no gradient is needed: bounds the logits


@dataclass(frozen=True, slots=True)
class Scorer:
    """Runs `network` in `precision` ("float32" or "bfloat16" autocast)."""

    network: PreTrainedModel
    precision: str
    splits_head: bool  # body and output layer can be run apart

    def score(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of each scored target, (S,) float32, row by row, in nats.

        Differentiable where gradients are on.
        """
        device = batch.input_ids.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            scored = batch.targets != IGNORE_INDEX  # (B, T)
            targets = batch.targets[scored]  # (S,)
            if not self.splits_head:
                logits = self.network(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
                ).logits
                return _nats(logits[scored], targets)
            hidden = run_body(self.network, batch.input_ids, batch.attention_mask)[scored]  # (S, H)
            head = self.network.get_output_embeddings()
            assert head is not None
            if torch.is_grad_enabled():
                return _nats(head(hidden), targets)
            chunks = zip(hidden.split(SCORE_CHUNK), targets.split(SCORE_CHUNK), strict=True)
            return torch.cat([_nats(head(h), t) for h, t in chunks])

    @torch.no_grad()
    def score_choices(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As `score`, and whether each target is the model's most likely token, (S,) bool.

        For few targets a row: their logits are held at once.
        """
        device = batch.input_ids.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            scored = batch.targets != IGNORE_INDEX  # (B, T)
            targets = batch.targets[scored]  # (S,)
            if self.splits_head:
                head = self.network.get_output_embeddings()
                assert head is not None
                hidden = run_body(self.network, batch.input_ids, batch.attention_mask)
                logits = head(hidden[scored])  # (S, V)
            else:
                logits = self.network(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
                ).logits[scored]
            return _nats(logits, targets), logits.argmax(-1) == targets


def make_scorer(network: PreTrainedModel, precision: str) -> Scorer:
    """A scorer for `network`; finds out whether its output layer can be run apart."""
    return Scorer(network, precision, splits_head=_head_is_separate(network))


def run_body(network: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Hidden states in front of the output layer, (B, T, H)."""
    body = getattr(network, network.base_model_prefix)
    hidden: Tensor = body(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=False
    ).last_hidden_state
    return hidden


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """(S, V), (S,) -> (S,); the softmax is taken in float32 whatever the logits are."""
    return nn.functional.cross_entropy(logits.float(), targets, reduction="none")


@torch.no_grad()
def _head_is_separate(network: PreTrainedModel) -> bool:
    head = network.get_output_embeddings()
    if head is None or not hasattr(network, network.base_model_prefix):
        return False
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    ids = torch.arange(1, 9, device=device)[None]
    try:
        apart = head(run_body(network, ids, None))
        whole = network(input_ids=ids, use_cache=False).logits
    except (AttributeError, TypeError):
        return False
    finally:
        network.train(was_training)
    return apart.shape == whole.shape and torch.equal(apart, whole)
