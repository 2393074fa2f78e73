"""Describe a base model without loading its weights, and load them.

Only safetensors are read. Weights that are missing, left over, of another shape or not finite
are refused: transformers would fill a missing layer with random numbers and go on.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorastudy.config.models import BaseWeights
from lorastudy.errors import reading_user_files
from lorastudy.model.base_folder import choose_attention, read_config
from lorastudy.model.base_refusals import (
    read_tensor,
    reading_weights,
    refuse_incomplete,
    refuse_not_finite,
    refuse_other_formats,
    try_out,
)
from lorastudy.model.base_weights import (
    PACKED,
    ask_for_bfloat16,
    packing_of,
    refuse_base_weights,
    widen_products,
)
from lorastudy.model.fast.held import count_elements
from lorastudy.model.placement import LinearModule, ModelShape
from lorastudy.model.stored_weights import make_reading_class

_TRIED_OUT_BYTES = 1_000_000_000  # of files; twice GPT-2 in float32, loaded in a second or two
CausalModel = PreTrainedModel  # the name for other parts; only this one imports transformers


@dataclass(frozen=True, slots=True)
class BaseDescription:
    """What is known about a base model before its weights are loaded."""

    folder: Path
    model_type: str
    total_parameters: int  # a tied head is counted once
    linear_parameters: int  # weights of linear modules, without embeddings and the output layer
    embedding_parameters: int  # weights of embeddings and the output layer
    vocabulary_size: int  # rows of the embedding
    max_positions: int | None  # None: no fixed limit is stated
    hidden_size: int
    n_layers: int
    n_heads: int  # 0: it has no attention
    n_key_heads: int  # of keys and values; fewer than n_heads where heads share them
    attention: str  # "sdpa", or "eager" where the family knows no other
    attention_dropout: float  # in training; above 0, torch does not use its fused kernel on a CPU
    linear_modules: tuple[LinearModule, ...]
    other_modules: tuple[LinearModule, ...] = ()  # that hold parameters, such as norms

    @property
    def shape(self) -> ModelShape:
        """What a placement has to know."""
        return ModelShape(
            self.model_type, self.linear_modules, self.n_layers, self.n_heads, self.n_key_heads
        )


def describe_base(folder: Path) -> BaseDescription:
    """Modules and counts of a base model from `config.json`; no weight but a head is read.

    Raises:
        InputError: As in `read_config`; or no model can be built from the configuration.
    """
    config = read_config(folder)
    attention = choose_attention(config)
    with reading_user_files(
        f"{folder / 'config.json'}: no model can be built from it", "Correct the file."
    ):
        network = build_without_weights(folder)
        embedding: Any = network.get_input_embeddings().weight
        max_positions = getattr(config, "max_position_embeddings", None)
        has_limit = isinstance(max_positions, int) and max_positions > 0
        n_heads = int(getattr(config, "num_attention_heads", None) or 0)
        linear, embeddings = _count_matrices(network)
        return BaseDescription(
            folder=folder,
            model_type=config.model_type,
            total_parameters=count_parameters(network),
            linear_parameters=linear,
            embedding_parameters=embeddings,
            vocabulary_size=embedding.shape[0],
            max_positions=max_positions if has_limit else None,
            hidden_size=embedding.shape[1],
            n_layers=int(config.num_hidden_layers),
            n_heads=n_heads,
            n_key_heads=_count_key_heads(config) or n_heads,
            attention=attention,
            attention_dropout=_attention_dropout(config),
            linear_modules=list_linear_modules(network),
            other_modules=_list_other_modules(network),
        )


def build_without_weights(folder: Path) -> PreTrainedModel:
    """The base model of `folder` on torch's "meta" device: modules and shapes, but no numbers."""
    config = read_config(folder)
    with torch.device("meta"):
        network: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, attn_implementation=choose_attention(config)
        )
    _untie_own_head(folder, network)
    return network


def count_parameters(network: nn.Module) -> int:
    """The numbers that the parameters of `network` stand for, those of packed weights included."""
    return sum(count_elements(parameter) for parameter in network.parameters())


def _count_matrices(network: PreTrainedModel) -> tuple[int, int]:
    """Weights of linear modules, and those of embeddings and the output layer, each once."""
    head = network.get_output_embeddings()
    outer = {
        id(module.weight): module.weight.numel()
        for module in network.modules()
        if isinstance(module, nn.Embedding) or module is head
    }
    linear = [m.weight for m in network.modules() if isinstance(m, (nn.Linear, Conv1D))]
    return sum(w.numel() for w in linear if id(w) not in outer), sum(outer.values())


def _untie_own_head(folder: Path, network: PreTrainedModel) -> None:
    """Give `network` a head of its own where the files hold one that differs from the embedding.

    transformers does the same when it loads them, whatever config.json says of tying.
    """
    head, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        return
    paths = {id(module): path for path, module in network.named_modules()}
    stored = [
        read_tensor(folder, f"{paths[id(module)]}.weight", network.base_model_prefix)
        for module in (head, embedding)
    ]
    if all(tensor is not None for tensor in stored) and not torch.equal(*stored):  # type: ignore[arg-type]
        head.weight = nn.Parameter(embedding.weight.detach().clone())


