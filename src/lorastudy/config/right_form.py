"""How a key or value of a study file is written that somebody wrote in another way.

Other tools have the same settings under other names, at the top level, or as a single value where
a study file has a list or a mapping.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from lorastudy.config.models import Study

# Keys and values that other tools use for the same thing, in small letters, spelt too differently
# to be found as near.
_WORDS_OF_OTHERS: dict[str, tuple[str, ...]] = {
    "lr": ("learning_rates",),
    "r": ("rank",),
    "lora_r": ("rank",),
    "lora_rank": ("rank",),
    "lora_alpha": ("alpha",),
    "lora_dropout": ("dropout",),
    "target_modules": ("placement",),
    "lora_target": ("placement",),
    "modules": ("placement",),
    "layers_to_transform": ("layers",),
    "peft_method": ("method",),
    "finetuning_type": ("method",),
    "batch_size": ("rows_per_step",),
    "train_batch_size": ("rows_per_step",),
    "gradient_accumulation_steps": ("rows_per_step",),
    "per_device_train_batch_size": ("micro_batch",),
    "num_epochs": ("epochs",),
    "max_steps": ("budget",),
    "max_tokens": ("budget",),
    "num_train_epochs": ("epochs",),
    "warmup_ratio": ("warmup",),
    "warmup_steps": ("warmup",),
    "lr_scheduler_type": ("schedule", "shape"),
    "lr_scheduler": ("schedule", "shape"),
    "optim": ("optimizer",),
    "gradient_checkpointing": ("activation_checkpointing",),
    "model": ("base_model",),
    "model_name": ("base_model", "id"),
    "model_name_or_path": ("base_model", "id"),
    "max_length": ("length",),
    "max_seq_length": ("length",),
    "sequence_len": ("length",),
    "cutoff_len": ("length",),
    "block_size": ("length",),
    "seed": ("seeds",),
    "datasets": ("benchmarks", "data"),
    "dataset": ("data",),
    "train_file": ("train",),
    "validation_file": ("validation",),
    "eval": ("benchmarks", "validation"),
    "valid": ("validation",),
    "val": ("validation",),
    "dev": ("validation",),
    "name_or_path": ("id",),
    "text_column": ("column",),
    "dtype": ("precision",),
    "torch_dtype": ("precision",),
    "eval_steps": ("validate_every",),
    "threshold": ("min_delta",),
    "test_size": ("from_train",),
    "val_set_size": ("from_train",),
    "from_train": ("validation",),
    "weight": ("mixture",),
    "metric_for_best_model": ("best_by",),
    "bf16": ("bfloat16", "precision"),
    "fp16": ("bfloat16", "precision"),
    "half": ("bfloat16",),
    "fp32": ("float32", "precision"),
    "4bit": ("nf4",),
    "load_in_4bit": ("base_weights",),
    "load_in_8bit": ("base_weights",),
}
# What other tools call a method, in small letters, and the keys that make it here.
_METHODS_OF_OTHERS = {
    "qlora": "method: lora with base_weights: nf4",
    "dora": "method: lora with use_dora: true",
    "qdora": "method: lora with base_weights: nf4 and use_dora: true",
    "rslora": "method: lora with use_rslora: true",
    "pissa": "method: lora with init_lora_weights: pissa",
    "olora": "method: lora with init_lora_weights: olora",
    "loraplus": "method: lora with loraplus_lr_ratio: 16",
}
# Keys that a value stands for where a mapping is expected, by its type.
_KEYS_OF: dict[type, tuple[str, ...]] = {
    str: ("id", "path", "protocol"),
    int: ("patience", "steps"),
    float: ("from_train",),
    tuple: ("mixture",),
}
_SEEDS_SHOWN = 10
_MOST_PLACES = 3  # that are shown of a key; one that is in more of them says nothing
_NEAR_ELSEWHERE = 0.8  # how similar a key of another place has to be, from 0 to 1


def find_nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that another tool calls `word`, or the most similar one; None: neither."""
    known = {candidate.casefold(): candidate for candidate in candidates}
    translations = _WORDS_OF_OTHERS.get(word.casefold(), ())
    near = difflib.get_close_matches(word.casefold(), known, n=1)
    return next((known[found] for found in (*translations, *near) if found in known), None)


def find_elsewhere(key: str) -> list[str]:
    """Where a study has a key like this, as "training.epochs"; empty if nowhere, or in many places.

    Members of arms and benchmarks are called NAME.
    """
    places = [(field, path) for path, model in _models_below(Study, "") for field in _keys(model)]
    wanted = {key.casefold(), *_WORDS_OF_OTHERS.get(key.casefold(), ())}
    known = {field for field, _ in places}
    if not wanted & known:
        near = difflib.get_close_matches(key.casefold(), known, n=1, cutoff=_NEAR_ELSEWHERE)
        wanted = set(near)
    found = [f"{path}{field}" for field, path in places if field in wanted]
    return found if len(found) <= _MOST_PLACES else []


