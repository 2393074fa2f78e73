"""AdamW on bfloat16 weights: right on average where rounding to the nearest number loses steps."""

import pytest
import torch
from torch import nn

from lorastudy.config.models import Optimizer
from lorastudy.train import rounding
from lorastudy.train.optimizer import make_optimizer
from lorastudy.train.rounding import RoundingAdamW, round_

SPACING = 2.0**-7  # of bfloat16 numbers between 1 and 2


@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_becomes_one_of_its_neighbours_and_is_right_on_average(sign: int) -> None:
    exact = sign * (1.0 + 0.25 * SPACING)
    found = round_(torch.full((40_000,), exact), torch.Generator().manual_seed(0))
    assert set(found.tolist()) == {sign * 1.0, sign * (1.0 + SPACING)}
    assert float(found.mean()) == pytest.approx(exact, abs=0.02 * SPACING)
    assert torch.equal(found, found.bfloat16().float())


def train(weight: nn.Parameter, *, n_steps: int = 20, seed: int = 0) -> torch.Tensor:
    """The weight after steps of 1e-4 downwards each."""
    optimizer = make_optimizer({"w": weight}, Optimizer(weight_decay=0.0), seed=seed)
    optimizer.param_groups[0]["lr"] = 1e-4
    weight.grad_dtype = torch.float32
    for _ in range(n_steps):
        weight.grad = torch.ones(weight.shape)
        optimizer.step()
    return weight.detach().float()


def test_steps_below_the_spacing_of_numbers_are_taken_on_average(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounding, "_PART", 1000)
    ones = torch.ones(100, 100)
    exact = train(nn.Parameter(ones.clone()))
    assert torch.allclose(exact, ones - 20e-4)
    found = train(nn.Parameter(ones.bfloat16()))
    assert float(found.mean()) == pytest.approx(float(exact.mean()), abs=1e-4)
    assert torch.equal(found, train(nn.Parameter(ones.bfloat16())))
    assert not torch.equal(found, train(nn.Parameter(ones.bfloat16()), seed=1))
    assert len({float(part.mean()) for part in found.flatten().split(1000)}) > 5  # drawn anew


def test_other_weights_and_all_moments_are_those_of_float32() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(2, 3, 5), torch.randn(4, 2, 3, 5)
    plain, held, beside = (
        nn.Parameter(x.clone()) for x in (start[0], start[0].bfloat16(), start[1])
    )
    theirs = torch.optim.AdamW([plain, other := nn.Parameter(start[1].clone())], lr=1e-3)
    ours = RoundingAdamW([held, beside], {held: "held", beside: "beside"}, 0, lr=1e-3)
    held.grad_dtype = torch.float32
    for gradient in gradients:
        for parameter, slope in ((plain, 0), (held, 0), (other, 1), (beside, 1)):
            parameter.grad = gradient[slope].clone()
        theirs.step()
        ours.step()
    torch.testing.assert_close(beside, other)
    for name in ("exp_avg", "exp_avg_sq", "step"):
        torch.testing.assert_close(ours.state[held][name], theirs.state[plain][name])
    assert held.dtype == torch.bfloat16
