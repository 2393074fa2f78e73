"""Read a model's weights from its files straight into the type that they are held in.

transformers maps the files into memory and converts whole tensors. A float32 file would then be
resident beside its weights in 16 or 4 bits. Here each tensor is read part by part, and each part is
converted at once, so that no more than the weights and one part is in memory.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorastudy.machine.environment import release_free_memory

_PART = 1 << 18  # elements that are read at once
_LARGE = 1 << 23  # elements of a tensor that is read into memory of its own
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a file that is read when its type is asked for, as transformers does."""

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int  # of its bytes in the file
    not_finite: list[str]  # receives the name if a number is not finite
    is_turned: bool = False  # laid out so that its transpose, which will be packed, needs no copy

    def __getitem__(self, index: object) -> "StoredTensor":
        """The tensor itself, still unread: transformers asks for all of it (`[...]`)."""
        assert index is ..., "transformers asks for a part of a stored tensor"
        return self

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Tensor:
        """The whole tensor on `device`, in `dtype`; on "meta" it is looked at, but not kept.

        Raises:
            OSError: The file cannot be read, or is shorter than its head says.
            ValueError: It holds whole numbers where a weight is asked for.
        """
        if dtype is not None and dtype.is_floating_point > self.dtype.is_floating_point:
            raise ValueError(f"{self.name} holds {self.dtype} numbers, which are not weights")
        if math.prod(self.shape) >= _LARGE:
            release_free_memory()  # what other tensors left behind, in pieces that are too small
        how: Any = {"dtype": dtype or self.dtype, "device": device}
        if self.is_turned:
            whole = rows = torch.empty(self.shape[::-1], **how).t()
        else:
            whole = torch.empty(self.shape, **how)
            rows = whole.view(-1)
        n_rows = max(1, _PART // math.prod(rows.shape[1:]))
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.begin)
            for begin in range(0, len(rows), n_rows):
                into = rows[begin : begin + n_rows]
                part = torch.empty(into.shape, dtype=self.dtype)
                _fill(part.view(-1), file)
                converted = part.to(whole.dtype)
                self._look_at(converted)
                into.copy_(converted)
        return whole

    def _look_at(self, numbers: Tensor) -> None:
        if not numbers.is_floating_point() or self.name in self.not_finite:
            return
        low, high = torch.aminmax(numbers)  # both are NaN where one number is
        if not (torch.isfinite(low) and torch.isfinite(high)):
            self.not_finite.append(self.name)


def _fill(part: Tensor, file: Any) -> None:
    """Read as many bytes as `part` has into it."""
    missing = part.view(torch.uint8).numpy()
    while len(missing):
        n_read = file.readinto(missing)
        if not n_read:
            raise OSError(f"{file.name} ends too early")
        missing = missing[n_read:]


def _list_tensors(path: Path, not_finite: list[str]) -> Iterator[StoredTensor]:
    """The tensors of a safetensors file, whose head begins with its own length."""
    with path.open("rb") as file:
        n_head = int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(n_head))
    for name, known in head.items():
        if name != "__metadata__":
            begin = 8 + n_head + known["data_offsets"][0]
            dtype, shape = _TYPES[known["dtype"]], tuple(known["shape"])
            yield StoredTensor(path, name, dtype, shape, begin, not_finite)


def _names_of_turned(network: PreTrainedModel) -> set[str]:
    """Names in files, with the prefix of the model and without, of weights packed turned."""
    paths = [p for p, m in network.named_modules() if getattr(m, "source_cls", None) is Conv1D]
    prefix = f"{network.base_model_prefix}."
    return {f"{name}.weight" for path in paths for name in (path, path.removeprefix(prefix))}


def make_reading_class(
    family: type[PreTrainedModel],
    prepare: Callable[[PreTrainedModel], None],
    not_finite: list[str],
) -> Any:
    """`family` with another way of reading files; `prepare` is called before, to set types.

    The names of tensors with numbers that are not finite are added to `not_finite`. The class of
    what was loaded is `family` again once its owner says so.
    """

    def prepared(self: Any, *arguments: Any, **named: Any) -> None:
        family.__init__(self, *arguments, **named)
        prepare(self)

    def load(model: Any, tensors: Any, files: list[str], *others: Any, **named: Any) -> Any:
        stored = {t.name: t for file in files for t in _list_tensors(Path(file), not_finite)}
        for name in _names_of_turned(model) & stored.keys():
            stored[name] = replace(stored[name], is_turned=True)
        # A fork has to make its pool of threads again, before several threads need it at once.
        torch.set_num_threads(torch.get_num_threads())
        return family._load_pretrained_model(model, stored, files, *others, **named)

    return type(
        family.__name__,
        (family,),
        {
            "__module__": family.__module__,  # else transformers takes it for a user's own code
            "__init__": prepared,
            "_load_pretrained_model": staticmethod(load),
        },
    )
