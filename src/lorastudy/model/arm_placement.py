"""The modules that an arm adapts, and LoRA's rank and alpha in each of them.

A budget chooses the rank: the largest one with which no more parameters are trained. Placements of
different size can be compared at equal numbers of parameters in this way.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from lorastudy.config.arm_values import HashableMapping, pick_layers
from lorastudy.config.models import Arm
from lorastudy.errors import ConfigError, show_names
from lorastudy.model.base import BaseDescription
from lorastudy.model.placement import ModelShape, ResolvedPlacement, match_entry, resolve_placement

_PLACED = ("target_modules", "exclude_modules")  # refused with the reason where PEFT is known
_Value = TypeVar("_Value", int, float)


def resolve_arm(arm: Arm, base: BaseDescription) -> ResolvedPlacement:
    """The linear modules that an arm adapts; none if its method is not one of adapters.

    Raises:
        ConfigError: The placement does not fit the model; a rank or alpha is given to a module
            that is not adapted; or the budget is too small for rank 1.
    """
    if not arm.trains_adapter:
        return ResolvedPlacement(())
    shape = base.shape
    if arm.method == "peft":  # some methods adapt other modules, such as LN_TUNING
        shape = replace(shape, modules=(*shape.modules, *base.other_modules))
    placed = resolve_placement(
        arm.name,
        arm.placement,
        shape,
        allow_tied=arm.allow_tied,
        layers=pick_layers(arm.layers, base.n_layers) if arm.layers else None,
    )
    _refuse_parts(arm, placed)
    placed = replace(
        placed,
        ranks=_by_path(arm, "rank_pattern", arm.rank_pattern or {}, shape, placed),
        alphas=_by_path(arm, "alpha_pattern", arm.alpha_pattern or {}, shape, placed),
        named=_resolve_named(arm, shape, placed),
    )
    if arm.budget is None:
        return replace(placed, rank=arm.rank)
    return replace(placed, rank=_choose_rank(arm, arm.budget, placed))


def _refuse_parts(arm: Arm, placed: ResolvedPlacement) -> None:
    """Parts of a fused module are adapted only by LoRA whose B is zero outside of them."""
    if placed.parts and not (arm.has_plain_start and not arm.use_dora):
        path, parts = next(iter(placed.parts.items()))
        raise ConfigError(
            f"placement of arm {arm.name!r}: {parts[0].name} is a part of {path}, and parts of a "
            "module are adapted only by method: lora without use_dora and with its usual initial "
            "values. Use 'attention' for the whole module."
        )


def _resolve_named(
    arm: Arm, shape: ModelShape, placed: ResolvedPlacement
) -> HashableMapping[tuple[str, ...]]:
    """Keys of a method that name modules beside those of the placement, as full paths."""
    found: dict[str, tuple[str, ...]] = {}
    for key, value in (arm.peft or {}).items():
        if not key.endswith("_modules") or key in _PLACED or not isinstance(value, list):
            continue
        entries = dict.fromkeys(map(str, value), 0)
        paths = _by_path(arm, f"peft.{key}", entries, shape, placed)
        found[key] = tuple(path for path in placed.paths if path in paths)
    return HashableMapping(found)


def _by_path(
    arm: Arm,
    key: str,
    values: Mapping[str, _Value],
    shape: ModelShape,
    placed: ResolvedPlacement,
) -> HashableMapping[_Value]:
    """A mapping from layer types or patterns as one from the paths of adapted modules."""
    found: dict[str, _Value] = {}
    for entry, value in values.items():
        paths = {path for path, _ in match_entry(arm.name, entry, shape)}
        if not paths & set(placed.paths):
            raise ConfigError(
                f"arm {arm.name!r}, {key}: {entry!r} means {show_names(sorted(paths), most=2)}, "
                "where this arm has no adapter. Name a part of its placement."
            )
        found |= dict.fromkeys((path for path in placed.paths if path in paths), value)
    return HashableMapping(found)


def _choose_rank(arm: Arm, budget: int, placed: ResolvedPlacement) -> int:
    """The largest rank that trains at most `budget` parameters."""
    fixed = sum(t.out_features for t in placed.targets) if arm.use_dora else 0
    per_rank = placed.adapter_parameters(1)
    rank = (budget - fixed) // per_rank
    if rank < 1:
        raise ConfigError(
            f"arm {arm.name!r}: budget {budget:,} is less than the {fixed + per_rank:,} "
            "parameters of rank 1. Raise it, or adapt fewer modules."
        )
    return rank
