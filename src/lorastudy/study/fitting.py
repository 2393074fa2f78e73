"""Which arms fit into the memory of a device, and what to change for those that do not.

Changes are tried in the order of the harm that they do to the comparison. How many rows are
computed at once and activation checkpointing change only rounding. The 8-bit optimizer, and weights
held in 16 or 4 bits, are other settings, which a reader of the results has to know. Shorter rows
are other data, and come last.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, get_args

import torch

from lorastudy.config.arms import BaseWeights
from lorastudy.config.models import Arm, Training
from lorastudy.errors import ConfigError
from lorastudy.model.base import BaseDescription, build_without_weights
from lorastudy.model.base_weights import IN_8_BITS
from lorastudy.model.checkpointing import checkpoint_layers
from lorastudy.model.trials import refuse_held
from lorastudy.study.check import ArmCheck, StudyCheck, find_longest_row
from lorastudy.study.predicted_peak import (
    LongestRow,
    PeakPrediction,
    count_rows_at_once,
    predict_arm_peak,
)

Harm = Literal["none", "named", "other data"]
_FORMATS: tuple[BaseWeights, ...] = get_args(BaseWeights)
_OFFERED: tuple[BaseWeights, ...] = ("bfloat16", "nf4")  # instead of wider weights
_LEAST_LENGTH = 32  # shorter rows are not offered


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides about the memory of an arm, besides its method."""

    training: Training
    held: BaseWeights  # base_weights; or trained_weights where all weights are trained
    row_length: int


@dataclass(frozen=True, slots=True)
class FormatFit:
    """How an arm fits with its weights held in one format."""

    held: BaseWeights
    peak: PeakPrediction  # with the study's other settings
    fits: bool
    most_rows: int  # full rows that fit at once, at most those of a step; 0: not even one


@dataclass(frozen=True, slots=True)
class ArmFit:
    """How an arm fits into a device."""

    arm: str
    formats: tuple[FormatFit, ...]  # that the arm may have; the first is the study's
    change: Settings | None  # the least harmful that makes it fit; None: it fits, or nothing helps
    harm: Harm  # of the change


def fit_study(
    checked: StudyCheck, *, usable_bytes: int, device: torch.device
) -> tuple[ArmFit, ...]:
    """How every arm fits into `usable_bytes` of a device of this type."""
    can_checkpoint = _can_checkpoint(checked.reader.base)
    return tuple(
        _Fitting(
            arm, checked.reader.base, usable_bytes, device, can_checkpoint, _list_formats(arm)
        ).fit()
        for arm in checked.arms
    )


def _can_checkpoint(base: BaseDescription) -> bool:
    try:
        checkpoint_layers(build_without_weights(base.folder), drops_by_function=False)
    except ConfigError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Fitting:
    """One arm and one device."""

    arm: ArmCheck
    base: BaseDescription
    usable_bytes: int
    device: torch.device
    can_checkpoint: bool
    formats: tuple[BaseWeights, ...]  # that the arm may have

    @property
    def _row(self) -> LongestRow:
        return find_longest_row(self.arm.layout, self.arm.spec)

    def fit(self) -> ArmFit:
        """How the arm fits as it is, in other formats, and with the least harmful change."""
        spec = self.arm.spec
        own = Settings(spec.training, spec.arm.held_weights, self._row.length)
        others = (held for held in self.formats if held != own.held)
        found = tuple(self._fit_format(replace(own, held=held)) for held in (own.held, *others))
        change = None if found[0].fits else next(self._list_changes(own), None)
        return ArmFit(spec.arm.name, found, change, _harm_of(own, change))

    def _fit_format(self, settings: Settings) -> FormatFit:
        peak = self._predict(settings)
        rows = settings.training.rows_per_step
        most = self._most_rows(settings, at_most=rows)
        return FormatFit(settings.held, peak, peak.total <= self.usable_bytes, most)

    def _predict(self, settings: Settings) -> PeakPrediction:
        arm = self.arm.spec.arm
        arm = arm.model_copy(update={name_of_format(arm): settings.held})
        length = min(settings.row_length, self._row.length)
        return predict_arm_peak(
            arm,
            settings.training,
            self.base,
            self.arm.placement,
            self.arm.size,
            row=LongestRow(length, min(length, self._row.n_targets)),
            device=self.device,
        )

    def _most_rows(self, settings: Settings, *, at_most: int) -> int:
        """The most full rows at once that fit; 0 if one does not."""
        low, high = 0, at_most
        while low < high:
            middle = (low + high + 1) // 2
            fits = self._predict(_with_rows(settings, middle)).total <= self.usable_bytes
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def _list_changes(self, own: Settings) -> Iterator[Settings]:
        """Settings that fit, from the least harmful."""
        now, arm = count_rows_at_once(own.training, own.row_length), self.arm.spec.arm
        for length in _list_lengths(own.row_length):
            for held, optimizer, checkpoints in product(
                self._list_formats(own), self._list_optimizers(own), self._list_checkpointing(own)
            ):
                if optimizer == IN_8_BITS and arm.method == "full" and held != "float32":
                    continue  # a study file with both is refused
                optimizer_of = own.training.optimizer.model_copy(update={"name": optimizer})
                training = own.training.model_copy(
                    update={"optimizer": optimizer_of, "activation_checkpointing": checkpoints}
                )
                settings = Settings(training, held, length)
                if most := self._most_rows(settings, at_most=now):
                    yield settings if most == now else _with_rows(settings, most)

    def _list_formats(self, own: Settings) -> list[BaseWeights]:
        """The study's, and those with fewer bits."""
        narrower = _FORMATS[_FORMATS.index(own.held) + 1 :]
        return [own.held, *(f for f in _OFFERED if f in narrower and f in self.formats)]

    def _list_optimizers(self, own: Settings) -> list[str]:
        """The study's, and that in 8 bits; adapters have too few moments for it to matter."""
        name, arm = own.training.optimizer.name, self.arm.spec.arm
        has_many = self.arm.trains and not arm.trains_adapter and own.held == "float32"
        return [name, IN_8_BITS] if name != IN_8_BITS and has_many else [name]

    def _list_checkpointing(self, own: Settings) -> list[bool]:
        is_on = own.training.activation_checkpointing
        may = self.can_checkpoint and own.training.implementation != "compiled"
        return [False, True] if may and not is_on and self.arm.trains else [is_on]


