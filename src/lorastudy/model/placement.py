"""Decide which linear modules of a base model receive an adapter.

A placement is a list of layer types (`attention`, `projection`, ...) and patterns. A pattern
starts at the root of the model, and `*` stands for one path segment. Suffixes are not matched: in
GPT-2 the paths of two different modules end with `c_proj`, so a suffix does not say which of them
is meant. This file knows only names and shapes; it imports no tensor library.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lorastudy.config.models import LAYER_TYPES
from lorastudy.errors import ConfigError
from lorastudy.model.layer_types import patterns_of


@dataclass(frozen=True, slots=True)
class LinearModule:
    """One linear map of the base model."""

    path: str  # dotted, for example "transformer.h.0.attn.c_attn"
    in_features: int
    out_features: int
    tied_to: str | None = None  # module that owns the same weight tensor


@dataclass(frozen=True, slots=True)
class ResolvedPlacement:
    """All adapted modules, in model order."""

    targets: tuple[LinearModule, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Full module paths."""
        return tuple(target.path for target in self.targets)

    def adapter_parameters(self, rank: int) -> int:
        """Parameters that LoRA adds: A is (r, in), B is (out, r) (arXiv:2106.09685, 4.1)."""
        return sum(rank * (t.in_features + t.out_features) for t in self.targets)


def resolve_placement(
    arm: str,
    placement: Sequence[str],
    modules: Iterable[LinearModule],
    *,
    model_type: str,
    allow_tied: bool,
) -> ResolvedPlacement:
    """Match layer types and patterns against `modules`.

    It is guaranteed that every pattern matches at least one module, that no module is matched by
    two entries of the placement, and that a module that shares its weight with the embedding is
    adapted only if the placement names `output` or the arm sets allow_tied.

    Raises:
        ConfigError: One of these conditions does not hold.
    """
    available = {module.path: module for module in modules}
    matched_by: dict[str, str] = {}  # module path -> entry of the placement
    for entry in placement:
        for path in _paths_of(arm, entry, available, model_type):
            if matched_by.get(path, entry) != entry:
                raise ConfigError(
                    f"placement of arm {arm!r}: {path} is matched by both {matched_by[path]!r} "
                    f"and {entry!r}. Remove one of the two."
                )
            matched_by[path] = entry
    targets = tuple(module for path, module in available.items() if path in matched_by)
    for target in targets:
        if target.tied_to and not allow_tied and matched_by[target.path] != "output":
            raise ConfigError(
                f"placement of arm {arm!r}: {target.path} shares its weight with {target.tied_to}; "
                "an adapter there changes only the output layer, not the embedding. "
                "Set allow_tied: true to study exactly that, or drop the pattern."
            )
    return ResolvedPlacement(targets)


def _paths_of(
    arm: str, entry: str, available: Mapping[str, LinearModule], model_type: str
) -> list[str]:
    paths: list[str] = []
    for pattern in _expand(arm, entry, available, model_type):
        hits = [path for path in available if _matches(pattern, path)]
        if not hits:
            meant = "" if pattern == entry else f" (layer type {entry!r})"
            raise ConfigError(
                f"placement of arm {arm!r}: pattern {pattern!r}{meant} matches no linear module. "
                f"This model has {summarise(available)}. Use one of these as the pattern."
            )
        paths += hits
    return paths


def _expand(
    arm: str, entry: str, available: Mapping[str, LinearModule], model_type: str
) -> tuple[str, ...]:
    if entry not in LAYER_TYPES:
        return (entry,)
    patterns = patterns_of(model_type, entry)
    if patterns is None:
        raise ConfigError(
            f"placement of arm {arm!r}: layer type {entry!r} is not mapped for model type "
            f"{model_type!r}. Use patterns instead; this model has {summarise(available)}."
        )
    return patterns


def _matches(pattern: str, path: str) -> bool:
    want, have = pattern.split("."), path.split(".")
    return len(want) == len(have) and all(w in ("*", h) for w, h in zip(want, have, strict=True))


def summarise(paths: Iterable[str]) -> str:
    """Paths with the layer numbers of each kind combined: `transformer.h.*.attn.c_attn (12)`."""
    counts: dict[str, int] = {}
    for path in paths:
        folded = ".".join("*" if segment.isdigit() else segment for segment in path.split("."))
        counts[folded] = counts.get(folded, 0) + 1
    return ", ".join(f"{folded} ({n})" for folded, n in counts.items())