def _attention_dropout(config: PretrainedConfig) -> float:
    names = ("attn_pdrop", "attention_dropout")
    return max(float(getattr(config, name, None) or 0.0) for name in names)


def _count_key_heads(config: PretrainedConfig) -> int:
    """Heads of keys and values that heads of queries share; 0: each has its own."""
    # of Falcon and GPT-BigCode, whose newer form says a number instead
    if getattr(config, "multi_query", False) and not getattr(
        config, "new_decoder_architecture", False
    ):
        return 1
    named = (getattr(config, n, None) for n in ("num_key_value_heads", "num_kv_heads"))
    return int(next(filter(None, named), 0))


def list_linear_modules(network: nn.Module) -> tuple[LinearModule, ...]:
    """Every nn.Linear and Conv1D of `network` in model order, with shared weights named."""
    owners: dict[int, str] = {
        id(module.weight): path
        for path, module in network.named_modules()
        if isinstance(module, nn.Embedding)
    }
    head = getattr(network, "get_output_embeddings", lambda: None)()
    found = []
    for path, module in network.named_modules():
        if isinstance(module, Conv1D):
            n_in, n_out = module.weight.shape  # Conv1D stores (in, out)
        elif isinstance(module, nn.Linear):
            n_out, n_in = module.weight.shape
        else:
            continue
        owner = owners.get(id(module.weight))
        found.append(LinearModule(path, n_in, n_out, owner, is_output=module is head))
    return tuple(found)


def _list_other_modules(network: nn.Module) -> tuple[LinearModule, ...]:
    """Modules that are not linear and hold parameters themselves; they have no features here."""
    return tuple(
        LinearModule(path, 0, 0)
        for path, module in network.named_modules()
        if not isinstance(module, (nn.Linear, Conv1D)) and module._parameters
    )


def load_base(
    folder: Path, *, device: torch.device, base_weights: BaseWeights = "float32"
) -> PreTrainedModel:
    """The base model in evaluation mode, its weights as stored, held as `base_weights` says.

    All other parameters are float32. No more than the weights is in memory while they are read.

    Raises:
        InputError: A weight is missing, left over, mis-shaped or not finite, a file is damaged, or
            a token's prediction depends on tokens that follow it.
        ConfigError: This installation cannot hold weights in this format.
    """
    refuse_base_weights(base_weights)
    is_held = base_weights != "float32"
    network = _read_weights(
        folder,
        ask_for_bfloat16 if is_held else None,
        device_map=str(device) if base_weights in PACKED else None,
        quantization_config=packing_of(base_weights),
    )
    if is_held:
        widen_products(network)
    network.eval()
    try_out(folder, network)
    return move_model(network, device)


def check_weights(folder: Path) -> None:
    """Refuse what `load_base` refuses; no more than a part of a large model is in memory.

    A large model is read, but not tried out, since that needs all of its weights at once.

    Raises:
        InputError: As in `load_base`.
    """
    if sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= _TRIED_OUT_BYTES:
        load_base(folder, device=torch.device("cpu"))
    else:
        _read_weights(folder, None, device_map="meta")


def _read_weights(
    folder: Path, prepare: Callable[[nn.Module], None] | None, **others: Any
) -> PreTrainedModel:
    """The model of `folder`, whose files and numbers are sound; `prepare` sets types before."""
    # first without weights, since a wrong shape would be filled with random numbers
    family = type(_load_weights(folder, AutoModelForCausalLM, device_map="meta"))
    not_finite: list[str] = []
    network = _load_weights(folder, make_reading_class(family, prepare, not_finite), **others)
    network.__class__ = family
    refuse_not_finite(folder, not_finite)
    return network


def _load_weights(folder: Path, family: Any, **others: Any) -> PreTrainedModel:
    """The model of `folder`, loaded by the class `family`; `others` are for transformers."""
    config = read_config(folder)
    refuse_other_formats(folder)
    with reading_weights(folder):
        loaded: Any = family.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that the report names them; refused below
            attn_implementation=choose_attention(config),
            **others,
        )
        network, report = loaded
        assert isinstance(network, PreTrainedModel)
        refuse_incomplete(folder, network, report)
    return network


def move_model(network: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """`network` on `device`, in place."""
    nn.Module.to(network, device)
    return network


def save_model(
    network: PreTrainedModel, folder: Path, tensors: dict[str, Tensor] | None = None
) -> None:
    """Write a whole model folder, with `tensors` instead of the model's own weights."""
    network.save_pretrained(str(folder), state_dict=tensors)


def quieten_libraries() -> None:
    """Turn off the libraries' progress bars and advice; our own messages say what matters."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
