"""Weights that another program trained: what a folder holds, and loading it.

A folder is a PEFT folder, which stands beside the base model, or the folder of a whole model, which
stands in its place. Its content is hashed, so that later changes to it are noticed.
"""

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lorastudy.config.sources import StoredWeights
from lorastudy.errors import InputError, reading_user_files
from lorastudy.model.adapter_files import (
    CONFIG,
    WEIGHTS,
    check_adapter_folder,
    find_adapter_file,
    name_adapters_inside,
)
from lorastudy.model.adapters import ArmModel, load_adapter
from lorastudy.model.base import count_parameters, load_base
from lorastudy.model.base_folder import digest_base
from lorastudy.model.base_refusals import list_weight_files, refuse_other_formats
from lorastudy.store.hashes import hash_once


def describe_weights(folder: Path) -> StoredWeights:
    """What `folder` holds, with the hash of its content.

    Raises:
        InputError: It is neither a PEFT folder nor a model folder, or files are damaged.
    """
    if find_adapter_file(folder) is not None:
        check_adapter_folder(folder)
        files = [folder / WEIGHTS]
    elif (folder / "config.json").is_file():
        refuse_other_formats(folder)
        files = list_weight_files(folder)
    else:
        raise InputError(
            f"{folder} has neither {CONFIG} nor config.json. "
            + (
                name_adapters_inside(folder)
                or "Give a PEFT folder, or the folder of a whole model."
            )
        )
    return StoredWeights(
        folder=str(folder.resolve()),
        kind="adapter" if files == [folder / WEIGHTS] else "model",
        sha256=_digest(folder),
        bytes=sum(path.stat().st_size for path in files),
    )


def _digest(folder: Path) -> str:
    """SHA-256 over names and contents of configuration and weights."""
    if not (folder / CONFIG).is_file():
        return digest_base(folder)
    digest = hashlib.sha256()
    with reading_user_files(f"{folder} cannot be read", "Check its files and their permissions."):
        for path in (folder / CONFIG, folder / WEIGHTS):
            digest.update(path.name.encode())
            digest.update(bytes.fromhex(hash_once(path)))
    return digest.hexdigest()


def load_weights(weights: StoredWeights, base: Path, device: torch.device) -> ArmModel:
    """The model with these weights, for scoring only; `base` is the folder of the base model.

    Raises:
        InputError: The folder is not what it was, or does not fit the base model.
    """
    folder = Path(weights.folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not there any more, so it cannot be scored. Restore it.")
    if _digest(folder) != weights.sha256:
        raise InputError(
            f"{folder} does not hold the weights that it held when this comparison was started. "
            "Restore them, or start another one with --out."
        )
    if weights.kind == "adapter":
        _refuse_not_finite(folder / WEIGHTS)
        model = load_adapter(load_base(base, device=device), folder)
    else:
        model = ArmModel(load_base(folder, device=device))
    model.network.requires_grad_(False)
    return model


def _refuse_not_finite(path: Path) -> None:
    """Check the numbers of an adapter, as those of a whole model are checked when it is loaded."""
    with reading_user_files(f"{path} cannot be read", "Copy the adapter again."):
        tensors = load_file(path)
    bad = [name for name, t in tensors.items() if not torch.isfinite(t.float()).all()]
    if bad:
        raise InputError(
            f"{path}: {len(bad)} of {len(tensors)} tensors hold numbers that are not finite, such "
            f"as {bad[0]}. Give an adapter of an earlier step."
        )


def count_trained(weights: StoredWeights, model: ArmModel) -> int:
    """The parameters that training could change: those in the adapter's file, or all of them."""
    if weights.kind == "model":
        return count_parameters(model.network)
    path = Path(weights.folder) / WEIGHTS
    with (
        reading_user_files(f"{path} cannot be read", "Copy the adapter again."),
        safe_open(path, framework="pt") as file,
    ):
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return sum(torch.Size(shape).numel() for shape in shapes)
