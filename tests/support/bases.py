"""Base models that are read from their files once, for tests that attach many arms to them."""

import copy
import functools
from pathlib import Path

import torch
from transformers import PreTrainedModel

from lorastudy.model.base import BaseDescription, describe_base, load_base

CPU = torch.device("cpu")


def copy_base(folder: Path) -> PreTrainedModel:
    """The base model in `folder`, which the caller may change."""
    return copy.deepcopy(_read_base(folder, _stamp(folder))[1])


def description_of(folder: Path) -> BaseDescription:
    """What `describe_base` says of the base model in `folder`."""
    return _read_base(folder, _stamp(folder))[0]


@functools.lru_cache(maxsize=8)
def _read_base(folder: Path, _stamp: int) -> tuple[BaseDescription, PreTrainedModel]:
    return describe_base(folder), load_base(folder, device=CPU)


def _stamp(folder: Path) -> int:
    """When a file of the folder was last written, in ns."""
    return max(path.stat().st_mtime_ns for path in folder.iterdir())
