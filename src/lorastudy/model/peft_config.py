"""The PEFT configuration of an arm, made from PEFT's own class for its method.

Keys and their types are read from that class, so a new release of PEFT brings its methods without
a change here. Where an adapter goes is always said by exact paths of modules (`placement`).
"""

import dataclasses
import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

from peft import PeftConfig, PeftType, PromptLearningConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from pydantic import (
    ConfigDict,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)

from lorastudy.config.arms import KEEPS_BASE
from lorastudy.config.mistakes import nearest
from lorastudy.config.models import Arm
from lorastudy.errors import ConfigError, first_line, show_names
from lorastudy.model import loftq
from lorastudy.model.base_weights import PACKED
from lorastudy.model.placement import ResolvedPlacement
from lorastudy.model.starts import settings_of_start

TASK = "CAUSAL_LM"
# Keys of PEFT that say what this program says by its own keys, or would change the base model.
_NOT_HERE = {
    "target_modules": "placement says which modules are adapted",
    "exclude_modules": "placement says which modules are adapted",
    "target_parameters": "placement says which modules are adapted",
    "layers_to_transform": "the arm's own key layers says which layers are adapted",
    "layers_pattern": "the arm's own key layers says which layers are adapted",
    "layer_replication": "every arm has the layers of the base model",
    "modules_to_save": "it trains copies of whole modules; use method: head or full for that",
    "fan_in_fan_out": "it follows from the module",
    "alora_invocation_tokens": "the adapter of an arm acts on every token",
    "use_qalora": "it is for GPTQ weights, which no arm has",
    "qalora_group_size": "it is for GPTQ weights, which no arm has",
}
_OF_EVERY_METHOD = {field.name for field in dataclasses.fields(PeftConfig)}


def make_peft_config(arm: Arm, placement: ResolvedPlacement, *, revision: str) -> PeftConfig:
    """The configuration with which PEFT attaches what `arm` says, at the paths of `placement`.

    Raises:
        ConfigError: PEFT has no such method or keys, or refuses their values.
    """
    is_lora = arm.method == "lora"
    kind = "LORA" if is_lora else str((arm.peft or {}).get("peft_type"))
    made_by = _find_class(arm, kind)
    keys = _lora_keys(arm, placement) if is_lora else _own_keys(arm, placement)
    # of LoRA's own keys, only this one has values that PEFT alone knows
    given = {"init_lora_weights": arm.init_lora_weights} if is_lora else keys
    _refuse_loftq(arm, keys)
    _refuse_start(arm, keys)
    mistakes = list(_find_mistakes(made_by, given, prefix="" if is_lora else "peft."))
    if mistakes or (mistakes := list(_find_unmatched(keys, placement.paths))):
        lines = "".join(f"\n  {mistake}" for mistake in mistakes)
        raise ConfigError(f"keys of arm {arm.name!r} do not fit PEFT's {kind}:{lines}")
    try:
        config: PeftConfig = made_by(
            task_type=TASK,
            target_modules=list(placement.paths),
            revision=revision,
            **settings_of_start(keys.get("init_lora_weights")) | keys,
        )
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(
            f"arm {arm.name!r}: PEFT's {kind} refuses this configuration: "
            f"{first_line(error).rstrip('.')}."
        ) from error
    return config


