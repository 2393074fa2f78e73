"""Dropout that costs little on a CPU, and whose masks belong to rows.

torch draws CPU dropout masks one element at a time on one thread (about 5 ns each), and keeps them
together with the input. Here 16 random bits decide about an element, so each 64-bit number serves
four elements, and one byte per element is kept. A rate is exact to 1 / 65,536. Bits come from
NumPy's SFC64, its fastest generator.

Inside `draw_by_row` every row of a batch has a generator of its own, from which all masks of its
forward pass are drawn in turn. The rows that are computed beside it do not matter, so how a step
is cut into micro-batches changes only rounding. Elsewhere, on other devices and in compiled layers
torch's default generator decides, so `torch.manual_seed` fixes the masks.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lorastudy.data.batches import Batch
from lorastudy.data.rows import IntArray

_LEVELS = 1 << 16  # values of 16 random bits
_ELEMENTS = 1 << 18  # drawn at once, so that their bits stay in a cache
_Span = tuple[int, int]  # where a row begins and ends


@dataclass(frozen=True)
class RowStreams:
    """Random bits for each row of a batch."""

    seeds: tuple[int, ...]
    layouts: dict[int, list[_Span]]  # by a tensor's number of positions: where each row is in it

    @classmethod
    def of(cls, batch: Batch, seeds: Sequence[int]) -> "RowStreams":
        """Streams for rows that are padded, for rows one after the other, and for scored targets.

        Positions on which no scored target depends have no bits.
        """
        n_rows, width = batch.input_ids.shape
        begins = width * np.arange(n_rows)
        n_scored = np.bincount(batch.scored // width, minlength=n_rows)
        layouts = {
            int(n_scored.sum()): _stack(n_scored),
            int(batch.n_read.sum()): _stack(batch.n_read),
            n_rows * width: list(
                zip(begins.tolist(), (begins + batch.n_read).tolist(), strict=True)
            ),
        }
        return cls(tuple(seeds), layouts)

    @cached_property
    def generators(self) -> list[np.random.Generator]:
        """The generator of each row, in the state that earlier masks left."""
        return [np.random.Generator(np.random.SFC64(seed)) for seed in self.seeds]

    def lengths_in_squares(self, shape: Sequence[int]) -> list[int]:
        """Positions of each row if `shape` is that of attention weights of padded rows; or none."""
        n_rows, length = len(self.seeds), shape[-1]
        is_square = len(shape) > 2 and shape[-2] == length
        if not is_square or math.prod(shape[:-2]) % n_rows:
            return []
        return [end - begin for begin, end in self.layouts.get(n_rows * length, [])]

    def of_row(self, b: int, n_positions: int) -> "RowStreams":
        """The stream of one row that is computed alone."""
        alone = replace(
            self, seeds=self.seeds[b : b + 1], layouts={n_positions: [(0, n_positions)]}
        )
        alone.__dict__["generators"] = self.generators[b : b + 1]
        return alone


_streams: ContextVar[RowStreams | None] = ContextVar("row_streams", default=None)


def _stack(counts: IntArray) -> list[_Span]:
    return list(pairwise((0, *np.cumsum(counts).tolist())))


@contextmanager
def draw_by_row(streams: RowStreams | None) -> Iterator[None]:
    """While the block lasts, masks on a CPU are drawn from `streams`."""
    token = _streams.set(streams)
    try:
        yield
    finally:
        _streams.reset(token)


def remember_draws() -> RowStreams | None:
    """The present streams as they are now, so that the same masks can be drawn once more."""
    streams = _streams.get()
    if streams is None:
        return None
    again = replace(streams)
    again.__dict__["generators"] = deepcopy(streams.generators)
    return again


@contextmanager
def draw_for_row(b: int, n_positions: int) -> Iterator[None]:
    """While the block lasts, row `b` is computed alone, without padding."""
    streams = _streams.get()
    with draw_by_row(streams and streams.of_row(b, n_positions)):
        yield


def draw_keep_mask(
    shape: torch.Size | tuple[int, ...], rate: float, device: torch.device
) -> Tensor:
    """1 for kept elements, else 0: int8 of `shape`; each element is dropped with `rate`.

    Shapes with a row's positions side by side: (..., width), and (..., T, T) of attention weights.
    """
    if device.type != "cpu" or torch.compiler.is_compiling():
        keep = torch.empty(shape, dtype=torch.int8, device=device)
        return keep.bernoulli_(1.0 - rate)
    n_elements, width, streams = torch.Size(shape).numel(), shape[-1], _streams.get()
    n_positions = n_elements // width
    if streams is not None and n_positions in streams.layouts:
        spans = [(begin * width, end * width) for begin, end in streams.layouts[n_positions]]
        return _draw(streams.generators, spans, n_elements, rate).view(shape)
    if streams is not None and (lengths := streams.lengths_in_squares(shape)):
        return _draw_squares(streams.generators, lengths, shape, rate)
    return _draw([_open_default()], [(0, n_elements)], n_elements, rate).view(shape)


def _draw_squares(
    generators: Sequence[np.random.Generator],
    lengths: Sequence[int],
    shape: Sequence[int],
    rate: float,
) -> Tensor:
    """Masks of attention weights (..., T, T): each row's own positions are drawn, in every head."""
    kept = torch.ones(tuple(shape), dtype=torch.int8)
    of_rows = kept.view(len(lengths), -1, *shape[-2:])
    for generator, length, of_row in zip(generators, lengths, of_rows, strict=True):
        part = of_row[:, :length, :length]
        part.copy_(_draw([generator], [(0, part.numel())], part.numel(), rate).view(part.shape))
    return kept


