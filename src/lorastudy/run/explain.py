"""What training changed, and what each change is worth: the trained model without one of them.

An adapter is added into the weights first. Every method then looks alike: some weights differ
from those of the base model. A part is taken out by giving its weights their old values, and the
model is scored without it. Nothing is trained.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lorastudy.config.models import Arm
from lorastudy.config.spec import RunSpec
from lorastudy.errors import ConfigError
from lorastudy.evaluate.score import score_rows
from lorastudy.loss import LossSums
from lorastudy.model.base import CausalModel, load_base, move_model
from lorastudy.model.placement import layer_of
from lorastudy.model.scoring import Scorer, make_scorer
from lorastudy.run.inputs import Reader
from lorastudy.run.layout import choose_slice, lay_out_training
from lorastudy.run.readers import refuse_other_base
from lorastudy.run.served import load_held, load_merged
from lorastudy.store.explanations import Explanation, PartKind, PartRecord, UpdateRecord
from lorastudy.store.folders import RunFolder
from lorastudy.store.weights import refuse_changed_weights

_MOST_VALUES = 64  # singular values that are stored
_LARGEST_RANK = 2048  # above it, only the largest singular values are computed
_HELD_SHARE = 0.9  # of norm², as in arXiv:2405.09673


@dataclass(frozen=True, slots=True)
class _Change:
    """A weight that training changed."""

    path: str
    tuned: nn.Parameter
    base: Tensor

    @property
    def layer(self) -> int | None:
        return layer_of(self.path)

    @property
    def modules(self) -> str:
        """Its module, the same name in every layer."""
        segments = self.path.split(".")[:-1]
        numbers = [place for place, segment in enumerate(segments) if segment.isdecimal()]
        return ".".join(segments[numbers[0] + 1 :] if numbers else segments)


def explain_run(
    spec: RunSpec, folder: RunFolder, reader: Reader, *, n_rows: int, device: torch.device
) -> Explanation:
    """The parts of a finished run's best epoch, on at most `n_rows` validation rows.

    Two copies of the model are in memory in float32.

    Raises:
        ConfigError: The run was trained elsewhere, or PEFT cannot merge its adapter.
        InputError: The base model is not the run's, or the validation rows cannot be read.
        StorageError: `best/` is not what the run wrote.
    """
    if spec.arm.weights:
        raise ConfigError("it was trained elsewhere, and only runs of this study are explained.")
    refuse_changed_weights(folder)
    refuse_other_base(folder, reader, needs_weights=True)
    base = load_held(reader.base.folder, spec.arm)
    tuned = _load_tuned(spec.arm, folder, reader)
    changes = _find_changes(base, tuned)
    layout = lay_out_training(spec, reader)
    rows = choose_slice(layout.validation_table, n_rows)

    def score(scorer: Scorer) -> LossSums:
        tokens = layout.validation_corpus.tokens
        return score_rows(scorer, tokens, rows, layout.padding, device=device).sums

    scorer = make_scorer(move_model(tuned, device), "float32", keep_copies=False)
    whole, parts = score(scorer), []
    for kind, name, members in _list_parts(changes):
        with _without(members):
            parts.append(
                PartRecord(name=name, kind=kind, cross_entropy=score(scorer).cross_entropy)
            )
    begun = score(make_scorer(move_model(base, device), "float32"))
    return Explanation(
        run_id=spec.run_id,
        arm=spec.arm.name,
        seed=spec.seed,
        n_asked=n_rows,
        n_rows=rows.n_rows,
        n_targets=whole.n_tokens,
        cross_entropy=whole.cross_entropy,
        base_cross_entropy=begun.cross_entropy,
        parts=tuple(parts),
        updates=tuple(map(_describe, changes)),
    )


def _load_tuned(arm: Arm, folder: RunFolder, reader: Reader) -> CausalModel:
    if arm.trains_adapter:
        return load_merged(reader.base.folder, folder.best, arm)
    return load_base(folder.best, device=torch.device("cpu"))


def _find_changes(base: CausalModel, tuned: CausalModel) -> list[_Change]:
    """Weights that differ, in model order; a head that was untied has its old weight in `base`."""
    old: Mapping[str, Tensor] = base.state_dict()
    return [
        _Change(path, parameter, old[path])
        for path, parameter in tuned.named_parameters()
        if not torch.equal(parameter, old[path])
    ]


def _list_parts(changes: list[_Change]) -> Iterator[tuple[PartKind, str, list[_Change]]]:
    """The changes of each layer, then those of the same modules in all layers."""
    for layer in sorted({change.layer for change in changes if change.layer is not None}):
        yield "layer", str(layer), [change for change in changes if change.layer == layer]
    for modules in dict.fromkeys(change.modules for change in changes):
        yield "modules", modules, [change for change in changes if change.modules == modules]


@contextmanager
def _without(changes: list[_Change]) -> Iterator[None]:
    """Give weights their old values for a while."""
    kept = [change.tuned.detach().clone() for change in changes]
    with torch.no_grad():
        for change in changes:
            change.tuned.copy_(change.base)
        try:
            yield
        finally:
            for change, values in zip(changes, kept, strict=True):
                change.tuned.copy_(values)


@torch.no_grad()
def _describe(change: _Change) -> UpdateRecord:
    base = change.base.double().cpu()
    update = change.tuned.detach().double().cpu() - base
    values = _singular_values(update) if update.dim() == 2 else update.new_zeros(0)
    total = float(update.square().sum())
    held = values.square().cumsum(0)
    reached = (held >= _HELD_SHARE * total).nonzero()
    return UpdateRecord(
        path=change.path,
        layer=change.layer,
        modules=change.modules,
        norm=total**0.5,
        base_norm=float(base.norm()),
        rank=min(update.shape) if update.dim() == 2 else 0,
        rank_90=int(reached[0]) + 1 if len(reached) else None,
        singular_values=tuple(values[:_MOST_VALUES].tolist()),
    )


def _singular_values(update: Tensor) -> Tensor:
    """Largest first: all of them, or of a very large matrix those that are stored."""
    if min(update.shape) > _LARGEST_RANK:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            values: Tensor = torch.svd_lowrank(update, q=_MOST_VALUES, niter=4)[1]
            return values
    narrow = update if update.shape[0] <= update.shape[1] else update.T
    # eigenvalues of D Dᵀ, which is as small as the smaller size of D
    squares: Tensor = torch.linalg.eigvalsh(narrow @ narrow.T)
    return squares.flip(0).clamp(min=0).sqrt()
