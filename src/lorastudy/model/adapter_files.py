"""A PEFT folder: written, checked before it is loaded, and checked for what was used of it.

PEFT does not stop if a file has tensors that the configuration does not name. It opens pickled
files, and it has adapters that change no module of the model. Here such folders are refused.
"""

import copy
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import IA3Config, PeftConfig, PeftModel
from peft.utils import set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lorastudy.config.models import BaseModelRef
from lorastudy.data.paths import refuse_pointer
from lorastudy.errors import InputError, reading_user_files, show_names
from lorastudy.model.adapter_config import (
    DAMAGED,
    list_ranks,
    read_adapter_config,
    refuse_other_kinds,
)

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_FLOATS = ("F", "BF")  # types of real numbers in safetensors begin like this
_SMALL_RANK = 1024  # some methods store fewer numbers than their rank; PEFT looks at shapes itself
_PREFIX = "base_model.model."  # of names in the file


def find_adapter_file(folder: Path) -> Path | None:
    """A file that makes transformers look for an adapter in `folder`, or None."""
    return next(iter(sorted((*folder.glob(CONFIG), *folder.glob("adapter_model*")))), None)


def name_adapters_inside(folder: Path) -> str:
    """A sentence on the adapters in folders of `folder`, where PEFT writes named ones; or ""."""
    names = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if not names:
        return ""
    return f"It holds adapters in folders of their own: {show_names(names)}. Name one."


def check_adapter_folder(folder: Path) -> None:
    """Check that `folder` has an adapter that can be scored; reads no tensor.

    Raises:
        InputError: A file is missing, damaged or pickled, or the adapter is of a kind that
            changes no module of the model.
    """
    if not (folder / CONFIG).is_file():
        inside = name_adapters_inside(folder)
        advice = inside or "Give a PEFT folder, such as a run's best/."
        raise InputError(f"{folder} has no {CONFIG}. {advice}")
    if not (folder / WEIGHTS).is_file():
        if (folder / WEIGHTS).exists():
            raise InputError(f"{folder / WEIGHTS} is not a file. {DAMAGED}")
        others = ", ".join(sorted(path.name for path in folder.glob("adapter_model*")))
        raise InputError(
            f"{folder} has no {WEIGHTS}{f', only {others}' if others else ''}. Other files are not "
            "opened, since pickled ones can run code when they are read; save the adapter again "
            "with save_pretrained."
        )
    refuse_pointer(folder / WEIGHTS)
    config = read_adapter_config(folder / CONFIG)
    refuse_other_kinds(folder / CONFIG, config)
    with (
        reading_user_files(f"{folder / WEIGHTS} cannot be read", DAMAGED),
        safe_open(folder / WEIGHTS, framework="pt") as file,
    ):
        names = file.keys()
        widest = max((max(file.get_slice(k).get_shape(), default=1) for k in names), default=0)
    for key, rank in list_ranks(config):
        if rank > max(widest, _SMALL_RANK):
            raise InputError(
                f"{folder / CONFIG}: {key} is {rank:,}, and no tensor of {WEIGHTS} is as wide. "
                f"The two files do not belong together. {DAMAGED}"
            )


def note_other_base(folder: Path, base: BaseModelRef) -> str:
    """A sentence if the adapter's configuration names another base model than `base`; or "".

    Only the last parts of names and paths are compared, since folders are moved and copied.
    """
    trained_on = read_adapter_config(folder / CONFIG).get("base_model_name_or_path")
    given = str(base.id or base.path or f"{base.builtin}/base")
    if not isinstance(trained_on, str) or not trained_on or _name(trained_on) == _name(given):
        return ""
    return (
        f"{folder / CONFIG} names {trained_on} as the base model of this adapter, and it is scored "
        f"with {given}. If these are two models, the scores say nothing about the adapter."
    )


def _name(model: str) -> str:
    """The last part of an id or a path; for a snapshot in the hub's cache, that of its id."""
    path = Path(model).absolute()
    if path.parent.name == "snapshots":
        return path.parents[1].name.rpartition("--")[2].lower()
    return path.name.lower()


