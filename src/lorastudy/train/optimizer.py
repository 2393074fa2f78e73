"""AdamW over the trained tensors, and its state as plain named tensors.

Weight decay applies to every trained tensor, as torch.optim.AdamW does and the published
study did; transformers' Trainer leaves out biases and normalisation weights.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lorastudy.config.models import Optimizer
from lorastudy.errors import InputError
from lorastudy.model.sharing import cut_like


def make_optimizer(
    parameters: Mapping[str, nn.Parameter],
    settings: Optimizer,
    factors: Mapping[str, float] | None = None,
) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) in its fused form; the rate is set before every step.

    A parameter that is named in `factors` has this multiple of the rate.
    """
    factors = factors or {}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(factors.get(name, 1.0), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": members, "rate_factor": factor} for factor, members in groups.items()],
        lr=0.0,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def scale_rates(
    parameters: Mapping[str, nn.Parameter], ratio: float | None
) -> dict[str, float] | None:
    """LoRA+'s factors of the learning rate: `ratio` for B, as `create_loraplus_optimizer` of PEFT.

    That also counts vectors, such as DoRA's lengths, among B. Unlike there, weight decay is that
    of every other arm. None: all parameters have one rate.
    """
    if ratio is None:
        return None
    return {n: ratio for n, p in parameters.items() if ".lora_B." in n or p.ndim == 1}


def read_moments(
    optimizer: torch.optim.AdamW, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Optimizer state as `NAME.exp_avg`, `NAME.exp_avg_sq`, `NAME.step`; empty before step 1."""
    return {
        f"{name}.{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_moments(
    optimizer: torch.optim.AdamW,
    parameters: Mapping[str, nn.Parameter],
    moments: Mapping[str, Tensor],
) -> None:
    """Restore what `read_moments` gave.

    Raises:
        InputError: A moment is missing, or does not belong to a trained tensor.
    """
    expected = {f"{name}.{key}" for name in parameters for key in ("exp_avg", "exp_avg_sq", "step")}
    if moments and moments.keys() != expected:
        raise InputError(
            "the stored optimizer state does not belong to this arm. "
            "Delete the run's folder to start it again."
        )
    for name, parameter in parameters.items():
        state = {
            key: cut_like(moments[f"{name}.{key}"].clone(), parameter)
            for key in ("exp_avg", "exp_avg_sq")
            if moments
        }
        if state:
            step = moments[f"{name}.step"].clone().to(parameter.device)
            optimizer.state[parameter].update({**state, "step": step})
