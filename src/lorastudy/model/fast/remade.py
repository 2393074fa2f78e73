"""Activations that are computed again in the backward pass instead of being kept.

A trained linear module keeps its input for the gradient of its weight. Behind GELU that input,
GPT-2's widest tensor, is made of one that backward keeps anyway, and so it is behind a layer
norm; both cost little to make again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation

_RECIPE = "make_again"  # attribute of an output
Recipe = Callable[[], Tensor]
_gelu = partial(nn.functional.gelu, approximate="tanh")


_are_kept: ContextVar[bool] = ContextVar("recipes_are_kept", default=True)


@contextmanager
def keep_no_recipes() -> Iterator[None]:
    """While the block lasts, outputs are not made again, so nothing is kept for it."""
    token = _are_kept.set(False)
    try:
        yield
    finally:
        _are_kept.reset(token)


class FusedGelu(NewGELUActivation):
    """GELU by tanh in one kernel; transformers writes it out in five."""

    def forward(self, input: Tensor) -> Tensor:
        """Equal to the written-out form but for rounding."""
        return _remember(_gelu, input)


class RemadeLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` whose output can be computed again until its weight is changed."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.LayerNorm`."""
        return _remember(super().forward, input)


def _remember(make: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    y = make(x)
    if torch.is_grad_enabled() and not torch.compiler.is_compiling() and _are_kept.get():
        setattr(y, _RECIPE, partial(make, x.detach()))
    return y


def recipe_of(x: Tensor) -> Recipe | None:
    """A function that computes `x` again from tensors that are kept; None if there is none."""
    recipe: Recipe | None = getattr(x, _RECIPE, None)
    return recipe if x._version == 0 else None  # not changed in place since
