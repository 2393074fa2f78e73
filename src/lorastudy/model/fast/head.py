"""Sum of nats of scored positions, without keeping all their logits at once.

Shapes: S = scored positions, C = positions of a chunk, E = width, V = vocabulary, r = rank.

The gradient with respect to the hidden states, and to the trained tensors of the output layer, is
computed chunk by chunk in the forward pass, from logits that are overwritten in place.
"""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lorastudy.model.fast.dropout import apply_mask, draw_keep_mask, scale_of_kept
from lorastudy.model.fast.frozen import FrozenLinear, low_tensors, runs_low
from lorastudy.model.fast.lora import is_plain_lora
from lorastudy.model.fast.products import LargeLinear, multiply, multiply_back

CHUNK = 512  # positions; the fastest of 128, 256, 512 on two cores (vocabulary 50,257)


class _HeadNats(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  autograd hands its tensors over by position
        ctx: Any,
        hidden: Tensor,
        targets: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor | None,
        b: Tensor | None,
        scale: float,
        rate: float,
        dtype: torch.dtype,
    ) -> Tensor:
        """From hidden (S, E), targets (S,), weight (V, E), a (r, E), b (V, r) -> nats, ().

        dtype: of matrix products; softmax and sums are float32.
        """
        needs = ctx.needs_input_grad
        mask = draw_keep_mask(hidden.shape, rate, hidden.device) if rate else None
        kept = scale_of_kept(rate)
        d_hidden = torch.empty_like(hidden)
        d_weight = _zeros_like(weight) if needs[2] else None
        d_bias = _zeros_like(bias) if bias is not None and needs[3] else None
        d_a, d_b = (None if x is None else _zeros_like(x) for x in (a, b))
        total = hidden.new_zeros((), dtype=torch.float64)
        for begin in range(0, len(hidden), CHUNK):
            span = slice(begin, begin + CHUNK)
            h = hidden[span].to(dtype)
            logits = multiply(h, weight, bias)
            if a is not None and b is not None:
                dropped = h if mask is None else apply_mask(h, mask[span]).mul_(kept)
                narrow = torch.mm(dropped, a.t())
                logits.addmm_(narrow, b.t(), alpha=scale)
            logits = logits.float()
            total += _softmax_minus_target_(logits, targets[span])
            if d_bias is not None:
                d_bias += logits.sum(0)
            logits = logits.to(dtype)
            if weight.dtype == dtype:
                _add_product(d_hidden[span].zero_(), logits, weight)
            else:
                d_hidden[span] = multiply_back(logits, weight)
            if d_weight is not None:
                _add_product(d_weight, logits.t(), h)
            if a is not None and d_a is not None and b is not None and d_b is not None:
                d_narrow = torch.mm(logits, b).mul_(scale)
                _add_product(d_b, logits.t(), narrow.mul_(scale))
                _add_product(d_a, d_narrow.t(), dropped)
                through = torch.mm(d_narrow, a)
                if mask is not None:
                    through = apply_mask(through, mask[span]).mul_(kept)
                d_hidden[span] += through
            del logits  # before the next chunk's are made: one array of their size, not two
        ctx.gradients = (d_hidden, d_weight, d_bias, d_a, d_b)
        return total.to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, *others = (None if g is None else g.mul_(gradient) for g in ctx.gradients)
        del ctx.gradients  # used up: they were scaled in place
        return d_hidden, None, *others, None, None, None


def _zeros_like(x: Tensor) -> Tensor:
    """Where gradients of many chunks are summed: float32, or float64 in tests."""
    return torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total += left @ right`, summed in the type of `total`."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += torch.mm(left, right)


def _softmax_minus_target_(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of the targets, () float64; `logits` (C, V) become their gradient in place."""
    nats, sums = exponentiate_(logits, targets)
    logits.div_(sums)
    logits.scatter_add_(1, targets[:, None], logits.new_full((len(targets), 1), -1.0))
    return nats.sum(dtype=torch.float64)


def exponentiate_(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Nats of the targets (C,) and what softmax divides by (C, 1).

    `logits` (C, V) become exp(logits - highest) in place, so that no second array of their
    size is needed.
    """
    chosen = logits.gather(1, targets[:, None])
    highest = logits.amax(1, keepdim=True)
    sums = logits.sub_(highest).exp_().sum(1, keepdim=True)
    return (sums.log() + highest - chosen).squeeze(1), sums


def can_be_chunked(head: nn.Module) -> bool:
    """Whether `sum_head_nats` knows how `head` computes its logits."""
    if isinstance(head, LoraLayer):
        is_linear = isinstance(head.get_base_layer(), nn.Linear)
        return is_linear and is_plain_lora(head) and len(head.active_adapters) == 1
    return type(head) in (nn.Linear, LargeLinear, FrozenLinear)


def sum_head_nats(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """Nats of `targets` (S,) that `head` gives to `hidden` (S, E), summed: ()."""
    base = head.get_base_layer() if isinstance(head, LoraLayer) else head
    low = runs_low(hidden)
    weight, bias = low_tensors(base, low=low)
    a = b = None
    scale = rate = 0.0
    if isinstance(head, LoraLayer) and not head.disable_adapters:
        (name,) = head.active_adapters
        a, b, scale = head.lora_A[name].weight, head.lora_B[name].weight, head.scaling[name]
        if low:
            a, b = a.bfloat16(), b.bfloat16()
        dropout = head.lora_dropout[name]
        rate = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
    dtype = torch.bfloat16 if low else hidden.dtype
    total: Tensor = _HeadNats.apply(  # type: ignore[no-untyped-call]
        hidden.float() if low else hidden, targets, weight, bias, a, b, scale, rate, dtype
    )
    return total