def _with_rows(settings: Settings, n_rows: int) -> Settings:
    """With a token budget for `n_rows` full rows, and a micro-batch of at least as many."""
    training = settings.training
    update = {
        "token_budget": n_rows * settings.row_length,
        "micro_batch": max(n_rows, training.micro_batch),
    }
    return replace(settings, training=training.model_copy(update=update))


def _list_lengths(length: int) -> Iterator[int]:
    """The study's length of rows, its half, and so on."""
    yield length
    while (length := length // 2) >= _LEAST_LENGTH:
        yield length


def name_of_format(arm: Arm) -> str:
    """The key of the arm that says in which format its weights are held."""
    return "trained_weights" if arm.method == "full" else "base_weights"


def _list_formats(checked: ArmCheck) -> tuple[BaseWeights, ...]:
    """The formats that a study file may give to the arm."""
    arm = checked.spec.arm
    if arm.method == "full":
        return ("float32", "bfloat16")
    if arm.method == "baseline":
        return _FORMATS
    if not arm.trains_adapter:
        return ("float32",)

    def is_refused(held: BaseWeights) -> bool:
        try:
            refuse_held(arm.model_copy(update={"base_weights": held}), checked.placement)
        except ConfigError:
            return True
        return False

    return tuple(held for held in _FORMATS if not is_refused(held))


def _harm_of(own: Settings, change: Settings | None) -> Harm:
    if change is None:
        return "none"
    if change.row_length != own.row_length:
        return "other data"
    is_same = change.held == own.held
    return "none" if is_same and change.training.optimizer == own.training.optimizer else "named"


def list_overrides(fits: tuple[ArmFit, ...], checked: StudyCheck) -> dict[str, object]:
    """Keys of the study file and values with which every arm that can be made to fit does fit.

    Training is the same for all arms, so the strictest of their changes holds for all of them.
    """
    found: dict[str, object] = {}
    by_arm = {arm.spec.arm.name: arm for arm in checked.arms}
    for fit in fits:
        if fit.change is None:
            continue
        spec, training = by_arm[fit.arm].spec, fit.change.training
        if training.token_budget != spec.training.token_budget:
            budgets = [training.token_budget, found.get("training.token_budget")]
            found["training.token_budget"] = min(b for b in budgets if isinstance(b, int))
        if training.activation_checkpointing != spec.training.activation_checkpointing:
            found["training.activation_checkpointing"] = True
        if training.optimizer.name != spec.training.optimizer.name:
            found["training.optimizer.name"] = training.optimizer.name
        if fit.change.held != spec.arm.held_weights:
            found[f"arms.{fit.arm}.{name_of_format(spec.arm)}"] = fit.change.held
        if fit.change.row_length < find_longest_row(by_arm[fit.arm].layout, spec).length:
            lengths = [fit.change.row_length, found.get("data.rows.length")]
            found["data.rows.length"] = min(n for n in lengths if isinstance(n, int))
    return found
