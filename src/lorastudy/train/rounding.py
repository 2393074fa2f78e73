"""AdamW on weights that are held in bfloat16, rounded stochastically (arXiv:2010.06192).

A usual step is smaller than half the distance between two bfloat16 numbers, so rounding to the
nearest one would lose it. Here a new weight goes up or down with probabilities that make it right
on average. Moments and the step itself are float32, and exist for one part of a tensor at a time.

What is drawn depends on the run's seed, the name of the tensor and the number of the step alone, so
that a resumed run draws it again.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from lorastudy.seeds import derive_seed

_PART = 1 << 20  # numbers of a tensor that are widened at once
_KEPT = -(1 << 16)  # the bits of a float32 number that bfloat16 has


class RoundingAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` whose bfloat16 parameters have float32 moments, and are rounded."""

    def __init__(
        self, groups: Any, names: Mapping[nn.Parameter, str], seed: int, **settings: Any
    ) -> None:
        super().__init__(groups, fused=True, **settings)
        self._names, self._seed = names, seed

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients that parameters have."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_parameter(parameter, parameter.grad, group)

    def _step_parameter(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, dtype=torch.float32)
        name = self._names[parameter]  # type: ignore[index]
        drawn_from = derive_seed(self._seed, "rounding", int(state["step"]), name)
        generator = torch.Generator(parameter.device).manual_seed(drawn_from)
        flat = [t.view(-1) for t in (parameter, state["exp_avg"], state["exp_avg_sq"])]
        for weights, first, second, slope in zip(
            *(t.split(_PART) for t in (*flat, gradient.reshape(-1).float())), strict=True
        ):
            wide = weights.float()
            adamw(
                [wide],
                [slope],
                [first],
                [second],
                [],
                [state["step"].clone()],
                fused=True,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
            weights.copy_(wide if weights.dtype == wide.dtype else round_(wide, generator))
        state["step"] += 1


def round_(wide: Tensor, generator: torch.Generator) -> Tensor:
    """`wide`, float32, as bfloat16 numbers in its place: the nearer one is likelier, as is right.

    A number of 16 random bits is added below the bits that stay, which are cut off then.
    """
    drawn = torch.randint(
        1 << 16, wide.shape, generator=generator, dtype=torch.int32, device=wide.device
    )
    wide.view(torch.int32).add_(drawn).bitwise_and_(_KEPT)
    return wide
