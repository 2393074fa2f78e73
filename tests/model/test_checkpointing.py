"""Layers that are computed again in backward train as those that keep everything."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lorastudy.data.rows import RowTable
from lorastudy.model.adapters import ArmModel
from lorastudy.model.checkpointing import checkpoint_layers
from lorastudy.model.fast.compiled import find_layers
from lorastudy.model.fast.dropout import RowStreams, draw_by_row
from lorastudy.model.scoring import make_scorer
from support.families import save_family
from support.gradients import ARMS, Gradients, assert_equal_gradients, batch_of, gradients_of
from support.tiny_arms import as_if_trained, attach


def train(
    model: ArmModel, corpus: tuple[np.ndarray, RowTable], implementation: str, *, again: bool
) -> tuple[Gradients, int]:
    """Gradients of a batch with dropout, and how often the first layer was computed."""
    scorer = make_scorer(model.network, "float32", implementation=implementation)
    if again:
        checkpoint_layers(model.network, drops_by_function=scorer.drops_by_function)
    layer = find_layers(model.network)[0]
    counted = []
    module = next(m for name, m in layer.named_modules() if name)
    module.register_forward_hook(lambda *_: counted.append(1))
    model.network.train()
    batch = batch_of(corpus)
    torch.manual_seed(3)
    with draw_by_row(RowStreams.of(batch, range(len(batch.input_ids)))):
        nats = scorer.sum_nats(batch)
    found = gradients_of(model, nats)
    n_trained = len(counted)
    with torch.no_grad():
        model.network.eval()
        scorer.score(batch)
    assert len(counted) == n_trained + 1, "an evaluation computes every layer once"
    return found, n_trained


@pytest.mark.parametrize("arm", ["full", "lora-4"])
@pytest.mark.parametrize("implementation", ["fast", "reference"])
@pytest.mark.parametrize("family", ["tiny_gpt2", "tiny_llama", "opt"])
def test_gradients_with_dropout_are_those_without_checkpointing(
    family: str,
    implementation: str,
    arm: str,
    corpus: tuple[np.ndarray, RowTable],
    request: pytest.FixtureRequest,
) -> None:
    if family.startswith("tiny"):
        folder: Path = request.getfixturevalue(family)
    else:  # its dropout is a function, not a module
        folder = save_family(family, request.getfixturevalue("tmp_path"))
    kept, again = (
        train(as_if_trained(attach(folder, ARMS[arm])), corpus, implementation, again=again)
        for again in (False, True)
    )
    assert (kept[1], again[1]) == (1, 2)
    assert_equal_gradients(again[0], kept[0], 1e-6)
