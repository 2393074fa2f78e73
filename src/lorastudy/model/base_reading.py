"""Load a base model's files with transformers, and check that nothing is missing or left over.

What a file does not hold, transformers would fill with random numbers. So names and shapes are
compared on torch's "meta" device before any weight is read.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lorastudy.model.base_folder import choose_attention, choose_class, read_config
from lorastudy.model.base_refusals import (
    reading_weights,
    refuse_incomplete,
    refuse_not_finite,
    refuse_other_formats,
)
from lorastudy.model.generation_settings import refuse_generation_settings
from lorastudy.model.stored_weights import make_reading_class


def check_names(folder: Path) -> None:
    """Check without weights that all are there, since a wrong shape would be filled at random."""
    network, report = _load_weights(folder, choose_class(read_config(folder)), device_map="meta")
    refuse_incomplete(folder, network, report)


def read_weights(
    folder: Path, prepare: Callable[[PreTrainedModel], None], **others: Any
) -> PreTrainedModel:
    """The model of `folder` without what `prepare` takes out before weights are read.

    Raises:
        InputError: A file is damaged, or a number is not finite.
    """
    family, not_finite = choose_class(read_config(folder)), list[str]()
    reader = make_reading_class(family, prepare, not_finite)
    network, _ = _load_weights(folder, reader, **others)
    network.__class__ = family
    refuse_not_finite(folder, not_finite)
    return network


def _load_weights(
    folder: Path, family: Any, **others: Any
) -> tuple[PreTrainedModel, dict[str, object]]:
    """The model of `folder`, loaded by the class `family`, and transformers' report on its weights.

    `others` are for transformers.
    """
    config = read_config(folder)
    refuse_other_formats(folder)
    refuse_generation_settings(folder)
    with reading_weights(folder):
        loaded: Any = family.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that the report names them; refused below
            attn_implementation=choose_attention(config),
            **others,
        )
        network, report = loaded
        assert isinstance(network, PreTrainedModel)
    return network, report
