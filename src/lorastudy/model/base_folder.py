"""Find the folder of a base model or tokenizer, and read its `config.json`.

A folder is looked for as `MIRROR/<id>`, then in the hub's cache, then on the hub. What is not a
decoder-only language model, alone or as the text part of a composite model, is refused here, before
any weight is read.
"""

import hashlib
import importlib.resources
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
)

from lorastudy.config.models import BaseModelRef
from lorastudy.data.paths import local_path
from lorastudy.errors import InputError, reading_user_files
from lorastudy.model.adapter_config import find_numbers, is_finite
from lorastudy.model.adapter_files import find_adapter_file
from lorastudy.model.base_refusals import (
    list_usual_files,
    list_weight_files,
    refuse_named_weights,
)
from lorastudy.model.text_part import is_composite
from lorastudy.store.hashes import hash_file

# what a tokenizer may consist of, its chat templates included
_TOKENIZER_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.bpe", "*.vocab"]
SNAPSHOTS = "snapshots"  # the folder of the hub's cache that holds a model's commits
_HUB_FILES = ["*.safetensors", *_TOKENIZER_FILES]
# No model has more. Libraries loop over such numbers, or make tensors of that length, so reading a
# larger one would seem to hang, or would take all memory.
_MOST_LAYERS = 1_000
_MOST_LABELS = 100_000
_LARGEST_INTEGER = 1 << 24
_MAY_BE_LARGER = ("length", "window", "theta", "seed")  # in names of keys
_MAY_BE_INFINITE = "time_step_limit"  # of Mamba 2: a range without an end


def find_base_folder(
    reference: BaseModelRef, *, mirror: Path | None, offline: bool, base: Path
) -> Path:
    """The local folder of a base model, downloaded if it has to be.

    Args:
        reference: What the study file says.
        mirror: Folder laid out like the hub, searched first.
        offline: Never ask the hub.
        base: Folder from which relative paths start.

    Raises:
        InputError: It was not found, or is not a model folder.
    """
    if reference.builtin is not None:
        folder = Path(str(importlib.resources.files("lorastudy") / reference.builtin / "base"))
    elif reference.path is not None:
        folder = local_path(reference.path, base, key="base_model.path")
    else:
        folder = _hub_folder(str(reference.id), reference.revision, mirror, offline)
    with reading_user_files(f"base_model: {folder} cannot be read", "Change its permissions."):
        is_model = (folder / "config.json").is_file()
    if not is_model:
        raise InputError(
            f"base_model: {folder} has no config.json, so it is not a model folder. "
            "Give the folder that save_pretrained wrote, or a hub id."
        )
    return folder


def find_tokenizer_folder(
    reference: BaseModelRef, *, mirror: Path | None, offline: bool, base: Path
) -> Path:
    """The local folder of a tokenizer; for a model's folder, weights are not downloaded.

    Raises:
        InputError: It was not found.
    """
    if reference.id is not None:
        return _hub_folder(reference.id, reference.revision, mirror, offline, _TOKENIZER_FILES)
    if reference.path is None:
        return find_base_folder(reference, mirror=mirror, offline=offline, base=base)
    folder = local_path(reference.path, base, key="tokenizer")
    if not folder.is_dir():
        raise InputError(f"tokenizer: {folder} is not a folder. Give one with tokenizer.json.")
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
    except Exception as error:  # of the hub's client and of what it uses, of many kinds
        where = f"the mirror {mirror}, " if mirror else ""
        has_owner = "/" in identifier
        raise InputError(
            f"base_model: {identifier} (revision {revision}) is not in {where}the local cache"
            f"{'' if offline else ' or on the hub'} ({type(error).__name__}). "
            f"Check the id{'' if has_owner else ', which has an owner as in openai-community/gpt2'}"
            f"{', run once without --offline' if offline else ''}, or give a folder: "
            "base_model: {path: ...}."
        ) from error


def digest_base(folder: Path) -> str:
    """SHA-256 over names and contents of config and weights: the identity of a base model.

    Where only some of the files are read, and not those of the usual names, it also covers which
    they are.
    """
    digest, weights = hashlib.sha256(), sorted(folder.glob("*.safetensors"))
    with reading_user_files(f"{folder} cannot be read", "Check its files and their permissions."):
        for path in [folder / "config.json", *weights]:
            digest.update(path.name.encode())
            digest.update(bytes.fromhex(hash_file(path)))
    if (read := list_weight_files(folder)) not in (weights, *list_usual_files(folder)):
        digest.update(json.dumps([path.name for path in read]).encode())
    return digest.hexdigest()


