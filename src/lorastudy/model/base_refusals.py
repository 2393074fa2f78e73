"""Base models that are refused once their files are read.

The files have to hold exactly the weights that the configuration describes, and the model that they
make has to predict each token from the tokens before it. transformers itself would fill missing
layers with random numbers and ignore what is left over.
"""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from lorastudy.config.models import BaseWeights
from lorastudy.data.paths import describe_pointer
from lorastudy.errors import InputError, reading_user_files, show_names
from lorastudy.model.stored_constants import is_known_constant
from lorastudy.model.text_part import is_composite

# Of a text that is tried out; with up to 16, torch's fused attention hides a NaN.
_N_TRIED = 17
_LARGEST_ROUNDING = 1e-4  # relative; 0 in most models, and more where experts get other tokens
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARDS = "model-*-of-*.safetensors"
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf")


def reading_weights(folder: Path) -> AbstractContextManager[None]:
    """Turn an error of the libraries into an InputError that names `folder`."""
    return reading_user_files(
        f"{folder}: the weights cannot be read", "Download or copy the model again."
    )


def holds_weights(folder: Path) -> bool:
    """Whether `folder` holds weights in any format, read here or not."""
    return any(path.suffix in _WEIGHT_SUFFIXES for path in folder.iterdir())


def list_weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads weights from: one, or those that an index names."""
    is_single = (folder / _SINGLE).is_file()
    return [folder / _SINGLE] if is_single else _list_shards(folder)


def list_usual_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The file, and the files with an index, that hold a model's weights by the usual names."""
    return [folder / _SINGLE], sorted(folder.glob(_SHARDS))


def _list_shards(folder: Path) -> list[Path]:
    if not (folder / _INDEX).is_file():
        return []
    with reading_weights(folder):
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        names = sorted(set(index["weight_map"].values()))
        if any(Path(name).name != name for name in names):
            raise ValueError(f"{_INDEX} names files that are not in this folder")
        return [folder / name for name in names]


def list_unread_weights(folder: Path) -> list[str]:
    """Names of safetensors files in `folder` that are not read."""
    read = {path.name for path in list_weight_files(folder)}
    return sorted({path.name for path in folder.glob("*.safetensors")} - read)


def refuse_other_formats(folder: Path) -> None:
    """Check that the weights in `folder` are safetensors, and which of them are meant.

    Raises:
        InputError: There is no such file, or a single file beside several with an index.
    """
    if not (others := sorted(path.name for path in folder.glob("*.safetensors"))):
        raise InputError(
            f"{folder}: no .safetensors file. Other formats can run code when they are read; "
            "convert the model with save_pretrained first."
        )
    if not (read := list_weight_files(folder)):
        raise InputError(
            f"{folder} has neither {_SINGLE} nor {_INDEX}, only {show_names(others, most=3)}, "
            "which transformers does not read. Rename the file that is meant, or fetch the others."
        )
    with reading_weights(folder):
        for path in read:
            if path.is_file() and (said := describe_pointer(path)):
                raise ValueError(f"{path.name} {said}")
    single = folder / _SINGLE
    if single.is_file() and any(path.is_file() and path != single for path in _list_shards(folder)):
        raise InputError(
            f"{folder} holds {_SINGLE} and also {_INDEX} with other files, so it is not clear "
            "which weights are meant. Move one of the two away."
        )


def refuse_named_weights(folder: Path, named: object) -> None:
    """Check that `transformers_weights` of config.json names no other weights than the usual ones.

    transformers would read these in place of the usual file, without a word.

    Raises:
        InputError: It does.
    """
    if named not in (None, _SINGLE if (folder / _SINGLE).is_file() else _INDEX):
        raise InputError(
            f"{folder / 'config.json'}: transformers_weights names {named!r} as the file of the "
            f"weights, and only {_SINGLE} or {_INDEX} are read. Take the key out of config.json "
            "and give the weights that are meant one of these names."
        )


def read_tensor(folder: Path, name: str) -> Tensor | None:
    """A stored tensor by its name or by the last parts of it; None: it is not there."""
    for path in list_weight_files(folder):
        with reading_weights(folder), safe_open(path, framework="pt") as file:
            for found in file.keys():  # noqa: SIM118
                if f".{found}".endswith(f".{name}"):
                    tensor: Tensor = file.get_tensor(found)
                    return tensor
    return None


