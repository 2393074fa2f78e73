"""AdamW over the trained tensors, and its state as plain named tensors.

adamw-8bit is that of bitsandbytes: moments of tensors with 4,096 numbers or more are held in 8
bits, with a scale for each block of 256. The two tables that these bits point into are the same for
all tensors, and are not stored.

Weight decay applies to every trained tensor, as torch.optim.AdamW does and the published
study did; transformers' Trainer leaves out biases and normalisation weights.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lorastudy.config.models import Optimizer
from lorastudy.errors import InputError
from lorastudy.model.sharing import cut_like
from lorastudy.train.rounding import RoundingAdamW


def make_optimizer(
    parameters: Mapping[str, nn.Parameter],
    settings: Optimizer,
    factors: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101), fused or in 8 bits; the rate is set before every step.

    A parameter that is named in `factors` has this multiple of the rate. `seed` is for the rounding
    of weights in bfloat16, if some are.
    """
    factors = factors or {}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(factors.get(name, 1.0), []).append(parameter)
    members = [{"params": group, "rate_factor": factor} for factor, group in groups.items()]
    shared: dict[str, Any] = {
        "lr": 0.0,
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }
    if any(parameter.dtype == torch.bfloat16 for parameter in parameters.values()):
        names = {parameter: name for name, parameter in parameters.items()}
        return RoundingAdamW(members, names, seed, **shared)
    if settings.name == "adamw":
        return torch.optim.AdamW(members, **shared, fused=True)
    from bitsandbytes.optim import AdamW8bit

    in_8_bits: torch.optim.Optimizer = AdamW8bit(members, **shared)
    return in_8_bits


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


_TABLES = {"qmap1": "dynamic", "qmap2": "udynamic"}  # of bitsandbytes, by their keys in a state


def read_moments(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Optimizer state as `NAME.exp_avg`, `NAME.exp_avg_sq`, `NAME.step`; empty before step 1.

    In 8 bits: `NAME.state1`, `NAME.state2`, their scales `NAME.absmax1`, `NAME.absmax2`.
    """
    return {
        f"{name}.{key}": torch.as_tensor(value)
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if key not in _TABLES
    }


def restore_moments(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    moments: Mapping[str, Tensor],
) -> None:
    """Restore what `read_moments` gave.

    A parameter without a gradient so far has no moments, as where a method leaves out modules at
    random.

    Raises:
        InputError: One of a parameter's moments is missing, or belongs to no trained tensor.
    """
    is_fused = isinstance(optimizer, torch.optim.AdamW)
    updated = {name: p for name, p in parameters.items() if f"{name}.step" in moments}
    expected = {
        f"{name}.{key}"
        for name, parameter in updated.items()
        for key in (_FUSED if is_fused else _list_keys_in_8_bits(parameter))
    }
    if moments.keys() != expected:
        raise InputError(
            "the stored optimizer state does not belong to this arm. "
            "Delete the run's folder to start it again."
        )
    for name, parameter in updated.items():
        if is_fused:
            state: dict[str, Any] = {
                key: cut_like(moments[f"{name}.{key}"].clone(), parameter)
                for key in ("exp_avg", "exp_avg_sq")
            }
            state["step"] = moments[f"{name}.step"].clone().to(parameter.device)
        else:
            state = _restore_in_8_bits(optimizer, parameter, name, moments)
        optimizer.state[parameter].update(state)


_FUSED = ("exp_avg", "exp_avg_sq", "step")
_LEAST_IN_8_BITS = 4096  # numbers of a tensor, as bitsandbytes has it


def _list_keys_in_8_bits(parameter: Tensor) -> tuple[str, ...]:
    moments = ("state1", "state2", "step")
    is_small = parameter.numel() < _LEAST_IN_8_BITS
    return moments if is_small else (*moments, "absmax1", "absmax2")


def _restore_in_8_bits(
    optimizer: Any, parameter: Tensor, name: str, moments: Mapping[str, Tensor]
) -> dict[str, Any]:
    keys = _list_keys_in_8_bits(parameter)
    state: dict[str, Any] = {
        key: moments[f"{name}.{key}"].clone().to(parameter.device) for key in keys
    }
    state["step"] = int(state["step"])
    if "absmax1" in keys:
        optimizer.fill_qmap()
        tables = optimizer.name2qmap
        state |= {key: tables[table].to(parameter.device) for key, table in _TABLES.items()}
    return state
