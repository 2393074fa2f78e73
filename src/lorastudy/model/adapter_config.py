"""What adapter_config.json says, refused where PEFT would read something else or nothing of it."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from peft import PeftConfig, PromptLearningConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from lorastudy.errors import InputError, reading_user_files, show_names

DAMAGED = "Download or copy the adapter again."
# starts whose weights follow from more than the base model: random numbers, or training rows
_LOST_STARTS = ("pissa_niter", "corda", "lora_ga")
_LARGEST = float(np.finfo(np.float32).max)


def read_adapter_config(path: Path) -> dict[str, Any]:
    """The configuration as it stands in its file; every number is finite."""
    with reading_user_files(f"{path} is not a PEFT configuration", DAMAGED):
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it does not contain a JSON object")
    for key, number in find_numbers(config):
        if not is_finite(number):
            raise InputError(
                f"{path}: {key} is {str(number)[:20]}, which is not a finite float32 number. "
                "Put in the number that the adapter was trained with."
            )
    return config


def is_finite(number: float) -> bool:
    """Whether it is a number of float32, which NaN and infinity are not."""
    return abs(number) <= _LARGEST


def find_numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a JSON value with its key path."""
    if isinstance(value, float | int):
        yield key, value
    elif isinstance(value, dict | list):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from find_numbers(part, f"{key}.{name}" if key else str(name))


def list_ranks(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The ranks that a configuration states, with their keys."""
    pattern = config.get("rank_pattern")
    named = (
        {f"rank_pattern.{k}": v for k, v in pattern.items()} if isinstance(pattern, dict) else {}
    )
    for key, value in {"r": config.get("r"), **named}.items():
        if isinstance(value, int):
            yield key, value


def refuse_other_kinds(path: Path, config: dict[str, Any]) -> None:
    """Check that the installed PEFT has this kind of adapter and all of its settings.

    Raises:
        InputError: It has not, or the adapter is of a kind that cannot be scored.
    """
    kind = config.get("peft_type")
    # the names of kinds are both strings and members of an enumeration
    known = PEFT_TYPE_TO_CONFIG_MAPPING.get(kind) if isinstance(kind, str) else None  # type: ignore[call-overload]
    if known is None:
        raise InputError(
            f"{path}: peft_type {kind!r} is unknown to the installed PEFT. "
            f"It knows {', '.join(sorted(PEFT_TYPE_TO_CONFIG_MAPPING))}."
        )
    if issubclass(known, PromptLearningConfig):
        raise InputError(
            f"{path}: peft_type {kind} changes no module of the model; it puts trained "
            "vectors before the text. Such adapters are not scored or exported here. Give an "
            "adapter that changes modules, such as LORA."
        )
    _refuse_unknown_keys(path, config, known)
    _refuse_other_types(path, config, known)
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(_LOST_STARTS):
        raise InputError(
            f"{path}: init_lora_weights is {start!r}, so the adapter belongs to a base "
            "model from which weights were taken, and these cannot be found again. Save the "
            "adapter as plain LoRA: PEFT's save_pretrained does so with "
            "path_initial_model_for_weight_conversion."
        )
    if config.get("alora_invocation_tokens"):
        raise InputError(
            f"{path}: alora_invocation_tokens is set, so the adapter acts only after "
            "these tokens. Such adapters are not scored here. Give a plain LoRA adapter."
        )


def _refuse_unknown_keys(path: Path, config: dict[str, Any], known: type[PeftConfig]) -> None:
    """Check that no setting is left out; PEFT passes over those of later versions."""
    fields = {field.name for field in dataclasses.fields(known)} | {"auto_mapping"}
    if found := sorted(key for key, value in config.items() if value and key not in fields):
        raise InputError(
            f"{path}: the installed PEFT does not know {show_names(found, most=3)}, and would read "
            "the adapter without it. Install the version of PEFT that wrote the adapter, or remove "
            "the key if it changes nothing of what the adapter computes."
        )


def _refuse_other_types(path: Path, config: dict[str, Any], known: type[PeftConfig]) -> None:
    """Check numbers and booleans, since Python takes "no" for true, and true for 1."""
    for key, expected in get_type_hints(known).items():
        value, is_plain = config.get(key), expected in {bool, int, float}
        if is_plain and value is not None and isinstance(value, bool) != (expected is bool):
            raise InputError(
                f"{path}: {key} is {value!r}, which is not "
                f"{'true or false' if expected is bool else 'a number'}. Put in the value that the "
                "adapter was trained with."
            )
