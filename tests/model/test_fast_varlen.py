"""Attention by torch's kernel for rows of any lengths, which exists on CUDA alone.

Here a stand-in of a few lines takes its place under the same name on the CPU, so what is
tested is how it is called, and that nothing relies on it before it was tried; not the kernel.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lorastudy.model.fast import attention as fast_attention
from lorastudy.model.fast.attention import attend
from lorastudy.model.fast.attention_padded import attend_padded
from lorastudy.model.fast.attention_varlen import attend_varlen, can_attend_varlen
from lorastudy.model.fast.flat_rows import Attention, FlatRows

CPU = torch.device("cpu")
ROWS = FlatRows((0, 7, 8, 20))
Register = Callable[[float], None]


def inputs() -> list[Tensor]:
    """Queries, keys and values as views of one tensor, as a projection to all three gives them."""
    generator = torch.Generator().manual_seed(5)
    together = torch.randn(1, 20, 3 * 2 * 8, generator=generator).requires_grad_()
    return [x.view(1, 20, 2, 8).transpose(1, 2) for x in together.split(16, dim=-1)]


def weights_of(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Causal weights of one document, (H, L, L), from (L, H, D) each."""
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    return scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf).softmax(-1)


def attend_by_definition(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, scale: float
) -> tuple[Tensor, Callable[[Tensor], list[Tensor]]]:
    """The output, and the gradients of the inputs as a function of its own: (1, T, H, D) each."""
    spans = [slice(*span) for span in pairwise(bounds.tolist())]
    weights = [weights_of(q[0, s], k[0, s], scale) for s in spans]
    out = torch.cat(
        [torch.einsum("hqk,khd->qhd", w, v[0, s]) for w, s in zip(weights, spans, strict=True)]
    )

    def differentiate(d_out: Tensor) -> list[Tensor]:
        grads: list[list[Tensor]] = [[], [], []]
        for w, s in zip(weights, spans, strict=True):
            d_w = torch.einsum("qhd,khd->hqk", d_out[0, s], v[0, s])
            d_scores = scale * w * (d_w - (d_w * w).sum(-1, keepdim=True))
            grads[0].append(torch.einsum("hqk,khd->qhd", d_scores, k[0, s]))
            grads[1].append(torch.einsum("hqk,qhd->khd", d_scores, q[0, s]))
            grads[2].append(torch.einsum("hqk,qhd->khd", w, d_out[0, s]))
        return [torch.cat(parts)[None] for parts in grads]

    return out[None], differentiate


@pytest.fixture
def register() -> Iterator[Register]:
    """Puts the stand-in, whose outputs are `factor` times what they should be, in place."""
    library = torch.library.Library("aten", "IMPL")

    def put(factor: float) -> None:
        def forward(  # noqa: PLR0917  as the operation is called
            q: Tensor,
            k: Tensor,
            v: Tensor,
            bias: Tensor,
            bounds: Tensor,
            bounds_k: Tensor,
            longest: int,
            longest_k: int,
            rate: float,
            kind: int,
            keeps_sums: bool,
            *,
            scale: float,
        ) -> tuple[Tensor, ...]:
            assert kind == 1 and bias is None
            assert torch.equal(bounds, bounds_k) and bounds.dtype == torch.int32
            assert longest == longest_k == int(bounds.diff().max())
            out = factor * attend_by_definition(q, k, v, bounds, scale)[0]
            sums = q.new_zeros(1, q.shape[2], q.shape[1] if keeps_sums else 0)
            return out, sums, torch.zeros(()), torch.zeros(()), longest, longest_k

        def backward(
            d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, *others: Any, scale: float
        ) -> tuple[Tensor, ...]:
            _, _, bounds, _, _, _, sums, *_ = others
            assert sums.shape[-1] == q.shape[1]
            grads = attend_by_definition(q, k, v, bounds, scale)[1](d_out)
            return *grads, torch.zeros(())

        library.impl("_efficient_attention_forward", forward, "CPU")
        library.impl("_efficient_attention_backward", backward, "CPU")

    can_attend_varlen.cache_clear()
    yield put
    library._destroy()
    can_attend_varlen.cache_clear()


def test_rows_attend_by_the_kernel_as_padded_ones(register: Register) -> None:
    register(1.0)
    ours, theirs = inputs(), inputs()
    got = attend_varlen(*ours, Attention(ROWS, 0.7))
    expected = attend_padded(*theirs, Attention(ROWS, 0.7))
    assert torch.allclose(got, expected, atol=1e-6)
    direction = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    for mine, other in zip(
        torch.autograd.grad(got, ours, direction),
        torch.autograd.grad(expected, theirs, direction),
        strict=True,
    ):
        assert torch.allclose(mine, other, atol=1e-6)


def test_a_kernel_that_is_not_there_is_not_used() -> None:
    can_attend_varlen.cache_clear()
    assert not can_attend_varlen(CPU, torch.float32, 8)


@pytest.mark.parametrize(("factor", "is_used"), [(1.0, True), (1.01, False), (float("nan"), False)])
def test_a_kernel_is_used_if_it_says_what_padded_rows_say(
    register: Register, factor: float, is_used: bool
) -> None:
    register(factor)
    assert can_attend_varlen(CPU, torch.float32, 8) is is_used


def test_trying_the_kernel_draws_no_random_numbers(register: Register) -> None:
    register(1.0)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert can_attend_varlen(CPU, torch.float32, 8)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("has_kernel", [False, True], ids=["padded", "kernel"])
def test_another_device_is_given_all_rows_at_once(
    register: Register, has_kernel: bool, low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_kernel:
        register(1.0)
    calls = []
    for name, function in (("attend_varlen", attend_varlen), ("attend_padded", attend_padded)):
        counted = partial(lambda name, function, *a: calls.append(name) or function(*a), name)
        monkeypatch.setattr(fast_attention, name, partial(counted, function))
    monkeypatch.setattr(fast_attention, "_runs_on_cpu", lambda _: False)
    given = inputs()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        got = attend(nn.Identity(), *given, None, flat_rows=ROWS, scaling=0.7)[0]
    assert calls == ["attend_varlen" if has_kernel else "attend_padded"]
    assert got.dtype == (torch.bfloat16 if low else torch.float32)
    expected = attend_padded(*given, Attention(ROWS, 0.7))
    assert torch.allclose(got.float(), expected, atol=0.03 if low else 1e-6)