def _find_class(arm: Arm, kind: str) -> type[Any]:
    known = {str(name.value): made_by for name, made_by in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    made_by = known.get(kind)
    if made_by is None:
        raise ConfigError(
            f"arm {arm.name!r}, peft.peft_type: the installed PEFT has no method {kind!r}"
            f"{nearest(kind.upper(), known)}. It has {', '.join(sorted(known))}."
        )
    if why := _why_not(kind, made_by, arm.peft or {}) or _why_not_packed(arm, made_by):
        raise ConfigError(
            f"arm {arm.name!r}: PEFT's {kind} cannot be an arm, since {why}. Choose another method."
        )
    return made_by


def _why_not(kind: str, made_by: type[Any], keys: Mapping[str, Any]) -> str | None:
    """Why a method of PEFT is not one of adapters in the modules of a placement; None: it is."""
    tuner: Any = PEFT_TYPE_TO_TUNER_MAPPING[PeftType(kind)]
    if issubclass(made_by, PromptLearningConfig):
        return "it changes no module, but puts trained vectors before the text"
    if "target_modules" not in {field.name for field in dataclasses.fields(made_by)}:
        return "it does not take the modules that it changes from a placement"
    if not issubclass(tuner, BaseTuner):
        return "it does not change modules one by one, as other methods do"
    if hasattr(tuner, "update_and_allocate"):
        if not keys.get("use_asa", getattr(made_by, "use_asa", True)):  # AdaMSS at one rank
            return (
                "how much it trains depends on clusters of the base weights, unknown before a run"
            )
        return (
            "it moves its ranks between steps by averages that no file holds, so a resumed run "
            "would become another one"
        )
    if tuner.forward is not BaseTuner.forward:
        return "it computes something outside the modules of the model"
    return None


def _why_not_packed(arm: Arm, made_by: type[Any]) -> str | None:
    """Why a method cannot adapt weights that bitsandbytes packed; None: it can, or none are."""
    folder = made_by.__module__.rpartition(".")[0]
    if arm.base_weights not in PACKED or find_spec(f"{folder}.bnb"):
        return None
    return f"it has no form for base_weights: {arm.base_weights} (it can be bfloat16)"


def _refuse_loftq(arm: Arm, keys: Mapping[str, Any]) -> None:
    if keys.get("init_lora_weights") != loftq.START:
        return
    if arm.base_weights not in PACKED:
        raise ConfigError(
            f"arm {arm.name!r}, init_lora_weights: loftq starts from what packing the base weights "
            f"has lost, and base_weights: {arm.base_weights} does not pack them. "
            "Add base_weights: nf4, or leave the key out."
        )
    if "loftq_config" in keys:
        raise ConfigError(
            f"arm {arm.name!r}, loftq_config: base_weights says how the base is packed, and every "
            "further iteration would need base weights that nobody has. Leave the key out."
        )


def _refuse_start(arm: Arm, keys: Mapping[str, Any]) -> None:
    """Refuse for `method: peft` what the study file refuses for `method: lora`."""
    start = keys.get("init_lora_weights", True)
    if arm.base_weights != "float32" and start not in KEEPS_BASE:
        raise ConfigError(
            f"arm {arm.name!r}, init_lora_weights: {start} may change base weights, which are held "
            "as they are; leave it out, or base_weights."
        )


def _lora_keys(arm: Arm, placement: ResolvedPlacement) -> dict[str, Any]:
    rank = placement.rank
    assert rank is not None
    ranks, alphas = dict(placement.ranks), dict(placement.alphas)
    for path in (*placement.ranks, *placement.parts):  # "2r" follows the rank of each module
        alphas.setdefault(path, arm.alpha_at(ranks.get(path, rank)))
    for path, parts in placement.parts.items():
        # every part has `rank` rows of A and columns of B of its own, with the scale of one
        ranks[path] = ranks.get(path, rank) * len(parts)
        alphas[path] *= math.sqrt(len(parts)) if arm.use_rslora else len(parts)
    return {
        "r": rank,
        "lora_alpha": _whole(arm.alpha_at(rank)),
        "lora_dropout": arm.dropout or 0.0,
        "use_rslora": arm.use_rslora,
        "use_dora": arm.use_dora,
        "init_lora_weights": arm.init_lora_weights,
        "rank_pattern": {_as_expression(path): value for path, value in ranks.items()},
        "alpha_pattern": {_as_expression(path): _whole(value) for path, value in alphas.items()},
    }


def _own_keys(arm: Arm, placement: ResolvedPlacement) -> dict[str, Any]:
    keys = {key: value for key, value in (arm.peft or {}).items() if key != "peft_type"}
    return keys | {key: list(paths) for key, paths in placement.named.items()}


def _whole(value: float) -> float:
    """A whole number as an int, as PEFT's files have it."""
    return int(value) if value == int(value) else value


def _as_expression(path: str) -> str:
    """A path as PEFT's patterns of ranks have it, which are regular expressions."""
    return re.escape(path)


def _find_mistakes(made_by: type[Any], keys: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """One line for each key that PEFT's class does not have, or not with such a value."""
    fields = {field.name for field in dataclasses.fields(made_by)} - _OF_EVERY_METHOD
    allowed = sorted(fields - _NOT_HERE.keys())
    hints = typing.get_type_hints(made_by)
    for key, value in keys.items():
        if key in _OF_EVERY_METHOD:
            yield f"{prefix}{key}: it is set by this program; leave it out"
        elif key in _NOT_HERE:
            yield f"{prefix}{key}: {_NOT_HERE[key]}; leave it out"
        elif key not in fields:
            near = nearest(key, allowed)
            yield f"{prefix}{key}: unknown key{near}; allowed: {', '.join(allowed)}"
        elif (wrong := _find_wrong_type(hints[key], value)) is not None:
            yield f"{prefix}{key}: {value!r} is not allowed; it holds {wrong}"


def _find_unmatched(keys: Mapping[str, Any], paths: Sequence[str]) -> Iterator[str]:
    """One line for each expression for modules that means none of `paths`; PEFT ignores it."""
    for key, values in keys.items():
        for expression in values if key.endswith("_pattern") and isinstance(values, dict) else ():
            try:  # as PEFT's get_pattern_key
                is_found = any(re.match(rf"(.*\.)?({expression})$", path) for path in paths)
            except re.error as error:
                yield f"peft.{key}: {expression!r} is not a regular expression: {error}"
                continue
            if not is_found:
                yield (
                    f"peft.{key}: {expression!r} matches no adapted module; "
                    f"they are {show_names(paths, most=3)}"
                )


def _find_wrong_type(hint: Any, value: object) -> str | None:
    """What a key holds, if `value` is not that; PEFT itself looks at few types."""
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    except PydanticSchemaGenerationError:
        return None
    except PydanticUserError:  # a dataclass, which no study file can hold
        return _describe_type(hint)
    try:
        adapter.validate_python(value)
    except ValidationError:
        return None if _fits_placeholder(hint, value) else _describe_type(hint)
    return None


def _fits_placeholder(hint: Any, value: object) -> bool:
    """Whether a text has the form of a choice with a placeholder: `pissa_niter_[number of ...]`."""
    choices = [str(choice) for choice in _choices_of(hint)]
    forms = [re.sub(r"\\\[.*?\\\]", r"[0-9]+", re.escape(c)) for c in choices if "[" in c]
    return isinstance(value, str) and any(re.fullmatch(form, value) for form in forms)


def _choices_of(hint: Any) -> Iterator[object]:
    if typing.get_origin(hint) is Literal:
        yield from typing.get_args(hint)
    for part in typing.get_args(hint):
        yield from _choices_of(part) if typing.get_origin(hint) is not Literal else ()


def _describe_type(hint: Any) -> str:
    return str(hint).replace("typing.", "") if typing.get_args(hint) else str(hint.__name__)
