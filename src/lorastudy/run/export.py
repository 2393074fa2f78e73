"""Take a finished run's model away: a PEFT folder or a whole model, proved by reloading it.

What is written is loaded again by transformers and PEFT themselves, and its logits on fixed
tokens are compared with those of the model in memory before the folder gets its name.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lorastudy.errors import ConfigError, InputError
from lorastudy.inputs import Reader
from lorastudy.model.adapters import load_adapter, merge_adapter
from lorastudy.model.base import CausalModel, load_base, save_model
from lorastudy.store.files import publish_folder
from lorastudy.store.folders import RunFolder

CPU = torch.device("cpu")
MERGED_TOLERANCE = 1e-4  # nats of a logit: (W + BA)x is rounded otherwise than Wx + BAx


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how far its reloaded logits are from the run's own."""

    folder: Path
    largest_logit_difference: float


def export_run(folder: RunFolder, reader: Reader, to: Path, *, is_merged: bool) -> Exported:
    """Write the best epoch of a run to `to` in a form that needs nothing of this package.

    Raises:
        ConfigError: `to` exists, the run has no trained model, or full fine-tuning is merged.
        InputError: The reloaded copy computes something else; nothing is left behind.
    """
    if to.exists():
        raise ConfigError(f"--to {to} exists already. Give a new folder.")
    if not folder.best.is_dir():
        raise ConfigError(
            f"{folder.path.name} has no best/: it has not finished an epoch, or is a baseline."
        )
    is_adapter = (folder.best / "adapter_config.json").is_file()
    if is_merged and not is_adapter:
        raise ConfigError(f"{folder.path.name} is a whole model already; leave --merge out.")
    expected = _logits(_load(folder.best, reader, is_adapter=is_adapter))
    differences: list[float] = []

    def fill(partial: Path) -> None:
        if is_merged:
            network = load_base(reader.base.folder, device=CPU)
            save_model(merge_adapter(load_adapter(network, folder.best)), partial)
        else:
            shutil.copytree(folder.best, partial, dirs_exist_ok=True)
        if is_merged or not is_adapter:
            reader.tokenizer.backend.save_pretrained(partial)
        copy = _load(partial, reader, is_adapter=is_adapter and not is_merged)
        differences.append(float((_logits(copy) - expected).abs().max()))
        if differences[0] > (MERGED_TOLERANCE if is_merged else 0.0):
            raise InputError(
                f"the exported copy computes other logits (difference {differences[0]:g}). "
                "Nothing was written; please report this with the run's manifest.json."
            )

    publish_folder(to, fill)
    return Exported(to, differences[0])


def _load(folder: Path, reader: Reader, *, is_adapter: bool) -> CausalModel:
    if not is_adapter:
        return load_base(folder, device=CPU)
    return load_adapter(load_base(reader.base.folder, device=CPU), folder).network


@torch.no_grad()
def _logits(network: CausalModel) -> Tensor:
    """Logits on fixed tokens, (1, 32, V)."""
    ids = torch.arange(32)[None] % network.config.get_text_config().vocab_size
    logits: Tensor = network.eval()(input_ids=ids, use_cache=False).logits
    return logits.float()
