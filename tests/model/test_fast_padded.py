"""Attention as other devices than a CPU compute it: rows padded to one rectangle."""

import pytest
import torch
from torch import Tensor, nn

from lorastudy.model.fast.attention import attend
from lorastudy.model.fast.attention_padded import attend_padded
from lorastudy.model.fast.flat_rows import Attention, FlatRows

BOUNDS = (0, 7, 8, 20)
RATE = 0.4


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    shape = (1, 2, 20, 4)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(3)
    ]


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("hides", [False, True])
def test_padded_rows_attend_as_packed_ones(window: int | None, hides: bool) -> None:
    visible = torch.rand(20, generator=torch.Generator().manual_seed(1)) > 0.3 if hides else None
    if visible is not None:  # a first token that is hidden leaves a query without any key
        visible[list(BOUNDS[:-1])] = True
    rows, given = FlatRows(BOUNDS, visible), inputs()
    packed = attend(
        nn.Identity(), *given, None, flat_rows=rows, scaling=0.7, sliding_window=window
    )[0]
    padded = attend_padded(*given, Attention(rows, 0.7, window=window))
    assert torch.allclose(padded, packed)
    direction = torch.randn(packed.shape, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(padded, given, direction),
        torch.autograd.grad(packed, given, direction),
        strict=True,
    ):
        assert torch.allclose(ours, theirs)


def test_backward_meets_the_dropout_of_forward() -> None:
    rows, (query, key, value) = FlatRows(BOUNDS), inputs()
    torch.manual_seed(0)
    attended = attend_padded(query, key, value, Attention(rows, 0.5, RATE))
    attended.sum().backward()
    assert value.grad is not None
    # the output is linear in the values, so it is their gradient times the values
    assert torch.allclose((value.grad * value).sum(), attended.sum())


def test_weights_are_dropped_at_the_rate() -> None:
    query, key = (torch.zeros(1, 50, 64, 4) for _ in range(2))
    value = torch.ones(1, 50, 64, 4)
    torch.manual_seed(0)
    attended = attend_padded(query, key, value, Attention(FlatRows((0, 64)), 0.5, RATE))
    first = attended[0, 0, :, 0]  # of the first query, which sees one key: 0 or 1 / (1 - rate)
    assert bool((first == 0).any())
    assert torch.allclose(first[first != 0], torch.tensor(1 / (1 - RATE)))
    assert float(attended.mean()) == pytest.approx(1, abs=0.03)