def copy_processors(folder: Path, to: Path) -> None:
    """Copy the settings of images and sound that a composite model has beside its tokenizer."""
    for path in folder.glob("*processor_config.json"):
        shutil.copyfile(path, to / path.name)


def read_config(folder: Path) -> PretrainedConfig:
    """The model configuration, refused unless it is that of a decoder-only language model.

    It may have other parts beside the text part (`is_composite`).

    Raises:
        InputError: Unreadable, remote code, quantised, encoder-only or encoder-decoder; or the
            folder holds an adapter as well, which transformers would load unasked.
    """
    if adapter := find_adapter_file(folder):
        raise InputError(
            f"{adapter} lies in the folder of a base model, so it is not clear whether the base "
            "model is meant with or without this adapter. Move the adapter to a folder of its own; "
            "evaluate takes it with --adapter."
        )
    with reading_user_files(
        f"{folder / 'config.json'}: not a causal language model that transformers knows",
        "Correct the file. Models that bring their own code are not run.",
    ):
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        _refuse_odd_numbers(folder / "config.json", raw)
        refuse_named_weights(folder, raw.get("transformers_weights"))
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        named = [str(name) for name in raw.get("architectures") or ["CausalLM"]]
        sections = (raw, *(part for part in raw.values() if isinstance(part, dict)))
        is_quantised = any(part.get("quantization_config") is not None for part in sections)
        text = config.get_text_config()
        n_layers = int(getattr(text, "num_hidden_layers", 1))
        is_causal = is_composite(config) or (
            type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and any(map(_names_decoder, named))
        )
        has_encoder = bool(config.is_encoder_decoder or text.is_encoder_decoder)
    if is_quantised:
        raise InputError(
            f"{folder}: the base model is quantised already. "
            "Give the unquantised model; base_weights of an arm says how it is held."
        )
    if not is_causal or has_encoder:
        raise InputError(
            f"{folder}: {', '.join(named)} (model type {config.model_type!r}) is not a "
            "decoder-only language model. Give one whose architecture is a ...ForCausalLM or "
            "...LMHeadModel, or a composite model whose text part is one."
        )
    if not 1 <= n_layers <= _MOST_LAYERS:
        raise InputError(
            f"{folder / 'config.json'}: {n_layers:,} layers; 1 to {_MOST_LAYERS:,} are possible. "
            "Correct the number of layers."
        )
    assert isinstance(config, PretrainedConfig)
    return config


def find_own_code(folder: Path) -> str:
    """The class in the model's own code that `config.json` names for its computation; or "".

    transformers passes over it without a word where it has a class for the type of model.
    """
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = raw.get("auto_map")
    found = named.get("AutoModelForCausalLM") if isinstance(named, dict) else None
    return found if isinstance(found, str) else ""


def _refuse_odd_numbers(path: Path, raw: object) -> None:
    for key, number in find_numbers(raw):
        is_free = number == math.inf and _MAY_BE_INFINITE in key
        if isinstance(number, float) and not is_finite(number) and not is_free:
            raise InputError(
                f"{path}: {key} is {number}, which is not a finite float32 number. Put in the "
                "number that the model was trained with."
            )
        most = _MOST_LABELS if key.endswith("num_labels") else _LARGEST_INTEGER
        is_free = any(word in key for word in _MAY_BE_LARGER)
        if isinstance(number, int) and abs(number) > most and not is_free:
            raise InputError(
                f"{path}: {key} is {str(number)[:20]}, and no model has more than {most:,} of "
                "anything that is counted there. Correct it."
            )


def _names_decoder(architecture: str) -> bool:
    return architecture.endswith(("CausalLM", "LMHeadModel", "Model"))


def choose_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of transformers for the whole model that a configuration describes."""
    mapping: Any = (
        MODEL_FOR_MULTIMODAL_LM_MAPPING if is_composite(config) else MODEL_FOR_CAUSAL_LM_MAPPING
    )
    family: type[PreTrainedModel] = mapping[type(config)]
    return family


def choose_attention(config: PretrainedConfig) -> str:
    """The attention of transformers that a family is run with: "sdpa", or else "eager"."""
    return "sdpa" if choose_class(config)._supports_sdpa else "eager"