def refuse_incomplete(folder: Path, network: PreTrainedModel, report: dict[str, object]) -> None:
    """Check transformers' `report` on the weights that it loaded from `folder`.

    Raises:
        InputError: Weights are missing, left over or of another shape.
    """
    for key, what in (
        ("missing_keys", "lack"),
        ("mismatched_keys", "have another shape than config.json says for"),
        ("unexpected_keys", "hold more than config.json describes:"),
    ):
        found = report.get(key) or ()
        assert isinstance(found, (list, set, tuple))
        # a mismatch is reported as (name, stored shape, shape of the model)
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in found)
        if key == "unexpected_keys":
            # transformers itself passes over rotary tables, whatever they hold
            tables = (name for name in _stored_names(folder) if name.endswith(".inv_freq"))
            left_over = sorted({*names, *tables} - network.state_dict().keys())
            names = [name for name in left_over if not _is_constant(folder, name, network)]
        if names:
            raise InputError(
                f"{folder}: the weights {what} {show_names(names, most=3)}. "
                "These files do not belong together; download or export the model again."
            )


def _stored_names(folder: Path) -> set[str]:
    """The names of all tensors in the files; one that two files hold could have either value."""
    files: dict[str, str] = {}
    for path in list_weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if name in files:
                    raise InputError(
                        f"{folder}: both {files[name]} and {path.name} hold {name}, so it is not "
                        "clear which is meant. Download or export the model again."
                    )
                files[name] = path.name
    return set(files)


def _is_constant(folder: Path, name: str, network: PreTrainedModel) -> bool:
    stored = read_tensor(folder, name)
    return stored is not None and is_known_constant(name, stored, network)


def refuse_not_finite(folder: Path, names: list[str]) -> None:
    """Refuse a model with weights that are not finite; `names` are those of its tensors.

    Raises:
        InputError: There is such a weight.
    """
    if names:
        raise InputError(
            f"{folder}: {min(names)} holds numbers that are not finite, so every score would be "
            "NaN. The model was saved after its training had diverged, or the file is damaged."
        )


@torch.no_grad()
def try_out(folder: Path, network: Any, base_weights: BaseWeights = "float32") -> None:
    """Check with two texts that predictions are finite and independent of later tokens.

    `base_weights` is how its weights are held, which not every family can compute from.

    Raises:
        InputError: They are not, or the model cannot be run.
    """
    n_vocabulary = network.get_input_embeddings().weight.shape[0]
    limit = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    n_tokens = min(_N_TRIED, limit) if isinstance(limit, int) and limit > 1 else _N_TRIED
    ids = torch.arange(1, n_tokens + 1, device=network.device)[None] % n_vocabulary
    n_equal = n_tokens // 2  # at the beginning of both texts; all others differ
    others = ids.clone()
    others[0, n_equal:] = (ids[0, n_equal:] + 1) % n_vocabulary
    alone = "'s text part cannot be run alone" if is_composite(network.config) else " cannot be run"
    if base_weights == "float32":
        advice = "Choose another base model."
    else:
        alone += f" with base_weights: {base_weights}"
        advice = "Leave base_weights out, or choose another base model."
    with reading_user_files(f"{folder}: the model{alone}", advice):
        # logits are large beside weights in 4 bits, so few copies of them are made
        logits = network(input_ids=ids, use_cache=False).logits[0, :-1]
        largest = torch.stack(torch.aminmax(logits)).abs().max()
        kept, logits = logits[:n_equal].clone(), None
        logits = network(input_ids=others, use_cache=False).logits[0, :n_equal]
        difference = torch.stack(torch.aminmax(logits.sub_(kept))).abs().max()
    if not torch.isfinite(largest):
        raise InputError(
            f"{folder}: the model answers with numbers that are not finite, so every score would "
            "be NaN. Look at the numbers in config.json, or choose another base model."
        )
    if difference > _LARGEST_ROUNDING * largest:
        raise InputError(
            f"{folder}: a prediction of {type(network).__name__} depends on the tokens after it, "
            "so it has no perplexity as a language model. Choose a decoder-only base model."
        )
