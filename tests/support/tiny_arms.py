"""Tiny models with an arm attached, for the tests of the model part."""

from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from lorastudy.config.models import Arm
from lorastudy.model.adapters import ArmModel, attach_arm
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.placement import ResolvedPlacement
from support.bases import copy_base, description_of

CPU = torch.device("cpu")
RANK = 4
PLACEMENTS = {
    "lora-1": ("attention",),
    "lora-2": ("attention", "projection"),
    "lora-3": ("attention", "projection", "feed-forward"),
    "lora-4": ("attention", "projection", "feed-forward", "output"),
}
FULL = Arm(name="full", method="full", learning_rates=(1e-4,))
BASELINE = Arm(name="baseline", method="baseline")


def lora(name: str) -> Arm:
    return Arm(
        name=name,
        method="lora",
        placement=PLACEMENTS[name],
        rank=RANK,
        alpha=8.0,
        dropout=0.1,
        learning_rates=(1e-3,),
    )


def place(folder: Path, arm: Arm) -> ResolvedPlacement:
    return resolve_arm(arm, description_of(folder))


def attach(folder: Path, arm: Arm, *, seed: int = 0) -> ArmModel:
    return attach_arm(copy_base(folder), arm, place(folder, arm), seed=seed)


def as_if_trained(model: ArmModel) -> ArmModel:
    """Every trained tensor moved, so that an adapter does something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.trained_tensors().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    model.network.eval()
    return model


def adapted(model: ArmModel) -> tuple[str, ...]:
    return tuple(p for p, m in model.network.named_modules() if isinstance(m, LoraLayer))


@torch.no_grad()
def logits_of(network: torch.nn.Module) -> Tensor:
    ids = torch.arange(40, 80).reshape(2, 20)
    logits: Tensor = network(input_ids=ids).logits
    return logits.clone()
