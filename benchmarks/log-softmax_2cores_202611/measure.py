"""Error of float32 log-softmax, of torch and of the fast implementation, per instruction set.

python measure.py     prints one line per instruction set that ATEN_CPU_CAPABILITY can select
"""

import os
import subprocess
import sys

import torch

from lorastudy.model.fast.head import exponentiate_

ROWS = 256
WORDS = (1_024, 49_152, 128_256)


def measure(n_words: int) -> tuple[float, float]:
    """Largest error in nats over random logits against float64: of torch, and of our own code."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(ROWS, n_words, generator=generator)
    exact = -logits.double().log_softmax(-1)[:, 0]
    theirs = -logits.log_softmax(-1)[:, 0]
    ours, _ = exponentiate_(logits.clone(), torch.zeros(ROWS, dtype=torch.int64))
    return float((theirs - exact).abs().max()), float((ours - exact).abs().max())


def main() -> None:
    """Measure in this process, or in one process per instruction set."""
    if "--here" in sys.argv:
        for n in WORDS:
            theirs, ours = measure(n)
            name = torch.backends.cpu.get_cpu_capability()
            print(f"{name:<8}{n:>10,}{theirs:>12.1e}{ours:>12.1e}")
        return
    print(f"torch {torch.__version__}; largest error in nats", flush=True)
    print(f"{'':<8}{'words':>10}{'torch':>12}{'fast':>12}", flush=True)
    for name in ("default", "avx2", "avx512"):
        settings = {**os.environ, "ATEN_CPU_CAPABILITY": name, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, __file__, "--here"], env=settings, check=True)


if __name__ == "__main__":
    main()
