"""Which results of a training step are the same, bit for bit, with one thread and with two.

    python rounding.py

Prints a row per kind of computation: how many shapes were tried, and of how many all results were
equal. Shapes are those of the demo and of GPT-2, with as many tokens as steps have.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from lorastudy.machine.environment import set_up_memory
from lorastudy.model.fast.products import multiply

SIZES = ((192, 4_096, (37, 160, 317, 640, 1_280)), (768, 50_257, (317, 1_280)))
Computation = Callable[[], Sequence[Tensor]]


def list_products(
    width: int, n_vocabulary: int, n_tokens: int
) -> Iterator[tuple[str, Computation]]:
    """The products of linear modules, forward and backward, LoRA's included."""
    into = (3 * width, width, 4 * width, n_vocabulary, 16)
    for n_in, n_out in (*((width, n) for n in into), (4 * width, width), (16, width)):
        x, dy = torch.randn(n_tokens, n_in), torch.randn(n_tokens, n_out)
        weight, bias = torch.randn(n_out, n_in), torch.randn(n_out)
        yield "products", lambda x=x, w=weight, b=bias: [multiply(x, w, b)]
        yield "products", lambda dy=dy, w=weight: [multiply(dy, w.t())]
        yield "products", lambda dy=dy, x=x: [torch.mm(dy.t(), x), torch.mm(x.t(), dy)]
        yield "sums over tokens", lambda dy=dy: [dy.sum(0)]


def list_others(width: int, n_vocabulary: int, n_tokens: int) -> Iterator[tuple[str, Computation]]:
    """What else a step computes."""
    x, wide = torch.randn(n_tokens, width), torch.randn(n_tokens, 4 * width)
    norm, embedding = nn.LayerNorm(width), nn.Embedding(n_vocabulary, width)
    ids = torch.randint(0, 50, (n_tokens,))
    heads = torch.randn(8, 3, 160, width // 3)

    def norm_gradients() -> Sequence[Tensor]:
        norm.zero_grad()
        norm(x).backward(x)
        return [norm.weight.grad, norm.bias.grad]

    def embedding_gradient() -> Sequence[Tensor]:
        embedding.zero_grad()
        embedding(ids).backward(x)
        return [embedding.weight.grad]

    yield "gradients of a layer norm's weights", norm_gradients
    yield "gradient of the embedding", embedding_gradient
    yield "sums over a whole tensor", lambda: [wide.sum(), wide.mean()]
    yield "softmax", lambda: [wide.softmax(-1), wide.logsumexp(-1)]
    yield (
        "attention",
        lambda: [nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)],
    )


def is_equal(compute: Computation) -> bool:
    """Whether all results of a computation have the same bits with one thread and with two."""
    results = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        results.append([result.detach().clone() for result in compute()])
    return all(map(torch.equal, *results))


def main() -> None:
    """Try everything and print a table."""
    set_up_memory()
    torch.manual_seed(0)
    found: dict[str, list[bool]] = {}
    for width, n_vocabulary, lengths in SIZES:
        for n_tokens in lengths:
            for listing in (list_products, list_others):
                for kind, compute in listing(width, n_vocabulary, n_tokens):
                    found.setdefault(kind, []).append(is_equal(compute))
    print("| computation | tried | equal with one and two threads |")
    print("|---|--:|--:|")
    for kind, equal in found.items():
        print(f"| {kind} | {len(equal)} | {sum(equal)} |")


if __name__ == "__main__":
    main()
