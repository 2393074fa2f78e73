"""Decide which linear modules of a base model receive an adapter.

A placement is a list of layer types (`attention`, `projection`, ...) and patterns. A pattern
starts at the root of the model, and `*` stands for one path segment. Suffixes are not matched: in
GPT-2 the paths of two different modules end with `c_proj`, so a suffix does not say which of them
is meant. This file knows only names and shapes; it imports no tensor library.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lorastudy.config.arm_values import HashableMapping
from lorastudy.config.models import LAYER_TYPES
from lorastudy.errors import ConfigError, show_names
from lorastudy.model.layer_types import QKV, LayerPattern, patterns_of, rows_of_part

ALL_LINEAR = "all-linear"  # every linear module but the output layer, as PEFT means it
OUTPUT = "output"  # the output layer, wherever it is


@dataclass(frozen=True, slots=True)
class LinearModule:
    """One linear map of the base model; or without features, another module with parameters."""

    path: str  # dotted, for example "transformer.h.0.attn.c_attn"
    in_features: int
    out_features: int
    tied_to: str | None = None  # module that owns the same weight tensor
    is_output: bool = False  # the language-model head


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a fused module that are adapted by themselves."""

    name: str  # "query", "key" or "value"
    spans: tuple[tuple[int, int], ...]

    @property
    def n_rows(self) -> int:
        """Rows in all spans."""
        return sum(end - begin for begin, end in self.spans)


