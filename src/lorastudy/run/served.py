"""A trained adapter in the forms in which it would be served, besides the one it was trained in.

An adapter that was trained on a held base fits the held numbers. They are widened, the adapter is
added in float32, and the sum is rounded to bfloat16 or packed again. Each form is written as a
model folder and loaded from it, so what is scored is what a server would load.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from lorastudy.config.models import Arm, BaseWeights
from lorastudy.errors import ConfigError
from lorastudy.model.adapters import load_adapter, merge_adapter
from lorastudy.model.base import CausalModel, load_base, move_model, save_model
from lorastudy.model.base_weights import PACKED, copy_numbers
from lorastudy.model.scoring import make_scorer
from lorastudy.model.sharing import share_scorer
from lorastudy.run.context import RunContext
from lorastudy.run.scores import ScorePlace, list_places, score_benchmarks
from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.files import read_record
from lorastudy.store.records import ServedScore

CPU = torch.device("cpu")


def list_forms(arm: Arm) -> tuple[BaseWeights, ...]:
    """The formats of the merged weights; none for a float32 base, which merges without a loss."""
    if not arm.trains_adapter or arm.base_weights == "float32":
        return ()
    return ("bfloat16", arm.base_weights) if arm.base_weights in PACKED else ("bfloat16",)


def write_merged(
    base: Path, best: Path, to: Path, arm: Arm, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write the held base of an arm with the adapter in `best`, as a model folder of `dtype`.

    The whole model is in memory in float32 meanwhile.
    """
    save_model(load_merged(base, best, arm).to(dtype), to)  # type: ignore[arg-type]


def load_held(base: Path, arm: Arm) -> CausalModel:
    """The numbers that an arm holds of its base, in float32."""
    network = load_base(base, device=CPU)
    if arm.base_weights != "float32":
        copy_numbers(load_base(base, device=CPU, base_weights=arm.base_weights), network)
    return network


def load_merged(base: Path, best: Path, arm: Arm) -> CausalModel:
    """The held base of an arm with the adapter in `best` added to it, in float32.

    Raises:
        ConfigError: PEFT cannot merge adapters of this method.
    """
    return merge_adapter(load_adapter(load_held(base, arm), best))


def score_served(context: RunContext) -> tuple[ServedScore, ...]:
    """The scores of every form; those that already have a file are not repeated.

    There are none where PEFT cannot merge adapters of the method.

    The first member of a team writes the merged weights, and all of them load and score these.
    """
    forms, team = list_forms(context.spec.arm), context.team
    places = {form: list_places(context, form) for form in forms}
    is_missing = any(not place.path.exists() for form in forms for place in places[form])
    if team.any(team.is_first and is_missing):
        base, merged = context.reader.base.folder, context.folder.path / ".merged.partial"
        try:
            is_refused = False
            if team.is_first:
                try:
                    write_merged(base, context.folder.best, merged, context.spec.arm)
                except ConfigError:  # PEFT cannot merge it, so nobody serves it merged
                    is_refused = True
            if team.any(is_refused):
                return ()
            for form in forms:
                _score_form(context, load_base(merged, device=CPU, base_weights=form), places[form])
        finally:
            if team.is_first:
                shutil.rmtree(merged, ignore_errors=True)
    return tuple(
        ServedScore(merged=form, evaluation=read_record(place.path, DocumentSums).evaluation)
        for form in forms
        for place in places[form]
    )


def _score_form(context: RunContext, network: CausalModel, places: Sequence[ScorePlace]) -> None:
    training, team = context.spec.training, context.team
    holds_parts = team.strategy == "fsdp2"
    network.requires_grad_(False)
    alone = make_scorer(
        network if holds_parts else move_model(network, context.device),
        training.precision,
        implementation=training.implementation,
        keep_copies=not holds_parts,
    )
    score_benchmarks(context, share_scorer(alone, team, context.device), places)
    team.wait()  # every member reads the files
