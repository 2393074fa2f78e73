"""Losses and gradients of tiny arms, from this program and from transformers, to be compared."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorastudy.config.models import Arm
from lorastudy.data.batches import Batch, Padding, make_batch
from lorastudy.data.rows import RowTable
from lorastudy.loss import IGNORE_INDEX
from lorastudy.model.adapters import ArmModel
from support.tiny_arms import FULL, PLACEMENTS, as_if_trained, attach, lora

PAD, LENGTH = 256, 24
LAYOUTS = ("tiny_gpt2", "tiny_llama")
ARMS = {"full": FULL, **{name: lora(name) for name in PLACEMENTS}}
Gradients = dict[str, Tensor]


def batch_of(corpus: tuple[np.ndarray, RowTable], *, scored: bool = False) -> Batch:
    tokens, table = corpus
    padding = Padding(PAD, LENGTH if scored else None)
    return make_batch(tokens, table, np.arange(table.n_rows), padding)


def without_dropout(model: ArmModel) -> ArmModel:
    for module in model.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.network.train()
    return model


def arm_model(folder: Path, arm: Arm) -> ArmModel:
    return without_dropout(as_if_trained(attach(folder, arm)))


def loss_of_transformers(network: PreTrainedModel, batch: Batch) -> Tensor:
    """Mean nats by the model's own loss, from padded rows with an attention mask."""
    width = batch.input_ids.shape[1]
    mask = batch.attention_mask
    if mask is None:
        mask = (torch.arange(width) < torch.from_numpy(batch.n_read)[:, None]).long()
    labels = torch.cat([torch.full((len(mask), 1), IGNORE_INDEX), batch.targets], dim=1)
    ids = torch.cat([batch.input_ids, torch.full((len(mask), 1), PAD)], dim=1)
    mask = torch.cat([mask, torch.zeros(len(mask), 1, dtype=mask.dtype)], dim=1)
    loss: Tensor = network(input_ids=ids, attention_mask=mask, labels=labels).loss
    return loss


def gradients_of(model: ArmModel, loss: Tensor) -> Gradients:
    loss.backward()
    found = {}
    for name, parameter in model.trained_tensors().items():
        assert parameter.grad is not None, name
        found[name] = parameter.grad
    return found


def assert_equal_gradients(ours: Gradients, theirs: Gradients, tolerance: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys() and ours
    errors = {n: float((ours[n] - theirs[n]).norm() / theirs[n].norm()) for n in ours}
    assert max(errors.values()) < tolerance, errors
