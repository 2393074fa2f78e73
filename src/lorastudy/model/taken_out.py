"""LoRA whose initial values are taken out of the base weights (PiSSA, OLoRA), stored as plain LoRA.

    W = R + s B0 A0   at the start: the residual R stays frozen, A0 and B0 are trained to A and B
    R + s B A = W + s B A - s B0 A0 = W + s [B, -B0] [A; A0]

The stored adapter has twice the rank and belongs to the original base model W, so it loads
everywhere. PEFT converts in the same way (`path_initial_model_for_weight_conversion`). A resumed
run computes R again.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor

from lorastudy.errors import ConfigError
from lorastudy.model.attach import ADAPTER_NAME, name_kind, stored_by_peft

_A, _B = ".lora_A.weight", ".lora_B.weight"


def keep_start(adapter: PeftModel, arm: str) -> dict[str, Tensor]:
    """The initial values of an adapter that was taken out of the base weights.

    Raises:
        ConfigError: It is not plain LoRA apart from its start, so it cannot be stored as such.
    """
    stored = stored_by_peft(adapter)
    config = adapter.peft_config[ADAPTER_NAME]
    if type(config) is not LoraConfig or any(not name.endswith((_A, _B)) for name in stored):
        raise ConfigError(
            f"arm {arm!r}: PEFT's {name_kind(config)} changes the base weights when it is "
            "attached, and what it trains is not plain LoRA. Its files would belong to base "
            "weights that nobody has. Choose another start or method."
        )
    return {name: tensor.detach().cpu().clone() for name, tensor in stored.items()}


def as_plain_lora(
    config: LoraConfig, tensors: Mapping[str, Tensor], start: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], LoraConfig]:
    """Tensors and configuration of the same adapter for the original base weights."""
    doubled = {
        name: torch.cat([tensor.detach().cpu(), start[name]], dim=0)
        if name.endswith(_A)
        else torch.cat([tensor.detach().cpu(), -start[name]], dim=1)
        for name, tensor in tensors.items()
    }
    plain = copy.deepcopy(config)
    plain.init_lora_weights, plain.corda_config = True, None
    plain.r = 2 * config.r
    plain.rank_pattern = {key: 2 * rank for key, rank in (config.rank_pattern or {}).items()}
    # the scale is alpha / r, or alpha / sqrt(r), and must stay
    factor: Any = math.sqrt(2) if config.use_rslora else 2
    plain.lora_alpha = factor * config.lora_alpha
    alphas = config.alpha_pattern or {}
    plain.alpha_pattern = {key: factor * alpha for key, alpha in alphas.items()}
    return doubled, plain


def first_half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was trained, of the tensors that `as_plain_lora` gave."""
    return {
        name: tensor[: len(tensor) // 2] if name.endswith(_A) else tensor[:, : tensor.shape[1] // 2]
        for name, tensor in tensors.items()
    }