def refuse_unused_tensors(adapter: PeftModel, folder: Path) -> None:
    """Check that every tensor of the adapter's file is a tensor of `adapter`.

    Raises:
        InputError: Some are not; the message names them.
    """
    stored = load_file(folder / WEIGHTS)
    # only here does PEFT report what it did not use, so the tensors are copied a second time
    report: Any = set_peft_model_state_dict(adapter, stored)
    unused = sorted(report.unexpected_keys)
    if not unused:
        return
    raise InputError(
        f"{folder}: {len(unused)} of {len(stored)} tensors in {WEIGHTS} belong to no module that "
        f"{CONFIG} adapts: {show_names(unused, most=3)}. The score would be that "
        "of a part of the adapter. Restore target_modules and the keys beside it, or give the "
        "base model that the adapter was trained on."
    )


def refuse_other_tensors(folder: Path, expected: Mapping[str, Tensor]) -> None:
    """Check that the file has the numbers and the trained biases that it should.

    PEFT looks for neither. `expected` are the tensors that it would write.

    Raises:
        InputError: Whole or complex numbers, which would be rounded, stand in place of weights; or
            biases are missing, so that those of the base model would take their place.
    """
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        kinds = {name: str(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
    for name, tensor in expected.items():
        if tensor.is_floating_point() and not kinds.get(name, _FLOATS[0]).startswith(_FLOATS):
            raise InputError(
                f"{folder / WEIGHTS}: {name} holds numbers of type {kinds[name]}, not weights. "
                "Save the adapter again in float32, bfloat16 or float16."
            )
    missing = sorted(name for name in expected if name.endswith(".bias") and name not in kinds)
    if missing:
        raise InputError(
            f"{folder}: {CONFIG} says that biases were trained, and {WEIGHTS} lacks "
            f"{show_names(missing, most=3)}. The two files do not belong together. {DAMAGED}"
        )


def find_half_of_tied(network: nn.Module, folder: Path) -> list[str]:
    """Names of weights of `network` that other modules share, if the file would change these too.

    A module of `modules_to_save` has such a name in the file as well, and a weight of its own.
    """
    owned, shared = network.state_dict(keep_vars=True), defaultdict[int, list[str]](list)
    for name, tensor in owned.items():
        shared[id(tensor)].append(name)
    half: list[str] = []
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        stored = {name.removeprefix(_PREFIX): name for name in file.keys()}  # noqa: SIM118
        for names in shared.values():
            found = [name for name in names if name in stored]
            if len(names) > 1 and found:
                values = [file.get_tensor(stored[n]) if n in stored else owned[n] for n in names]
                if not all(torch.equal(value.to(values[0]), values[0]) for value in values):
                    half += found
    return half


def refuse_half_of_tied(adapter: PeftModel, folder: Path, half: Sequence[str]) -> None:
    """Check that no shared weight was replaced under the names `half`, which were found before.

    Raises:
        InputError: One was.
    """
    replaced = [name for name in half if _PREFIX + name in adapter.state_dict()]
    if replaced:
        raise InputError(
            f"{folder / WEIGHTS} replaces {show_names(replaced)} of the base model, a weight that "
            "the embedding and the head share, with numbers for one of them. Restore "
            f"modules_to_save in {CONFIG}, which gives the module a weight of its own."
        )


def write_adapter(
    folder: Path, adapter: PeftModel, tensors: Mapping[str, Tensor], config: PeftConfig
) -> None:
    """Write a PEFT folder of `tensors`, named as in its file, with the configuration for them."""
    folder.mkdir(parents=True, exist_ok=True)
    adapter.create_or_update_model_card(str(folder))
    # tensors that are one in the model are several in the file
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    save_file(whole, folder / WEIGHTS, metadata={"format": "pt"})
    config = copy.copy(config)
    config.inference_mode = True
    # PEFT shortens long lists to endings, which other parts of a composite model may have as well
    targets = set(adapter.targeted_module_names)
    config.target_modules = targets  # type: ignore[attr-defined]
    if isinstance(config, IA3Config):
        # PEFT fills in short names, and refuses to read them beside the whole paths of targets
        network = adapter.get_base_model()
        config.feedforward_modules = [p for p in targets if network.get_submodule(p).is_feedforward]
    config.save_pretrained(str(folder))
    _sort_names(folder / CONFIG)


def _sort_names(path: Path) -> None:
    """Sort lists of module names; PEFT writes them in an order that differs between processes."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key, value in config.items():
        if key.endswith("_modules") and isinstance(value, list):
            config[key] = sorted(value)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