def allowed_keys(path: Sequence[str | int]) -> list[str]:
    """The keys of the model at `path` in a study."""
    return _keys(_model_at(path))


def write_as_field(path: Sequence[str | int], value: object) -> str:
    """`key: value` in the form that the field at `path` has; empty if it has this form."""
    model, key = _model_at(path[:-1]), str(path[-1])
    is_list = get_origin(model.model_fields[key].annotation) is tuple
    if not is_list or isinstance(value, dict | tuple) or value is None:
        return ""
    return f"{key}: [{_bare(value)}]"


def right_form(kind: str, path: Sequence[str | int], value: object) -> str:
    """How a value would be written that has another form than its key expects, after a semicolon.

    Args:
        kind: What pydantic calls the mistake.
        path: Of the value in the study.
        value: What was written.
    """
    if kind in ("int_type", "float_type") and isinstance(value, str) and _is_number(value):
        if not value.isascii():
            return "; write it with the ordinary digits 0 to 9"
        # YAML gives numbers such as 010 as text, since its versions read them differently
        begins = re.match(r"[+-]?0[0-9_]", value)
        return "; leave out the zeros in front" if begins else "; leave out the quotes"
    is_list_of_parts = path[-1] in ("arms", "benchmarks")
    if kind == "tuple_type" and is_list_of_parts and isinstance(value, dict):
        return f'; begin each of the {path[-1]} with "- name: ..."'
    needs_form = kind in ("tuple_type", "model_type") and not isinstance(value, dict)
    if not needs_form or value is None or is_list_of_parts:
        return ""
    return _form_of_list(path, value) if kind == "tuple_type" else _form_of_mapping(path, value)


def right_choice(path: Sequence[str | int], value: object, choices: Iterable[str]) -> str:
    """How a study says what `value`, which is none of the choices at `path`, means elsewhere.

    In brackets or after a semicolon; empty if it is similar to none and means nothing elsewhere.
    """
    near = find_nearest(str(value), choices)
    said = f" (did you mean {near!r}?)" if near else ""
    if tuple(path) == ("base_model", "builtin"):
        said += f"; for a model of the hub write base_model: {{id: {_bare(value)}}}"
    if path[-1] == "method" and isinstance(value, str):
        word = re.sub(r"[ _-]", "", value.casefold().replace("+", "plus"))
        other = "" if near else f"method: peft with peft: {{peft_type: {_bare(value).upper()}}}"
        if written := _METHODS_OF_OTHERS.get(word, other):
            said += f"; write {written}"
    return said


def shown(value: object) -> str:
    """A value as messages show it: by its `repr`, shortened, without what is inside."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, tuple):
        return "a list"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _form_of_list(path: Sequence[str | int], value: object) -> str:
    if tuple(path) == ("seeds",) and isinstance(value, int) and 1 < value <= _SEEDS_SHOWN:
        return f"; write {list(range(value))} for {value} seeds"
    if tuple(path) == ("seeds",) and not isinstance(value, int):
        return "; write them one by one, such as [0, 1, 2]"
    return f"; write [{_bare(value)}]"


def _form_of_mapping(path: Sequence[str | int], value: object) -> str:
    keys: list[str] = [key for key in _KEYS_OF.get(type(value), ()) if key in allowed_keys(path)]
    if isinstance(value, str) and value.startswith((".", "/", "~")):
        keys = [key for key in keys if key == "path"]
    if not keys and isinstance(value, str):  # the first key may take a word: its name, or shape
        first = allowed_keys(path)[0]
        keys = [first] * isinstance(_model_at(path).model_fields[first].default, str)
    inside = "[...]" if isinstance(value, tuple) else _bare(value)
    forms = " or ".join(f"{{{key}: {inside}}}" for key in keys)
    return f"; write {forms}" if forms else ""


def _bare(value: object) -> str:
    return shown(value).strip("'")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _keys(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def _model_at(path: Sequence[str | int]) -> type[BaseModel]:
    model: type[BaseModel] = Study
    for key in path:
        if isinstance(key, str):
            model = next(_models_in(model.model_fields[key].annotation))
    return model


def _models_below(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models of a study, with the beginnings of their paths; without plans and most sources."""
    yield path, model
    for key, field in model.model_fields.items():
        is_list = get_origin(field.annotation) is tuple
        for below in (
            _models_in(field.annotation) if key not in ("mixture", "items", "planned") else ()
        ):
            yield from _models_below(below, f"{path}{key}." + "NAME." * is_list)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        if part is not Ellipsis:
            yield from _models_in(part)
