"""Rates of GPT-2's float32 products: as torch takes them (MKL) and through oneDNN, as a table.

python products.py [--threads 2]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from lorastudy.machine.environment import set_up_memory
from lorastudy.model.fast.products import _has_onednn, _onednn

TOKENS, CHUNK, WIDTH, VOCABULARY = 1400, 512, 768, 50_257
SHAPES = {  # rows, in, out
    "attention": (TOKENS, WIDTH, 3 * WIDTH),
    "attention projection": (TOKENS, WIDTH, WIDTH),
    "feed-forward": (TOKENS, WIDTH, 4 * WIDTH),
    "feed-forward projection": (TOKENS, 4 * WIDTH, WIDTH),
    "output": (CHUNK, WIDTH, VOCABULARY),
    "output, its gradient": (CHUNK, VOCABULARY, WIDTH),
}


def median_seconds(run: Callable[[], torch.Tensor], n: int = 7) -> float:
    """Of `n` calls, after one."""
    run()
    seconds = []
    for _ in range(n):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    set_up_memory()
    if not _has_onednn():
        raise SystemExit("this processor or this torch has no such operation")
    print("| product | MKL, GFLOP/s | oneDNN, GFLOP/s | ratio |\n|---|---|---|---|")
    for name, (rows, n_in, n_out) in SHAPES.items():
        x, weight = torch.randn(rows, n_in), torch.randn(n_out, n_in)
        operations = 2e-9 * rows * n_in * n_out
        mkl = operations / median_seconds(lambda x=x, w=weight: torch.nn.functional.linear(x, w))
        onednn = operations / median_seconds(lambda x=x, w=weight: _onednn(x, w, None))
        print(f"| {name} | {mkl:.0f} | {onednn:.0f} | {onednn / mkl:.2f} |")


if __name__ == "__main__":
    main()
