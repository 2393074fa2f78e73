"""Export a finished run's model: a PEFT folder or a whole model, which is loaded again as a check.

The new folder is loaded by transformers and PEFT themselves. Its logits on fixed tokens and its
cross-entropy on validation rows are compared with those of the run's own model before the folder
gets its final name.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lorastudy.config.models import BaseWeights
from lorastudy.config.spec import RunSpec
from lorastudy.data.batches import Padding
from lorastudy.data.corpus import Corpus
from lorastudy.data.rows import RowTable
from lorastudy.errors import ConfigError, InputError
from lorastudy.evaluate.score import score_rows
from lorastudy.model.adapters import load_adapter
from lorastudy.model.base import CausalModel, load_base
from lorastudy.model.base_folder import copy_processors
from lorastudy.model.scoring import make_scorer
from lorastudy.run.inputs import Reader
from lorastudy.run.readers import refuse_other_base
from lorastudy.run.served import list_forms, write_merged
from lorastudy.store.files import publish_folder, refuse_unwritable
from lorastudy.store.folders import RunFolder
from lorastudy.store.hashes import HASHES
from lorastudy.store.weights import find_weight_changes, refuse_changed_weights

CPU = torch.device("cpu")
MergedWeights = Literal["float32", "bfloat16"]
# Of the largest logit, and nats of cross-entropy: (W + BA)x is rounded differently from Wx + BAx,
# and every weight in bfloat16 by up to 1 / 512.
MERGED_TOLERANCES: dict[MergedWeights, float] = {"float32": 1e-4, "bfloat16": 0.05}
CHECKED_ROWS = 32  # validation rows scored by both; takes seconds even for a large model


@dataclass(frozen=True, slots=True)
class Reloaded:
    """How far the reloaded copy is from the run's own model."""

    largest_logit_difference: float
    largest_logit: float  # of the run's own model, without its sign
    n_rows: int  # validation rows scored by both
    cross_entropy: float  # of the run's own model on them, nats per token
    cross_entropy_difference: float  # the copy's minus the run's


@dataclass(frozen=True, slots=True)
class Exported:
    """The folder that was written, and how it compares."""

    folder: Path
    reloaded: Reloaded
    costs: dict[str, float]  # nats per token that a form in which it would be served adds


def export_run(
    spec: RunSpec,
    folder: RunFolder,
    reader: Reader,
    to: Path,
    *,
    is_merged: bool,
    card: str,
    weights: MergedWeights = "float32",
) -> Exported:
    """Write the best epoch of a run to `to`, in a form that does not need this package.

    `card` becomes README.md; `weights` is the type of merged weights.

    Raises:
        ConfigError: `to` exists, the run has no trained model, or a full run is to be merged.
        InputError: The base model is not the run's, the validation rows cannot be read, or the
            reloaded copy computes something else; no folder is left behind.
        StorageError: `best/` is not what the run wrote.
    """
    is_adapter = check_export(folder, to, is_merged=is_merged)
    refuse_changed_weights(folder)
    refuse_other_base(folder, reader, needs_weights=is_adapter)
    held = spec.arm.base_weights
    original = _load(folder.best, reader, is_adapter=is_adapter, base_weights=held)
    found: list[Reloaded] = []
    costs: dict[str, float] = {}

    def fill(partial: Path) -> None:
        if is_merged:
            dtype = getattr(torch, weights)
            write_merged(reader.base.folder, folder.best, partial, spec.arm, dtype)
        else:
            no_hashes = shutil.ignore_patterns(HASHES)  # README.md is replaced below
            shutil.copytree(folder.best, partial, dirs_exist_ok=True, ignore=no_hashes)
        if is_merged or not is_adapter:
            reader.tokenizer.save(partial)
            copy_processors(reader.base.folder, partial)
        (partial / "README.md").write_text(card, encoding="utf-8")
        copy = _load(partial, reader, is_adapter=is_adapter and not is_merged, base_weights=held)
        found.append(_compare(original, copy, spec, reader))
        _refuse_different(found[0], MERGED_TOLERANCES[weights] if is_merged else 0.0)
        for form in list_forms(spec.arm) if is_merged else ():
            served = load_base(partial, device=CPU, base_weights=form)
            costs[form] = _cross_entropy(served, spec, reader) - found[0].cross_entropy

    publish_folder(to, fill)
    return Exported(to, found[0], costs)


def check_export(folder: RunFolder, to: Path, *, is_merged: bool) -> bool:
    """Whether the run's model is an adapter, after checking that it can be exported.

    Raises:
        ConfigError: It cannot be exported.
        StorageError: It had weights, which are missing.
    """
    if to.exists():
        raise ConfigError(f"--to {to} exists already. Give a new folder.")
    refuse_unwritable(to, is_folder=True)
    if not folder.best.is_dir():
        if find_weight_changes(folder):
            refuse_changed_weights(folder)
        raise ConfigError(
            f"{folder.path.name} has no best/: it has not finished an epoch, or is a baseline."
        )
    is_adapter = (folder.best / "adapter_config.json").is_file()
    if is_merged and not is_adapter:
        raise ConfigError(f"{folder.path.name} is already a whole model; leave out --merge.")
    return is_adapter


def _compare(original: CausalModel, copy: CausalModel, spec: RunSpec, reader: Reader) -> Reloaded:
    expected, found = (_cross_entropy(network, spec, reader) for network in (original, copy))
    logits = _logits(original)
    return Reloaded(
        largest_logit_difference=float((_logits(copy) - logits).abs().max()),
        largest_logit=float(logits.abs().max()),
        n_rows=_checked_rows(spec, reader)[1].n_rows,
        cross_entropy=expected,
        cross_entropy_difference=found - expected,
    )


def _checked_rows(spec: RunSpec, reader: Reader) -> tuple[Corpus, RowTable]:
    corpus, table = reader.training_rows(spec.data.validation_part, spec.data.rows)
    return corpus, table.select(slice(CHECKED_ROWS))


def _cross_entropy(network: CausalModel, spec: RunSpec, reader: Reader) -> float:
    corpus, rows = _checked_rows(spec, reader)
    padding, scorer = Padding(reader.special.end_id), make_scorer(network, "float32")
    return score_rows(scorer, corpus.tokens, rows, padding, device=CPU).sums.cross_entropy


def _refuse_different(found: Reloaded, tolerance: float) -> None:
    if (
        found.largest_logit_difference <= tolerance * found.largest_logit
        and abs(found.cross_entropy_difference) <= tolerance
    ):
        return
    raise InputError(
        f"the exported copy computes something else (logits differ by up to "
        f"{found.largest_logit_difference:g} of {found.largest_logit:g}, cross-entropy by "
        f"{found.cross_entropy_difference:g} nats). Nothing was written; please report this with "
        "the run's manifest.json."
    )


def _load(
    folder: Path, reader: Reader, *, is_adapter: bool, base_weights: BaseWeights
) -> CausalModel:
    if not is_adapter:
        return load_base(folder, device=CPU)
    base = load_base(reader.base.folder, device=CPU, base_weights=base_weights)
    return load_adapter(base, folder).network


@torch.no_grad()
def _logits(network: CausalModel) -> Tensor:
    """Logits on fixed tokens, (1, 32, V)."""
    ids = torch.arange(32)[None] % network.config.get_text_config().vocab_size
    logits: Tensor = network.eval()(input_ids=ids, use_cache=False).logits
    return logits.float()
