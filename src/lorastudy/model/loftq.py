"""LoftQ (arXiv:2310.08659): LoRA begins as the best correction of what packing a weight has lost.

    W = Q + s B A + rest    W: as stored; Q: as held, in 4 or 8 bits; s: alpha / rank

B A has the largest singular values of (W - Q) / s. The base weights stay what `base_weights` names,
so everybody who loads the base in this format can load the adapter. This is LoftQ with one
iteration, PEFT's default; PEFT has it for Linear modules, s = 1 and a GPU only.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorastudy.model.base_reading import read_weights
from lorastudy.model.fast.held import is_packed, widen
from lorastudy.model.text_part import keep_only

START = "loftq"


def attach_corrected(network: PreTrainedModel, config: LoraConfig, name: str) -> PeftModel:
    """The adapter with LoftQ's initial values in every packed module, and the usual ones elsewhere.

    The weights as stored are read once more, one at a time. The configuration of the adapter is
    that of plain LoRA, since others load it on the packed base without computing anything.

    Raises:
        ValueError: It is DoRA, whose lengths would be those of the packed weights.
    """
    if config.use_dora:
        raise ValueError("the lengths that DoRA trains would be those of the packed weights")
    plain = copy.copy(config)
    plain.init_lora_weights, plain.loftq_config = True, {}
    adapter = get_peft_model(network, plain, adapter_name=name)
    assert isinstance(adapter, PeftModel)
    adapted = [(p, m) for p, m in network.named_modules() if isinstance(m, LoraLayer)]
    for path, module in adapted:
        held: Any = module.get_base_layer().weight
        if is_packed(held):
            exact = _read_weight(Path(str(network.config.name_or_path)), path)
            _correct(module, name, exact.to(held.device) - widen(held, torch.float32))
    return adapter


@torch.no_grad()
def _correct(module: Any, name: str, lost: Tensor) -> None:
    """Set A (r, in) and B (out, r) from what the weight has lost, (out, in)."""
    u, s, vh = torch.linalg.svd(lost / module.scaling[name], full_matrices=False)
    a, b = module.lora_A[name].weight, module.lora_B[name].weight
    n = min(len(a), len(s))  # a rank may be larger than the weight has; the rest of B stays zero
    root = s[:n].sqrt()
    a[:n].copy_(root[:, None] * vh[:n])
    b[:, :n].copy_(u[:, :n] * root)


def _read_weight(folder: Path, path: str) -> Tensor:
    """The weight of one module as stored, in float32, (out, in)."""
    network = read_weights(folder, lambda whole: keep_only(whole, {whole.get_submodule(path)}))
    module = network.get_submodule(path)
    assert isinstance(module.weight, Tensor)
    return module.weight.t() if isinstance(module, Conv1D) else module.weight
