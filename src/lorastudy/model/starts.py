"""Starts of LoRA that PEFT computes from training rows: EVA (arXiv:2410.07170), CorDA (2406.05223).

Both run the base model on rows before training, and look at the inputs of the modules that are
adapted. PEFT's own functions do this; here they are given the rows. EVA keeps the rank of every
module (rho = 1), so that an arm trains where its placement says, and as much as `check` says.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import (
    EvaConfig,
    LoftQConfig,
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    initialize_lora_eva_weights,
)
from peft.tuners.lora.config import CordaConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

N_ROWS = 256  # that a start is computed from, as many as CorDA's authors take
_PART = 256  # tokens that EVA sees at once, at least
_MOST_STEPS = 1000  # of EVA, which goes over the rows until its directions stay as they are
_SETTINGS: dict[object, dict[str, Any]] = {
    "eva": {"eva_config": EvaConfig(rho=1.0)},
    "corda": {"corda_config": CordaConfig()},
    "loftq": {"loftq_config": LoftQConfig()},  # without which PEFT refuses the name
}


def settings_of_start(start: object) -> dict[str, Any]:
    """Keys of PEFT's configuration that belong to a start; none for most."""
    return _SETTINGS.get(start, {})


def needs_rows(config: PeftConfig) -> bool:
    """Whether the initial values are computed from training rows."""
    return getattr(config, "init_lora_weights", None) in {"eva", "corda"}


def attach_by_rows(
    network: PreTrainedModel, config: PeftConfig, name: str, rows: Sequence[Tensor]
) -> PeftModel:
    """The adapter with initial values from `rows` of token ids, (T,) each.

    Without rows, it begins like plain LoRA: enough where only its shapes matter.

    Raises:
        ValueError: There are fewer tokens than the rank, or EVA does not settle.
    """
    assert isinstance(config, LoraConfig)
    if config.init_lora_weights == "eva" and config.rank_pattern:
        raise ValueError("EVA would move ranks between modules; leave out rank_pattern")
    if not rows:
        plain = copy.copy(config)
        plain.init_lora_weights = True
        shaped = _attach(network, plain, name)
        plain.init_lora_weights = config.init_lora_weights
        return shaped
    run, rows = _choose_part_to_run(network, config), [row.to(network.device) for row in rows]
    if config.init_lora_weights == "corda":
        from peft.tuners.lora.corda import preprocess_corda  # needs attrs, which PEFT does not name

        preprocess_corda(network, config, run_model=lambda: _run_one_by_one(run, rows))
        return _attach(network, config, name)
    if (n_tokens := sum(map(len, rows))) < config.r:
        raise ValueError(f"{n_tokens} tokens of training rows are fewer than the rank")
    adapter = _attach(network, config, name)
    n_steps = 0

    def step(_: nn.Module, part: dict[str, Tensor]) -> None:
        nonlocal n_steps
        n_steps += 1
        if n_steps > _MOST_STEPS:
            raise ValueError(f"its directions still turn after {_MOST_STEPS} steps")
        run(**part, use_cache=False)

    initialize_lora_eva_weights(
        adapter,
        _join(rows, max(2 * config.r, _PART)),
        forward_fn=step,
        adapter_name=name,
        gather_distributed_inputs=False,  # every member of a team has the same rows
        show_progress_bar=False,
    )
    return adapter


def _attach(network: PreTrainedModel, config: PeftConfig, name: str) -> PeftModel:
    adapter = get_peft_model(network, config, adapter_name=name)
    assert isinstance(adapter, PeftModel)
    return adapter


def _choose_part_to_run(network: PreTrainedModel, config: LoraConfig) -> Callable[..., object]:
    """The model without its output layer, whose logits take much memory, unless it is adapted."""
    head = network.get_output_embeddings()
    paths = config.target_modules or ()
    is_adapted = any(network.get_submodule(path) is head for path in paths)
    whole: Callable[..., object] = network if is_adapted else network.base_model
    return whole


def _run_one_by_one(run: Callable[..., object], rows: Sequence[Tensor]) -> None:
    """One row at a time, since PEFT's CorDA takes an input as one sequence."""
    for row in rows:
        run(input_ids=row[None], use_cache=False)


def _join(rows: Sequence[Tensor], n_least: int) -> list[dict[str, Tensor]]:
    """Padded batches of `n_least` tokens or more each; the last rows may be too few for one."""
    parts: list[dict[str, Tensor]] = []
    begin = n_tokens = 0
    for end, row in enumerate(rows, start=1):
        n_tokens += len(row)
        if n_tokens >= n_least or (end == len(rows) and not parts):
            ids = nn.utils.rnn.pad_sequence(list(rows[begin:end]), batch_first=True)
            lengths = torch.tensor([len(row) for row in rows[begin:end]], device=ids.device)
            mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
            parts.append({"input_ids": ids, "attention_mask": mask.long()})
            begin, n_tokens = end, 0
    return parts