@dataclass(frozen=True, slots=True)
class ResolvedPlacement:
    """All adapted modules, in model order, and what LoRA's rank is there."""

    targets: tuple[LinearModule, ...]
    # of fused modules of which only parts are adapted, by path
    parts: HashableMapping[tuple[Part, ...]] = field(default_factory=HashableMapping)
    rank: int | None = None  # given, or chosen by a budget
    # by path, where rank_pattern and alpha_pattern say another
    ranks: HashableMapping[int] = field(default_factory=HashableMapping)
    alphas: HashableMapping[float] = field(default_factory=HashableMapping)
    # modules that keys of a method name besides, such as IA3's feedforward_modules
    named: HashableMapping[tuple[str, ...]] = field(default_factory=HashableMapping)

    @property
    def paths(self) -> tuple[str, ...]:
        """Full module paths."""
        return tuple(target.path for target in self.targets)

    def adapter_parameters(self, rank: int) -> int:
        """Parameters that LoRA trains: A is (r, in), B is (out, r) (arXiv:2106.09685, 4.1).

        Each part of a fused module has an A of its own, and a B for its rows.
        """
        return sum(
            self.ranks.get(target.path, rank) * (target.in_features + n_rows)
            for target in self.targets
            for n_rows in self.adapted_rows(target)
        )

    def adapted_rows(self, target: LinearModule) -> list[int]:
        """Output rows of each adapter on a module: of all of it, or of each part."""
        parts = self.parts.get(target.path)
        return [part.n_rows for part in parts] if parts else [target.out_features]


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a placement has to know of a base model."""

    model_type: str
    modules: tuple[LinearModule, ...]
    n_layers: int
    n_heads: int
    n_key_heads: int
    body: str = ""  # path of the module under the output layer


def resolve_placement(
    arm: str,
    placement: Sequence[str],
    shape: ModelShape,
    *,
    allow_tied: bool,
    layers: range | None = None,
) -> ResolvedPlacement:
    """Match layer types and patterns against the modules of a model, in `layers` only.

    It is guaranteed that every pattern matches at least one module, that no module is matched by
    two entries of the placement, and that a module that shares its weight with the embedding is
    adapted only if the placement names `output` or the arm sets allow_tied. Queries, keys and
    values of a fused module are different parts of it.

    Raises:
        ConfigError: One of these conditions does not hold.
    """
    matched_by: dict[str, str] = {}  # module path -> entry of the placement
    parts: dict[str, tuple[Part, ...]] = {}
    for entry in placement:
        for path, part in match_entry(arm, entry, shape, layers):
            other = matched_by.setdefault(path, entry)
            if other != entry and (part is None or path not in parts):
                raise ConfigError(
                    f"placement of arm {arm!r}: {path} is matched by both {other!r} "
                    f"and {entry!r}. Remove one of the two."
                )
            if part is not None:
                parts[path] = tuple(sorted((*parts.get(path, ()), part), key=lambda p: p.spans))
    targets = tuple(module for module in shape.modules if module.path in matched_by)
    for target in targets:
        if target.tied_to and not allow_tied and matched_by[target.path] != "output":
            raise ConfigError(
                f"placement of arm {arm!r}: {target.path} shares its weight with {target.tied_to}; "
                "an adapter there changes only the output layer, not the embedding. "
                "Set allow_tied: true to study exactly that, or drop the pattern."
            )
    return ResolvedPlacement(targets, HashableMapping(parts))


def match_entry(
    arm: str, entry: str, shape: ModelShape, layers: range | None = None
) -> Iterator[tuple[str, Part | None]]:
    """The modules that one entry of a placement means, and which part of each (None: all of it).

    Raises:
        ConfigError: A pattern matches nothing, or nothing in `layers`.
    """
    patterns = _expand(arm, entry, shape)
    hits = [(m, meant) for meant in patterns for m in shape.modules if _is_meant(meant.pattern, m)]
    if not hits:
        first = patterns[0].pattern
        why = "" if first == entry else f" (layer type {entry!r})"
        raise ConfigError(
            f"placement of arm {arm!r}: pattern {first!r}{why} matches no linear module. This "
            f"model has {_summarise_modules(shape)}. Use one of these as the pattern."
        )
    if layers is not None:
        hits = _keep_layers(arm, entry, hits, layers, shape.n_layers)
    for module, meant in hits:
        yield module.path, _cut_part(arm, meant, module, shape)


def _keep_layers(
    arm: str,
    entry: str,
    hits: list[tuple[LinearModule, LayerPattern]],
    layers: range,
    n_layers: int,
) -> list[tuple[LinearModule, LayerPattern]]:
    """The modules in `layers`; their number is the first one in a path."""
    refuse_other_layers(arm, layers, n_layers)
    numbers = {module.path: layer_of(module.path) for module, _ in hits}
    outside = [path for path, number in numbers.items() if number is None]
    if outside and entry != ALL_LINEAR:  # which is then meant within these layers
        raise ConfigError(
            f"placement of arm {arm!r}: {show_names(outside, most=3)} ({entry!r}) is in no layer. "
            "Leave out layers, or this entry."
        )
    kept = [hit for hit in hits if numbers[hit[0].path] in layers]
    if not kept:
        raise ConfigError(
            f"placement of arm {arm!r}: {entry!r} matches no module in the layers {layers.start} "
            f"to {layers.stop - 1}. Name other layers."
        )
    return kept


def refuse_other_layers(arm: str, layers: range, n_layers: int) -> None:
    """Check that a model of `n_layers` has all of `layers`.

    Raises:
        ConfigError: It does not.
    """
    if not 0 <= layers.start < layers.stop <= n_layers:
        raise ConfigError(
            f"layers of arm {arm!r}: the model has the layers 0 to {n_layers - 1}, and not all of "
            f"{layers.start} to {layers.stop - 1}. Name fewer layers."
        )


def layer_of(path: str) -> int | None:
    """The number of the layer that a module or parameter is in; None: it is in none."""
    return next((int(segment) for segment in path.split(".") if segment.isdecimal()), None)


def _cut_part(
    arm: str, meant: LayerPattern, module: LinearModule, shape: ModelShape
) -> Part | None:
    if meant.part is None:
        return None
    spans = rows_of_part(
        meant.part,
        meant.layout,
        n_rows=module.out_features,
        n_heads=shape.n_heads,
        n_key_heads=shape.n_key_heads,
    )
    if not spans:
        raise ConfigError(
            f"placement of arm {arm!r}: the {module.out_features} rows of {module.path} are not "
            f"those of {shape.n_heads} heads, so its {meant.part} rows are not known. "
            "Use 'attention'."
        )
    return Part(meant.part, spans)


def _expand(arm: str, entry: str, shape: ModelShape) -> tuple[LayerPattern, ...]:
    if entry not in LAYER_TYPES or entry in (ALL_LINEAR, OUTPUT):
        return (LayerPattern(entry),)
    patterns = patterns_of(shape.model_type, entry, shape.body)
    if patterns == ():
        raise ConfigError(
            f"placement of arm {arm!r}: model type {shape.model_type!r} has no linear modules for "
            f"layer type {entry!r}; its experts are tensors that adapters do not take. "
            "Use attention and attention-projection."
        )
    if patterns is None:
        unknown = (
            "Where one module computes queries, keys and values, it is not known which of its rows "
            "are which; a pattern adapts all of them. "
        )
        raise ConfigError(
            f"placement of arm {arm!r}: layer type {entry!r} is not mapped for model type "
            f"{shape.model_type!r}. {unknown if entry in QKV else ''}Use patterns instead; this "
            f"model has {_summarise_modules(shape)}."
        )
    return patterns


def _is_meant(pattern: str, module: LinearModule) -> bool:
    if pattern == ALL_LINEAR:
        return module.in_features > 0 and not module.is_output
    if pattern == OUTPUT:
        return module.is_output
    return _matches(pattern, module.path)


def _summarise_modules(shape: ModelShape) -> str:
    return summarise(module.path for module in shape.modules if module.in_features)


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