def draw_keep_masks_of_rows(counts: Sequence[int], rate: float) -> Tensor:
    """1 for kept elements, else 0: int8 (n,) on a CPU, `counts` of them for each row."""
    streams, spans = _streams.get(), _stack(np.array(counts))
    if streams is None or len(streams.seeds) != len(counts):
        return _draw([_open_default()], [(0, spans[-1][1])], spans[-1][1], rate)
    return _draw(streams.generators, spans, spans[-1][1], rate)


def _open_default() -> np.random.Generator:
    """A generator that is seeded by torch's."""
    return np.random.Generator(
        np.random.SFC64(int(torch.randint(torch.iinfo(torch.int64).max, ())))
    )


def _draw(
    generators: Sequence[np.random.Generator], spans: Sequence[_Span], n_elements: int, rate: float
) -> Tensor:
    """(n_elements,) int8: each span is drawn by its generator; what is in none is kept."""
    kept = np.ones(n_elements, dtype=np.bool_)
    threshold = round(rate * _LEVELS) - _LEVELS // 2
    for generator, (first, last) in zip(generators, spans, strict=True):
        for begin in range(first, last, _ELEMENTS):
            part = kept[begin : min(begin + _ELEMENTS, last)]
            words = generator.integers(1 << 64, size=(len(part) + 3) // 4, dtype=np.uint64)
            np.greater_equal(words.view(np.int16)[: len(part)], threshold, out=part)
    return torch.from_numpy(kept).view(torch.int8)


def scale_of_kept(rate: float) -> float:
    """What kept elements are multiplied by; at a rate of 1, which base models may have, none is."""
    return 1.0 / (1.0 - rate) if rate < 1 else 0.0


def apply_mask(x: Tensor, mask: Tensor) -> Tensor:
    """`x * mask` in the dtype of `x`; on a CPU it is faster to turn bytes into floats first."""
    return mask.to(x.dtype).mul_(x)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        mask = draw_keep_mask(x.shape, rate, x.device)
        ctx.save_for_backward(mask)
        ctx.scale = scale_of_kept(rate)
        return apply_mask(x, mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return apply_mask(gradient, mask).mul_(ctx.scale), None


def drop(x: Tensor, rate: float) -> Tensor:
    """`x` with elements set to zero at `rate` and the others divided by `1 - rate`."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return nn.functional.dropout(x, rate, training=True)
    dropped: Tensor = _Dropout.apply(x, rate)  # type: ignore[no-untyped-call]
    return dropped


class FastFunctionalDropout(TorchFunctionMode):
    """Inside, `nn.functional.dropout` is `drop`, for models that do not call it as a module."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Every function of torch is called through this; only dropout is another one."""
        keywords = kwargs or {}
        if func is not nn.functional.dropout:
            return func(*args, **keywords)
        (x,), rate = args, keywords["p"]
        return drop(x, rate) if keywords["training"] and rate > 0 else x


class FastDropout(nn.Dropout):
    """`nn.Dropout` through `drop`."""

    def forward(self, input: Tensor) -> Tensor:
        """The input itself in evaluation mode."""
        return drop(input, self.p) if self.training and self.p > 0 else input
