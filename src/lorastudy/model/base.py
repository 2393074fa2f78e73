"""Find a base model, describe it from its configuration alone, and load its weights.

A folder is looked for as `MIRROR/<id>`, then in the hub's cache, then on the hub. Only
safetensors are read. Weights that are missing, left over or of another shape are refused:
transformers would fill a missing layer with random numbers and go on.
"""

import hashlib
import importlib.resources
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from lorastudy.config.models import BaseModelRef
from lorastudy.errors import InputError, first_line
from lorastudy.model.placement import LinearModule
from lorastudy.store.hashes import hash_file

CausalModel = PreTrainedModel  # what other parts call it: transformers stays in this one
_TOKENIZER_FILES = ["*.json", "*.txt", "*.model"]
_HUB_FILES = ["*.safetensors", *_TOKENIZER_FILES]


@dataclass(frozen=True, slots=True)
class BaseDescription:
    """What is known of a base model before its weights are loaded."""

    folder: Path
    model_type: str
    total_parameters: int  # a tied head is counted once
    vocabulary_size: int  # rows of the embedding
    max_positions: int | None  # None: no fixed limit is stated
    hidden_size: int
    n_layers: int
    n_heads: int
    attention_dropout: float  # in training; above 0 it keeps torch from its fused kernel on a CPU
    linear_modules: tuple[LinearModule, ...]


def find_base_folder(
    reference: BaseModelRef, *, mirror: Path | None, offline: bool, base: Path
) -> Path:
    """The local folder of a base model, downloaded if it has to be.

    Args:
        reference: What the study file says.
        mirror: Folder laid out like the hub, looked at first.
        offline: Never ask the hub.
        base: Folder that relative paths start from.

    Raises:
        InputError: It is nowhere, or is not a model folder.
    """
    if reference.builtin is not None:
        folder = Path(str(importlib.resources.files("lorastudy") / reference.builtin / "base"))
    elif reference.path is not None:
        folder = base / Path(reference.path).expanduser()
    else:
        folder = _hub_folder(str(reference.id), reference.revision, mirror, offline)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"base_model: {folder} holds no config.json, so it is not a model folder. "
            "Give the folder that save_pretrained wrote, or a hub id."
        )
    return folder


def find_tokenizer_folder(
    reference: BaseModelRef, *, mirror: Path | None, offline: bool, base: Path
) -> Path:
    """The local folder of a tokenizer; a model's folder will do, and its weights stay away.

    Raises:
        InputError: It is nowhere.
    """
    if reference.id is not None:
        return _hub_folder(reference.id, reference.revision, mirror, offline, _TOKENIZER_FILES)
    if reference.path is None:
        return find_base_folder(reference, mirror=mirror, offline=offline, base=base)
    folder = base / Path(reference.path).expanduser()
    if not folder.is_dir():
        raise InputError(f"tokenizer: {folder} is no folder. Give one with tokenizer.json.")
    return folder


def _hub_folder(
    identifier: str,
    revision: str,
    mirror: Path | None,
    offline: bool,
    files: Sequence[str] = _HUB_FILES,
) -> Path:
    if mirror is not None and (mirror / identifier).is_dir():
        return mirror / identifier
    try:
        return Path(
            snapshot_download(
                identifier,
                revision=revision,
                allow_patterns=list(files),
                local_files_only=offline,
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        where = f"the mirror {mirror}, " if mirror else ""
        raise InputError(
            f"base_model: {identifier} (revision {revision}) is not in {where}the local cache"
            f"{'' if offline else ' or on the hub'} ({type(error).__name__}). "
            "Check the id, or give a folder: base_model: {path: ...}."
        ) from error


def digest_base(folder: Path) -> str:
    """SHA-256 over names and contents of config and weights: the identity of a base model."""
    digest = hashlib.sha256()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        digest.update(path.name.encode())
        digest.update(bytes.fromhex(hash_file(path)))
    return digest.hexdigest()


def read_config(folder: Path) -> PretrainedConfig:
    """The model configuration, refused unless it is a plain decoder-only language model.

    Raises:
        InputError: Unreadable, remote code, quantised, encoder-only or encoder-decoder.
    """
    try:
        raw = json.loads((folder / "config.json").read_text())
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder / 'config.json'}: no causal language model that transformers knows "
            f"({first_line(error)}). Models that bring their own code are not run."
        ) from error
    if raw.get("quantization_config"):
        raise InputError(
            f"{folder}: the base model is quantised, which full fine-tuning cannot train. "
            "Give the unquantised model."
        )
    is_causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    named = raw.get("architectures") or ["CausalLM"]
    if not is_causal or config.is_encoder_decoder or not any(_names_decoder(n) for n in named):
        raise InputError(
            f"{folder}: {', '.join(named)} (model type {config.model_type!r}) is no decoder-only "
            "language model. Give one whose architecture is a ...ForCausalLM or ...LMHeadModel."
        )
    assert isinstance(config, PretrainedConfig)
    return config


