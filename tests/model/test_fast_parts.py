"""Parts of the fast implementation: what dropout draws, and functions against their definitions."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lorastudy.model.fast import dropout as fast_dropout
from lorastudy.model.fast.attention import attend
from lorastudy.model.fast.dropout import FastDropout, draw_keep_mask, drop
from lorastudy.model.fast.flat_rows import FlatRows
from lorastudy.model.fast.lora import FastLoraLinear
from lorastudy.model.fast.remade import FusedGelu
from lorastudy.model.fast.speed_up import speed_up
from support.tiny_arms import CPU, attach, lora

N = 400_000  # elements; five standard errors of a keep rate are then below 0.4 %


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_as_many_are_kept_as_the_rate_says(rate: float) -> None:
    torch.manual_seed(0)
    kept = draw_keep_mask((N,), rate, CPU)
    assert set(kept.unique().tolist()) == {0, 1}
    standard_error = (rate * (1 - rate) / N) ** 0.5
    assert abs(float(kept.float().mean()) - (1 - rate)) < 5 * standard_error


def test_elements_are_dropped_independently_of_their_neighbours() -> None:
    torch.manual_seed(0)
    kept = draw_keep_mask((N,), 0.1, CPU).float() - 0.9
    for distance in (1, 2, 3, 4, 8):  # four elements come from one drawn number
        correlation = float((kept[distance:] * kept[:-distance]).mean()) / 0.09
        assert abs(correlation) < 5 / N**0.5


def test_sizes_that_are_no_multiple_of_four_are_drawn() -> None:
    assert [draw_keep_mask((n, 1), 0.5, CPU).shape for n in (1, 2, 3, 5)] == [
        (1, 1), (2, 1), (3, 1), (5, 1)
    ]  # fmt: skip


def test_dropout_keeps_the_mean() -> None:
    torch.manual_seed(0)
    assert float(drop(torch.ones(N), 0.1).mean()) == pytest.approx(1, abs=0.003)


def test_backward_goes_through_the_mask_of_forward() -> None:
    x = torch.rand(50, 40).add_(1).requires_grad_()
    y = drop(x, 0.3)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, y == 0) and bool((y == 0).any())
    assert torch.allclose(x.grad[y != 0], torch.tensor(1 / 0.7))


def test_a_rate_of_one_drops_everything_as_in_torch() -> None:
    x = torch.ones(50, requires_grad=True)
    y = drop(x, 1.0)
    y.sum().backward()
    assert torch.equal(y, torch.nn.functional.dropout(x, 1.0)) and x.grad is not None
    assert torch.equal(x.grad, torch.zeros(50))


def test_seed_decides_the_mask() -> None:
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(draw_keep_mask((1000,), 0.1, CPU))
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_two_draws_after_a_seed_differ() -> None:
    torch.manual_seed(3)
    assert not torch.equal(draw_keep_mask((1000,), 0.1, CPU), draw_keep_mask((1000,), 0.1, CPU))


def test_module_drops_in_training_only() -> None:
    module = FastDropout(0.5)
    x = torch.ones(1000)
    assert bool((module(x) == 0).any())
    assert module.eval()(x) is x
    assert FastDropout(0.0).train()(x) is x


def test_fused_gelu_is_the_one_written_out() -> None:
    from transformers.activations import NewGELUActivation

    x = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    assert torch.allclose(FusedGelu()(x), NewGELUActivation()(x), rtol=1e-12, atol=1e-12)


def lora_module(folder: Path) -> FastLoraLinear:
    """A Conv1D or Linear with an adapter, in float64, dropout 0.1, B not zero."""
    model = attach(folder, lora("lora-1"))
    speed_up(model.network, "float32")
    module = next(m for m in model.network.modules() if isinstance(m, FastLoraLinear))
    nn.init.normal_(module.lora_B["default"].weight)
    return module.double().train()


def with_fixed_mask(monkeypatch: pytest.MonkeyPatch, mask: Tensor) -> None:
    fast = "lorastudy.model.fast"
    monkeypatch.setattr(
        f"{fast}.lora.draw_keep_mask", lambda shape, _rate, _device: mask.view(shape)
    )
    monkeypatch.setattr(
        f"{fast}.attention_blocks.draw_keep_masks_of_rows", lambda _counts, _rate: mask
    )


def assert_same_function(got: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    """Equal values, and equal gradients in a random direction."""
    assert torch.allclose(got, expected)
    direction = torch.randn(expected.shape, dtype=torch.float64)
    ours = torch.autograd.grad(got, inputs, direction)
    theirs = torch.autograd.grad(expected, inputs, direction)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other)


@pytest.mark.parametrize("layout", ["tiny_gpt2", "tiny_llama"])
def test_lora_with_a_fixed_mask_has_the_gradient_of_its_definition(
    layout: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = lora_module(request.getfixturevalue(layout))
    a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
    x = torch.randn(2, 3, 32, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(6, 32) > 0.3
    with_fixed_mask(monkeypatch, mask.to(torch.int8))
    got = module(x)
    dropped = x * mask.view(x.shape) / 0.9
    expected = module.get_base_layer()(x) + 2.0 * dropped @ a.t() @ b.t()  # alpha / r = 2
    assert_same_function(got, expected, x, a, b)


def test_lora_drops_its_input_at_the_rate_of_the_adapter(tiny_gpt2: Path) -> None:
    module = lora_module(tiny_gpt2)
    with torch.no_grad():  # A reads one element, B writes it on: the output shows the mask
        module.get_base_layer().weight.zero_()
        module.get_base_layer().bias.zero_()
        module.lora_A["default"].weight.zero_()[0, 0] = 1
        module.lora_B["default"].weight.zero_()[0, 0] = 1
    torch.manual_seed(0)
    x = torch.ones(20_000, 32, dtype=torch.float64)
    y = module(x)[:, 0].detach()
    assert float((y == 0).double().mean()) == pytest.approx(0.1, abs=5 * (0.09 / 20_000) ** 0.5)
    assert torch.allclose(y[y != 0], torch.tensor(2 / 0.9, dtype=torch.float64))
    assert torch.equal(module.eval()(x)[:, 0].detach(), torch.full_like(y, 2.0))


@pytest.mark.parametrize("layout", ["tiny_gpt2", "tiny_llama"])
@pytest.mark.parametrize("n_tokens", [2, 200])  # the adapter apart from the weight, and added to it
def test_lora_without_gradients_is_its_definition(
    layout: str, n_tokens: int, request: pytest.FixtureRequest
) -> None:
    module = lora_module(request.getfixturevalue(layout)).eval()
    a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
    before = module.get_base_layer().weight.clone()
    x = torch.randn(1, n_tokens, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = module.get_base_layer()(x) + 2.0 * x @ a.t() @ b.t()
        assert torch.allclose(module(x), expected)
    assert torch.equal(module.get_base_layer().weight, before)


def test_attention_with_a_fixed_mask_has_the_gradient_of_its_definition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    q, k, v = (torch.randn(1, 2, 9, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    rows = FlatRows((0, 4, 9))
    mask = torch.rand(2 * 16 + 2 * 25) > 0.3
    with_fixed_mask(monkeypatch, mask.to(torch.int8))
    got = attend(nn.Identity(), q, k, v, None, flat_rows=rows, dropout=0.2)[0]
    parts = []
    for (begin, end), keep in zip(rows.spans, mask.split([32, 50]), strict=True):
        length = end - begin
        scores = q[0, :, begin:end] @ k[0, :, begin:end].transpose(1, 2) / 2
        hidden = torch.ones(length, length).triu(1).bool()
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        weights = weights * keep.view(weights.shape) / 0.8
        parts.append((weights @ v[0, :, begin:end]).transpose(0, 1))
    expected = torch.cat(parts)[None]
    assert_same_function(got, expected, q, k, v)


@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize("hidden", [False, True])
def test_attention_of_a_long_document_is_its_definition(window: int | None, hidden: bool) -> None:
    q, k, v = (torch.randn(1, 2, 209, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    visible = torch.rand(209) > 0.2 if hidden else None
    rows = FlatRows((0, 9, 209), visible)
    got = attend(nn.Identity(), q, k, v, None, flat_rows=rows, sliding_window=window)[0]
    parts = []
    for begin, end in rows.spans:
        distance = torch.arange(end - begin)[:, None] - torch.arange(end - begin)
        seen = (distance >= 0) & (distance < (window or end))
        if visible is not None:
            seen = seen & visible[begin:end]
        weights = (q[0, :, begin:end] @ k[0, :, begin:end].transpose(1, 2) / 2).exp() * seen
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)
        parts.append((weights @ v[0, :, begin:end]).transpose(0, 1))
    expected = torch.cat(parts)[None]
    assert_same_function(got, expected, q, k, v)


def test_attention_of_a_long_document_goes_back_through_the_dropout_of_forward() -> None:
    q, k, v = (torch.randn(1, 1, 97, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def run(*inputs: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attend(nn.Identity(), *inputs, None, flat_rows=FlatRows((0, 97)), dropout=0.3)[0]

    assert torch.autograd.gradcheck(run, (q, k, v))


def test_other_devices_draw_masks_of_their_own() -> None:
    kept = fast_dropout.draw_keep_mask((4, 4), 0.1, torch.device("meta"))
    assert (kept.shape, kept.device.type, kept.dtype) == ((4, 4), "meta", torch.int8)
