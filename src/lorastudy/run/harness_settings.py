"""Settings of generation that a task of lm-evaluation-harness or a model folder may have.

Only greedy generation is supported, perhaps with a penalty for repetition. Other settings are
refused: the harness' own model would follow them.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lorastudy.errors import ConfigError

_NEW_TOKENS = 256  # as the harness generates where a task does not say
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# with other values of these, transformers does not write the most likely token each time
_NEUTRAL: dict[str, float | None] = {
    **dict.fromkeys(("encoder_repetition_penalty", "guidance_scale"), 1),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), 0),
    **dict.fromkeys(("min_length", "min_new_tokens"), 0),
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences"), 1),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")),
    **dict.fromkeys(("sequence_bias", "forced_bos_token_id", "forced_eos_token_id")),
    **dict.fromkeys(("exponential_decay_length_penalty", "penalty_alpha", "stop_strings")),
    **dict.fromkeys(("watermarking_config", "dola_layers", "max_time")),
}


def refuse_perplexity(task: str) -> ConfigError:
    """The error of a task whose answers are neither right nor wrong."""
    return ConfigError(
        f"task {task} measures a perplexity, and not right answers. Use a protocol such as "
        "lm-eval-wikitext or document on its texts."
    )


@dataclass(frozen=True, slots=True)
class Generation:
    """How a task writes its answers."""

    stops: tuple[str, ...]  # texts that end one
    n_new: int  # tokens at most
    penalty: float | None  # for tokens that occurred before; None: that of the model


def read_generation(task: str, settings: dict[str, Any], length: int) -> Generation:
    """How a task that generates wants it.

    Raises:
        ConfigError: It samples, changes greedy generation, leaves no room for a prompt within
            `length` tokens, or a setting is not of its kind.
    """
    if settings.get("do_sample") or settings.get("temperature"):
        raise ConfigError(
            f"task {task} samples its answers, and only greedy generation is supported. Choose "
            "another task, or change its generation_kwargs."
        )
    refuse_settings(f"task {task}", settings)
    if settings.get("max_length"):
        raise ConfigError(
            f"task {task} limits prompts and answers together by max_length. Give it "
            "max_gen_toks in place of it."
        )
    stops, n_new = _read_stops(task, settings), _read_length(task, settings)
    if n_new >= length:
        raise ConfigError(
            f"task {task} generates {n_new:,} tokens, and the model reads {length:,}. Lower "
            "max_gen_toks in the task's generation_kwargs."
        )
    return Generation(stops, n_new, read_penalty(f"task {task}", settings))


def _read_stops(task: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    given = settings.get("until") or []
    stops = [given] if isinstance(given, str) else given
    if not isinstance(stops, list | tuple) or not all(isinstance(stop, str) for stop in stops):
        raise ConfigError(
            f"task {task} has until: {given}; it has to be a text or a list of texts."
        )
    return tuple(stop for stop in stops if stop)


def _read_length(task: str, settings: Mapping[str, Any]) -> int:
    name = next((key for key in _LENGTHS if settings.get(key) is not None), None)
    if name is None:
        return _NEW_TOKENS
    n_new, given = 0, settings[name]
    with suppress(TypeError, ValueError, OverflowError):
        n_new = int(given) if isinstance(given, str) or given == int(given) else 0
    if n_new < 1 or isinstance(given, bool):
        raise ConfigError(
            f"task {task} has {name}: {settings[name]}; it has to be a whole number above 0."
        )
    return n_new


def read_penalty(whose: str, settings: Mapping[str, Any]) -> float | None:
    """The repetition_penalty of `settings`; None: they have none.

    Raises:
        ConfigError: It is not a number above zero.
    """
    value = settings.get("repetition_penalty")
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(f"{whose} has repetition_penalty: {value}; it has to be above 0.")
    return float(value)


def refuse_settings(whose: str, settings: Mapping[str, Any]) -> None:
    """Check that transformers would write the most likely token each time.

    Raises:
        ConfigError: A setting changes this, so that the harness' own model would write other
            texts. Only a penalty for repetition is followed.
    """
    read_penalty(whose, settings)
    for name, neutral in _NEUTRAL.items():
        value = settings.get(name)
        if value not in (None, [], {}, neutral):
            raise ConfigError(
                f"{whose} is to write with {name}: {value}, and lm-eval-task supports only "
                "greedy generation. Remove it from the generation_kwargs of the task, or from "
                "generation_config.json in a copy of the base model."
            )
