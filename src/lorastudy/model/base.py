"""Describe a base model without loading its weights, and load them.

Only safetensors are read. Weights that are missing, left over, of another shape or not finite
are refused: transformers would fill a missing layer with random numbers and go on.
"""

import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from lorastudy.config.models import BaseWeights
from lorastudy.errors import reading_user_files
from lorastudy.machine.environment import forbid_tf32, release_free_memory, set_up_memory
from lorastudy.model.base_folder import choose_attention, choose_class, read_config
from lorastudy.model.base_reading import check_names, read_weights
from lorastudy.model.base_refusals import read_tensor, try_out
from lorastudy.model.base_weights import (
    PACKED,
    ask_for_bfloat16,
    packing_of,
    refuse_base_weights,
    widen_products,
)
from lorastudy.model.fast.held import count_elements
from lorastudy.model.linear_modules import (
    count_matrices,
    list_linear_modules,
    list_other_modules,
)
from lorastudy.model.packing import packing_by_parts
from lorastudy.model.placement import LinearModule, ModelShape
from lorastudy.model.text_part import (
    find_body,
    is_composite,
    leave_out_other_parts,
    leave_out_text,
    path_of,
)

_TRIED_OUT_BYTES = 1_000_000_000  # of files; twice GPT-2 in float32, loaded in a second or two
CausalModel = PreTrainedModel  # the name for other parts; only this one imports transformers


@dataclass(frozen=True, slots=True)
class BaseDescription:
    """What is known about a base model before its weights are loaded."""

    folder: Path
    model_type: str
    total_parameters: int  # a tied head is counted once
    linear_parameters: int  # weights of linear modules, without embeddings and the output layer
    embedding_parameters: int  # weights of embeddings, experts and the output layer
    vocabulary_size: int  # rows of the embedding
    max_positions: int | None  # None: no fixed limit is stated
    hidden_size: int
    n_layers: int
    n_heads: int  # 0: it has no attention
    n_key_heads: int  # of keys and values; fewer than n_heads where heads share them
    attention: str  # "sdpa", or "eager" where the family knows no other
    attention_dropout: float  # in training; above 0, torch does not use its fused kernel on a CPU
    body: str  # path of the module under the output layer
    linear_modules: tuple[LinearModule, ...]
    other_modules: tuple[LinearModule, ...] = ()  # that hold parameters, such as norms
    text_part_of: str | None = None  # class of a composite model, of which the rest is not loaded

    @property
    def shape(self) -> ModelShape:
        """What a placement has to know."""
        return ModelShape(
            self.model_type,
            self.linear_modules,
            self.n_layers,
            self.n_heads,
            self.n_key_heads,
            self.body,
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
        network, text = build_without_weights(folder), config.get_text_config()
        embedding: Any = network.get_input_embeddings().weight
        max_positions = getattr(text, "max_position_embeddings", None)
        has_limit = isinstance(max_positions, int) and max_positions > 0
        n_heads = int(getattr(text, "num_attention_heads", None) or 0)
        linear, embeddings = count_matrices(network)
        return BaseDescription(
            folder=folder,
            model_type=text.model_type,
            total_parameters=count_parameters(network),
            linear_parameters=linear,
            embedding_parameters=embeddings,
            vocabulary_size=embedding.shape[0],
            max_positions=max_positions if has_limit else None,
            hidden_size=embedding.shape[1],
            n_layers=int(text.num_hidden_layers),
            n_heads=n_heads,
            n_key_heads=_count_key_heads(text) or n_heads,
            attention=attention,
            attention_dropout=_attention_dropout(text),
            body=path_of(network, find_body(network)),
            linear_modules=list_linear_modules(network),
            other_modules=list_other_modules(network),
            text_part_of=type(network).__name__ if is_composite(config) else None,
        )


def build_without_weights(folder: Path) -> PreTrainedModel:
    """The base model of `folder` on torch's "meta" device: modules and shapes, but no numbers."""
    config = read_config(folder)
    with torch.device("meta"):
        network: PreTrainedModel = choose_class(config)._from_config(
            config, attn_implementation=choose_attention(config)
        )
    leave_out_other_parts(network)
    _untie_own_head(folder, network)
    return network


def count_parameters(network: nn.Module) -> int:
    """The numbers that the parameters of `network` stand for, those of packed weights included."""
    return sum(count_elements(parameter) for parameter in network.parameters())


def _untie_own_head(folder: Path, network: PreTrainedModel) -> None:
    """Give `network` a head of its own where the files hold one that differs from the embedding.

    transformers does the same when it loads them, whatever config.json says of tying.
    """
    head, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        return
    names = [path_of(network, module).rpartition(".")[2] for module in (head, embedding)]
    stored = [read_tensor(folder, f"{name}.weight") for name in names]
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
    try:
        named = [getattr(config, n, None) for n in ("num_key_value_heads", "num_kv_heads")]
    except RuntimeError:  # layers have different numbers of them, as in Gemma 4
        return 0
    return int(next(filter(None, named), 0))


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

    def prepare(network: PreTrainedModel) -> None:
        leave_out_other_parts(network)
        if is_held:
            ask_for_bfloat16(network)

    check_names(folder)
    is_packed = base_weights in PACKED
    with packing_by_parts() if is_packed else nullcontext():
        network = read_weights(
            folder,
            prepare,
            device_map=str(device) if is_packed else None,
            quantization_config=packing_of(base_weights),
        )
    if is_packed:
        release_free_memory()
    if is_held:
        widen_products(network)
    network.eval()
    try_out(folder, network, base_weights)
    return move_model(network, device)


def check_weights(folder: Path, formats: Iterable[BaseWeights] = ()) -> None:
    """Refuse what `load_base` refuses, also with each of `formats` for `base_weights`.

    What could not be written after training is refused as well. No more than a part of a large
    model is in memory. It is read, but not tried out, since that needs all of its weights at once.

    Raises:
        InputError: As in `load_base`.
    """
    if sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= _TRIED_OUT_BYTES:
        tried = {"float32", *formats}
        if "nf4-double" in tried:  # which packs as nf4 does, and then the scales
            tried.discard("nf4")
        for base_weights in sorted(tried):
            load_base(folder, device=torch.device("cpu"), base_weights=base_weights)
    else:
        check_names(folder)
        read_weights(folder, leave_out_other_parts, device_map="meta")
    if is_composite(read_config(folder)):  # whole models are written with the other parts
        read_weights(folder, leave_out_text, device_map="meta")
    with reading_user_files(
        f"{folder / 'config.json'}: transformers would not write it beside a trained model",
        "Correct the file.",
    ):
        build_without_weights(folder).config.validate()


def move_model(network: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """`network` on `device`, in place."""
    nn.Module.to(network, device)
    return network


def save_model(
    network: PreTrainedModel, folder: Path, tensors: dict[str, Tensor] | None = None
) -> None:
    """Write a whole model folder, with `tensors` instead of the model's own weights.

    The parts of a composite model that were left out are read again from where it was loaded.
    """
    if is_composite(network.config):
        others = read_weights(Path(str(network.config.name_or_path)), leave_out_text)
        left_out = {
            name: tensor.to(network.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in others.state_dict().items()
        }
        tensors = {**left_out, **(tensors or network.state_dict())}
    network.save_pretrained(str(folder), state_dict=tensors)


def prepare_process() -> None:
    """What comes before a model computes: quiet libraries, memory that is used again, no TF32."""
    quieten_libraries()
    set_up_memory()
    forbid_tf32()


def quieten_libraries() -> None:
    """Turn off the libraries' progress bars and advice; our own messages say what matters."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