def _names_decoder(architecture: str) -> bool:
    return architecture.endswith(("CausalLM", "LMHeadModel", "Model"))


def describe_base(folder: Path) -> BaseDescription:
    """Modules and counts of a base model from `config.json` alone; no weight is read."""
    config = read_config(folder)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
    embedding = network.get_input_embeddings().weight
    max_positions = getattr(config, "max_position_embeddings", None)
    return BaseDescription(
        folder=folder,
        model_type=config.model_type,
        total_parameters=sum(p.numel() for p in network.parameters()),
        vocabulary_size=embedding.shape[0],
        max_positions=max_positions if isinstance(max_positions, int) else None,
        hidden_size=embedding.shape[1],
        n_layers=int(config.num_hidden_layers),
        n_heads=int(config.num_attention_heads),
        attention_dropout=_attention_dropout(config),
        linear_modules=list_linear_modules(network),
    )


def _attention_dropout(config: PretrainedConfig) -> float:
    names = ("attn_pdrop", "attention_dropout")
    return max(float(getattr(config, name, None) or 0.0) for name in names)


def list_linear_modules(network: nn.Module) -> tuple[LinearModule, ...]:
    """Every nn.Linear and Conv1D of `network` in model order, with shared weights named."""
    owners: dict[int, str] = {
        id(module.weight): path
        for path, module in network.named_modules()
        if isinstance(module, nn.Embedding)
    }
    found = []
    for path, module in network.named_modules():
        if isinstance(module, Conv1D):
            n_in, n_out = module.weight.shape  # Conv1D stores (in, out)
        elif isinstance(module, nn.Linear):
            n_out, n_in = module.weight.shape
        else:
            continue
        found.append(LinearModule(path, n_in, n_out, owners.get(id(module.weight))))
    return tuple(found)


def load_base(folder: Path, *, device: torch.device) -> PreTrainedModel:
    """The base model in float32 and evaluation mode, all weights as stored.

    Raises:
        InputError: A weight is missing, left over, mis-shaped, or a file is damaged.
    """
    network = _load_weights(folder)
    return move_model(network.eval(), device)


def check_weights(folder: Path) -> None:
    """Compare names and shapes of the stored weights with the configuration; reads no tensor.

    Raises:
        InputError: As in `load_base`; damage within a tensor's bytes is not seen.
    """
    _load_weights(folder, device_map="meta")


def _load_weights(folder: Path, device_map: str | None = None) -> PreTrainedModel:
    config = read_config(folder)
    if not list(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder}: no .safetensors file. Other formats can run code when they are read; "
            "convert the model with save_pretrained first."
        )
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that the report names them; refused below
            attn_implementation="sdpa",
            device_map=device_map,
        )
    except Exception as error:  # safetensors and transformers raise many kinds for bad files
        raise InputError(
            f"{folder}: the weights cannot be read ({first_line(error)}). "
            "Download or copy the model again."
        ) from error
    network, report = loaded
    assert isinstance(network, PreTrainedModel)
    _refuse_incomplete(folder, report)
    return network


def move_model(network: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """`network` on `device`, in place."""
    nn.Module.to(network, device)
    return network


def _refuse_incomplete(folder: Path, report: dict[str, object]) -> None:
    for key, what in (
        ("missing_keys", "lack"),
        ("mismatched_keys", "have another shape than config.json says for"),
        ("unexpected_keys", "hold more than config.json describes:"),
    ):
        found = report.get(key) or ()
        assert isinstance(found, (list, set, tuple))
        # a mismatch is reported as (name, stored shape, shape of the model)
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in found)
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise InputError(
                f"{folder}: the weights {what} {', '.join(names[:3])}{more}. "
                "The folder does not belong together; download or export the model again."
            )


def save_model(
    network: PreTrainedModel, folder: Path, tensors: dict[str, Tensor] | None = None
) -> None:
    """Write a whole model folder; `tensors` in place of the model's own, under its names."""
    network.save_pretrained(str(folder), state_dict=tensors)


def quieten_libraries() -> None:
    """No progress bars and no advice from libraries; our own messages say what matters."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
