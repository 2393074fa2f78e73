"""Large float32 matrix products on a CPU, through oneDNN where torch has it.

torch takes float32 products with MKL and keeps oneDNN for bfloat16. On a processor with AVX-512
oneDNN is the faster one, above all for GPT-2's output layer, whose 50,257 columns MKL writes
unaligned (benchmarks/speed_2cores_202611/products.py prints the rates). The operation is a
private one of torch, so it is tried once against the public one before it is relied on;
elsewhere, and for small products, that is what runs.

A frozen weight may be held in another type than the inputs (`held.py`). It is then widened here, a
large one part by part, so that no whole copy of it exists.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lorastudy.model.fast.frozen import runs_low
from lorastudy.model.fast.held import count_elements, cut_rows, len_of, widen
from lorastudy.model.fast.remade import Recipe, recipe_of

LEAST_PRODUCTS = 1 << 22  # below, setting oneDNN up costs more than it saves
WIDENED = 1 << 22  # elements of a held weight that are widened at once: 16 MiB of float32
_FEW = 48  # tokens, whose product takes less time than the widening, in parts of any size


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `nn.functional.linear`, without a gradient: (T, in), (out, in), (out,) -> (T, out).

    The weight may have any strides, so the transpose of another layout costs no copy, and it may
    be held in another type than `x`.
    """
    if torch.compiler.is_compiling():
        return nn.functional.linear(x, widen(weight, x.dtype), bias)
    if weight.dtype != x.dtype:
        return _multiply_held(x, weight, bias)
    is_large = len(x) * weight.numel() >= LEAST_PRODUCTS
    if is_large and _is_plain(x) and _is_plain(weight) and _has_onednn():
        return _onednn(x, weight, bias)
    return nn.functional.linear(x, weight, bias)


def _multiply_held(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    n_most = WIDENED if len(x) > _FEW else WIDENED >> 4
    if count_elements(weight) <= n_most:
        return multiply(x, widen(weight, x.dtype), bias)
    y = x.new_empty(len(x), len_of(weight))
    for rows in cut_rows(weight, n_most):
        part_of_bias = None if bias is None else bias[rows]
        y[:, rows] = multiply(x, widen(weight, x.dtype, rows), part_of_bias)
    return y


def multiply_back(dy: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the inputs, from that of the outputs: (T, out), (out, in) -> (T, in)."""
    n_numbers = count_elements(weight)
    if weight.dtype == dy.dtype or n_numbers <= WIDENED:
        return multiply(dy, widen(weight, dy.dtype).t())
    dx = dy.new_zeros(len(dy), n_numbers // len_of(weight))
    for rows in cut_rows(weight, WIDENED):
        dx.addmm_(dy[:, rows], widen(weight, dy.dtype, rows))
    return dx


def _is_plain(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu"


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


@lru_cache(maxsize=1)
def _has_onednn() -> bool:
    """Whether the operation is there, takes these arguments and gives the product."""
    if "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return False
    x, weight = (torch.linspace(-1, 1, 48).reshape(shape) for shape in ((6, 8), (8, 6)))
    expected = nn.functional.linear(x, weight.t(), x[0, :6])
    try:
        got = _onednn(x, weight.t(), x[0, :6])
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return got.shape == expected.shape and bool(torch.allclose(got, expected, atol=1e-5))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  autograd hands its tensors over by position
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        make_again: Recipe | None,
        is_turned: bool,
    ) -> Tensor:
        """From x (T, in), weight (out, in), or (in, out) if turned, bias (out,) -> (T, out).

        make_again: gives x, of any shape (..., in), in backward; it is not kept then.
        A held weight is handed over as it is, since its gradient is float32 only there.
        """
        needs_weight = ctx.needs_input_grad[1]
        ctx.save_for_backward(x if needs_weight and make_again is None else None, weight)
        ctx.make_again = make_again if needs_weight else None
        ctx.is_turned = is_turned
        return multiply(x, weight.t() if is_turned else weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        weight, d_weight = weight.t() if ctx.is_turned else weight, None
        if needs_weight:
            make_again, ctx.make_again = ctx.make_again, None  # with what it holds
            if make_again is not None:
                x = make_again().reshape(-1, weight.shape[1])
                del make_again
            d_weight = _weight_gradient(x, dy, weight)
            d_weight = d_weight.t() if ctx.is_turned else d_weight
            del x
        return (
            multiply_back(dy, weight) if needs_x else None,
            d_weight,
            dy.sum(0) if needs_bias else None,
            None,
            None,
        )


def _weight_gradient(x: Tensor, dy: Tensor, weight: Tensor) -> Tensor:
    """The product dy' x, (out, in), laid out as the weight is, so that no copy is needed."""
    return torch.mm(dy.t(), x) if weight.is_contiguous() else torch.mm(x.t(), dy).t()


def apply_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, is_turned: bool = False
) -> Tensor:
    """As `nn.functional.linear`, for any shape (..., in); a turned weight is (in, out)."""
    if torch.compiler.is_compiling():
        return multiply(x, weight.t() if is_turned else weight, bias)
    y: Tensor = _Linear.apply(  # type: ignore[no-untyped-call]
        x.reshape(-1, x.shape[-1]), weight, bias, recipe_of(x), is_turned
    )
    return y.view(*x.shape[:-1], -1)


def _is_for_torch(x: Tensor, weight: Tensor) -> bool:
    """Whether torch's own module computes it: in bfloat16, and where torch.compile traces."""
    return runs_low(x) or (torch.compiler.is_compiling() and weight.dtype == x.dtype)


class LargeLinear(nn.Linear):
    """`nn.Linear` through `multiply`."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`."""
        if _is_for_torch(input, self.weight):
            return super().forward(input)
        return apply_linear(input, self.weight, self.bias)


class LargeConv1D(Conv1D):
    """transformers' `Conv1D` through `multiply`; its weight is (in, out)."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Conv1D`."""
        if _is_for_torch(x, self.weight):
            plain: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return plain
        return apply_linear(x, self.weight, self.bias, is_turned=True)
