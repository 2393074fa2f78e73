"""Matrix products through oneDNN against those of torch, and the modules that take them."""

import copy
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorastudy.data.rows import RowTable
from lorastudy.model.fast import products
from lorastudy.model.fast.products import LargeConv1D, LargeLinear, multiply
from lorastudy.model.fast.remade import FusedGelu, RemadeLayerNorm, recipe_of
from lorastudy.model.scoring import make_scorer
from support.gradients import (
    ARMS,
    LAYOUTS,
    arm_model,
    assert_equal_gradients,
    batch_of,
    gradients_of,
    loss_of_transformers,
)


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Products of any size go through oneDNN; the list has one entry for each that went."""
    if not products._has_onednn():
        pytest.skip("this processor or this torch has no such operation")
    taken: list[int] = []
    run = products._onednn

    def counted(x: torch.Tensor, *others: object) -> torch.Tensor:
        taken.append(len(x))
        return run(x, *others)

    monkeypatch.setattr(products, "LEAST_PRODUCTS", 0)
    monkeypatch.setattr(products, "_onednn", counted)
    return taken


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("is_transposed", [True, False])
def test_products_are_those_of_torch(
    is_transposed: bool, has_bias: bool, any_size: list[int]
) -> None:
    x, weight = torch.randn(7, 12), torch.randn(12, 5).t() if is_transposed else torch.randn(5, 12)
    bias = torch.randn(5) if has_bias else None
    expected = nn.functional.linear(x, weight, bias)
    assert torch.allclose(multiply(x, weight, bias), expected, rtol=1e-6, atol=1e-6)
    assert any_size == [7]


@pytest.mark.parametrize("activation", [FusedGelu(), RemadeLayerNorm(12)], ids=["gelu", "norm"])
@pytest.mark.parametrize("kind", [LargeLinear, LargeConv1D])
def test_a_trained_module_does_not_keep_what_can_be_made_again(
    kind: type, activation: nn.Module
) -> None:
    module = kind(5, 12) if kind is LargeConv1D else kind(12, 5)
    x = torch.randn(2, 7, 12, requires_grad=True)
    kept: set[int] = set()

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        origin = x * 2
        activated = activation(origin)
        got = module(activated)
    assert origin.data_ptr() in kept and activated.data_ptr() not in kept
    weight = module.weight.t() if kind is LargeConv1D else module.weight
    expected = nn.functional.linear(activation(x * 2).clone(), weight, module.bias)
    direction = torch.randn(got.shape)
    trained = (x, module.weight, module.bias)
    ours = torch.autograd.grad(got, trained, direction)
    theirs = torch.autograd.grad(expected, trained, direction)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_what_an_input_is_made_of_is_let_go_in_backward() -> None:
    activated = FusedGelu()(torch.randn(2, 12, requires_grad=True))
    output = LargeLinear(12, 5)(activated)
    recipe = weakref.ref(recipe_of(activated))
    del activated
    assert recipe() is not None
    output.sum().backward()
    assert recipe() is None, "kept as long as the output is"


def test_what_was_changed_in_place_cannot_be_made_again() -> None:
    activated = FusedGelu()(torch.randn(3, requires_grad=True))
    assert recipe_of(activated) is not None
    with torch.no_grad():
        activated.mul_(2)
    assert recipe_of(activated) is None


def test_other_types_and_small_products_are_left_to_torch(any_size: list[int]) -> None:
    x, weight = torch.randn(7, 12, dtype=torch.float64), torch.randn(5, 12, dtype=torch.float64)
    assert torch.equal(multiply(x, weight), nn.functional.linear(x, weight))
    products.LEAST_PRODUCTS = 7 * 60 + 1  # put back by the fixture
    multiply(x.float(), weight.float())
    assert any_size == []


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_modules_have_the_gradients_of_their_definition(kind: type, any_size: list[int]) -> None:
    plain = nn.Linear(12, 5) if kind is nn.Linear else Conv1D(5, 12)
    large = copy.deepcopy(plain)
    large.__class__ = LargeLinear if kind is nn.Linear else LargeConv1D
    inputs = [torch.randn(2, 3, 12).requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    direction = torch.randn(2, 3, 5)
    for module, x in zip((plain, large), inputs, strict=True):
        (module(x) * direction).sum().backward()
    assert any_size == [6, 6]
    ours, theirs = (
        [x.grad, m.weight.grad, m.bias.grad] for m, x in ((large, inputs[1]), (plain, inputs[0]))
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-6, atol=1e-6)
    assert large.weight.grad.is_contiguous()


@pytest.mark.parametrize("arm", ["full", "lora-4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_through_onednn_are_those_of_transformers(
    layout: str,
    arm: str,
    corpus: tuple[np.ndarray, RowTable],
    any_size: list[int],
    request: pytest.FixtureRequest,
) -> None:
    folder: Path = request.getfixturevalue(layout)
    batch = batch_of(corpus)
    reference, fast = (arm_model(folder, ARMS[arm]) for _ in range(2))
    theirs = loss_of_transformers(reference.network, batch)
    ours = make_scorer(fast.network, "float32").sum_nats(batch) / batch.n_scored
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert_equal_gradients(gradients_of(fast, ours), gradients_of(reference, theirs))
    assert len(any_size) > 20


def test_a_processor_without_it_uses_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> torch.Tensor:
        raise AttributeError("no such operation")

    monkeypatch.setattr(products, "_onednn", missing)
    products._has_onednn.cache_clear()
    try:
        assert not products._has_onednn()
        x = torch.randn(3000, 48)
        assert torch.equal(multiply(x, x), nn.functional.linear(x, x))
    finally:
        products._has_onednn.cache_clear()


MANY_SHAPES = """
import resource, torch
from lorastudy.machine.environment import set_up_memory
from lorastudy.model.fast.products import multiply
set_up_memory()
torch.set_num_threads(1)
weights = [torch.zeros(256 * n, 256) for n in (1, 2, 3, 4)]
def run(counts):
    for count in counts:
        for weight in weights:
            multiply(torch.zeros(count, 256), weight)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(-run(range(590, 600)) + run(range(300, 500)))
"""


def test_memory_does_not_grow_with_the_token_counts_that_were_seen() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MANY_SHAPES], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 15  # MiB; it was 530 without bounds on oneDNN's caches
