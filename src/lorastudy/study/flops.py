"""Floating-point operations of training an arm, counted from shapes.

Counted are matrix products, as in arXiv:2001.08361, section 2.1: 2 per weight and position in
forward, 2 for the gradient of the product's input, and 2 for that of its weight. Full fine-tuning
needs all three of them, 6 per weight and position. A frozen weight needs no gradient of its own: 4,
two thirds of that (J. Schulman and Thinking Machines Lab, LoRA Without Regret, 2025, on compute
efficiency). Below the lowest trained weight there is no backward pass at all: 2.

    linear module    2 · in · out · (1 + [its input needs a gradient] + [its weight is trained])
    LoRA             2 · r · (in + out) forward, as many for A and B, 2 · r · out for what is
                     between them, and 2 · r · in if the module's input needs a gradient
    attention        4 · width per pair of positions of a row in forward, 8 in backward
    output layer     as a linear module, but only at scored tokens

Pairs of positions are all T² of a row, although half of them are hidden (arXiv:2204.02311,
appendix B). Padding that is not scored, dropout, norms, activations and the optimizer are not
counted, and neither is what activation checkpointing computes again: an arm that needs it for its
memory gets as many steps as without.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn

from lorastudy.config.models import Arm
from lorastudy.data.batches import Padding
from lorastudy.data.rows import RowTable
from lorastudy.errors import ConfigError
from lorastudy.model.base import BaseDescription, build_without_weights
from lorastudy.model.placement import LinearModule, ResolvedPlacement, layer_of, match_entry
from lorastudy.model.selection import select_parameters
from lorastudy.study.kept_values import name_input

_OF_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class TrainingFlops:
    """What one row costs, forward and backward, as a function of its length."""

    per_position: int
    per_pair: int  # of positions of a row, one of which attends to the other
    per_target: int

    def of_rows(self, table: RowTable, padding: Padding) -> int:
        """The operations of training once on all rows of `table`."""
        lengths = (table.lengths - 1).astype(np.int64)  # the last token is only a target
        n_scored = int(table.n_scored.sum())
        if padding.scored_length is not None:  # the last token is read as well
            lengths = np.full(table.n_rows, padding.scored_length, dtype=np.int64)
            n_scored = table.n_rows * (padding.scored_length - 1)
        of_positions = self.per_position * int(lengths.sum())
        return of_positions + self.per_pair * int((lengths**2).sum()) + self.per_target * n_scored


def count_flops(arm: Arm, base: BaseDescription, placement: ResolvedPlacement) -> TrainingFlops:
    """The operations of training `arm`, by what they are proportional to.

    Raises:
        ConfigError: They are not counted for this model or method.
    """
    _refuse_uncounted(arm, base)
    stages = _list_stages(base)
    trained, lowest = (
        (frozenset[str](), min(stages[target.path] for target in placement.targets))
        if arm.trains_adapter
        else _find_trained(arm, base, stages)
    )
    counts = {"position": 0, "target": 0}
    for module in base.linear_modules:
        has_input_gradient = stages[module.path] > lowest
        n_products = 1 + has_input_gradient + (module.path in trained)
        unit = "target" if module.is_output else "position"
        counts[unit] += 2 * module.in_features * module.out_features * n_products
    for target in placement.targets:
        unit = "target" if target.is_output else "position"
        for rank, n_rows in _list_adapters(target, placement):
            counts[unit] += 2 * rank * (2 * (target.in_features + n_rows) + n_rows)
            counts[unit] += 2 * rank * target.in_features * (stages[target.path] > lowest)
    # what attention mixes is read by the module behind it: two products, and four in backward
    per_pair = sum(
        2 * module.in_features * (2 + 4 * (stages[module.path] > lowest))
        for module in _list_behind_attention(base)
    )
    return TrainingFlops(counts["position"], per_pair, counts["target"])


def _refuse_uncounted(arm: Arm, base: BaseDescription) -> None:
    """Check that all products of the model and the method have a formula here."""
    if arm.method == "peft" or arm.use_dora:
        what = "use_dora" if arm.use_dora else f"{(arm.peft or {}).get('peft_type')} of PEFT"
        raise ConfigError(
            f"arm {arm.name!r}: training.budget.flops cannot be counted with {what}, which "
            "computes more than products with its own weights. Give all arms a budget of tokens, "
            "steps or seconds."
        )
    network = build_without_weights(base.folder)
    config = network.config.get_text_config()
    known = {module.path for module in base.linear_modules}
    others = [
        name
        for path, module in network.named_modules()
        if path not in known and not isinstance(module, nn.Embedding)
        for name, parameter in module.named_parameters(prefix=path, recurse=False)
        if parameter.ndim > 1
    ]
    has_experts = any(getattr(config, key, None) for key in _OF_EXPERTS)
    if others or has_experts or len(_list_behind_attention(base)) != base.n_layers:
        raise ConfigError(
            f"training.budget.flops: operations of a {base.model_type} model are not counted, "
            "since it is not known to be linear modules and attention alone. Use tokens, steps or "
            "seconds."
        )


def _list_behind_attention(base: BaseDescription) -> list[LinearModule]:
    """The module of each layer that reads what attention made; none in an unknown family."""
    try:
        paths = {path for path, _ in match_entry("", "attention-projection", base.shape)}
    except ConfigError:
        return []
    return [module for module in base.linear_modules if module.path in paths]


def _list_stages(base: BaseDescription) -> dict[str, int]:
    """The place of each linear module in the order in which they are computed, by path.

    Modules that read the same tensor, such as queries, keys and values, have the same place.
    """
    inputs = list(dict.fromkeys(map(name_input, base.linear_modules)))
    return {module.path: inputs.index(name_input(module)) for module in base.linear_modules}


def _find_first_stages(stages: dict[str, int]) -> dict[int, int]:
    """The first place in each layer, by the layer's number."""
    found: dict[int, int] = {}
    for path, stage in stages.items():
        if (layer := layer_of(path)) is not None:
            found[layer] = min(stage, found.get(layer, stage))
    return found


def _find_trained(
    arm: Arm, base: BaseDescription, stages: dict[str, int]
) -> tuple[frozenset[str], float]:
    """Linear modules whose weight an arm without adapter trains, and its lowest trained place."""
    network = build_without_weights(base.folder)
    select_parameters(network, arm)
    firsts, trained, places = _find_first_stages(stages), set[str](), list[float]()
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            continue
        path, _, kind = name.rpartition(".")
        if path in stages:
            places.append(stages[path])
            trained.update([path] if kind == "weight" else [])
        else:  # of a norm before its layer; others are trained only with the first layer
            layer = layer_of(path)
            places.append((0 if layer is None else firsts[layer]) - 0.5)
    return frozenset(trained), min(places)


def _list_adapters(target: LinearModule, placement: ResolvedPlacement) -> Iterator[tuple[int, int]]:
    """The rank and the number of output rows of each adapter on a module."""
    assert placement.rank is not None
    rank = placement.ranks.get(target.path, placement.rank)
    return ((rank, n_rows) for n_rows in placement.adapted_rows(target))
