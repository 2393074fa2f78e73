"""Bytes of a base model by `base_weights`: held, while loading, and in a training step with LoRA.

./run python benchmarks/base-weights_2cores_202611/measure.py

A random GPT-2 of 124 M parameters is written as a float32 file. Each row is a fresh process: it
loads the model in one format, and takes two steps of LoRA on attention and projection with 4 rows
of 256 tokens. Resident memory is that of Linux, minus what was resident before loading, with
libraries and a tiny model already there. Seconds are processor time.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

FORMATS = ("float32", "bfloat16", "int8", "nf4", "nf4-double")
STEPS, ROWS, LENGTH = 2, 4, 256


def resident(kind: str) -> int:
    """Bytes of this process that are in memory, of the kind that Linux names so."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def make_models(folder: Path) -> None:
    """Write the random GPT-2, and a tiny one."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    network = GPT2LMHeadModel(GPT2Config())
    network.save_pretrained(folder / "float32")
    tiny = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=256, n_head=2, vocab_size=1000))
    tiny.save_pretrained(folder / "tiny")


def measure(folder: Path, stored: str, base_weights: str) -> dict[str, object]:
    """What this process needs for one file and format."""
    from lorastudy.config.models import Arm
    from lorastudy.machine.environment import set_up_memory
    from lorastudy.model.adapters import attach_arm
    from lorastudy.model.arm_placement import resolve_arm
    from lorastudy.model.base import describe_base, load_base, quieten_libraries
    from lorastudy.model.scoring import make_scorer

    set_up_memory()
    quieten_libraries()
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    load_base(folder / "tiny", device=cpu, base_weights=base_weights)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")

    # loading
    began = time.process_time()
    network = load_base(folder / stored, device=cpu, base_weights=base_weights)
    seconds = time.process_time() - began
    held = sum(held_bytes(parameter) for parameter in network.parameters())
    found = {
        "file": stored,
        "base_weights": base_weights,
        "held_bytes": held,
        "loading_peak_bytes": resident("VmHWM") - before,
        "loading_seconds": seconds,
    }

    # two training steps
    described = describe_base(folder / stored)
    arm = Arm(
        name="lora-2",
        method="lora",
        placement=("attention", "projection"),
        rank=16,
        alpha=32.0,
        dropout=0.1,
        learning_rates=(1e-3,),
    )
    model = attach_arm(network, arm, resolve_arm(arm, described), seed=0)
    scorer = make_scorer(network, "float32")
    network.train()
    trained = list(model.trained_tensors().values())
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    torch.manual_seed(0)
    batch = random_batch(described.vocabulary_size)
    times = []
    for _ in range(STEPS):
        began = time.process_time()
        (scorer.sum_nats(batch) / batch.n_scored).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.process_time() - began)
    return {
        **found,
        "step_seconds": min(times),
        "training_peak_bytes": resident("VmHWM") - before,
    }


def held_bytes(parameter: torch.Tensor) -> int:
    """Bytes of a weight, and of the scales of a packed one."""
    state, scales = getattr(parameter, "quant_state", None), getattr(parameter, "SCB", None)
    parts = [parameter] if scales is None else [parameter, scales]
    if state is not None:
        parts.append(state.absmax)
    if state is not None and state.nested:
        parts.append(state.state2.absmax)
    return sum(part.nbytes for part in parts)


def random_batch(n_vocabulary: int) -> object:
    """Rows of random tokens, all equally long."""
    import numpy as np

    from lorastudy.data.batches import Padding, make_batch
    from lorastudy.data.rows import cut_lines

    tokens = np.random.default_rng(0).integers(0, n_vocabulary, size=ROWS * LENGTH)
    offsets = np.arange(0, ROWS * LENGTH + 1, LENGTH)
    table = cut_lines(offsets, LENGTH, 0)
    return make_batch(tokens, table, np.arange(ROWS), Padding(0))


def main() -> None:
    """Measure every row in a process of its own, or one row in this process."""
    if len(sys.argv) == 4:
        print(json.dumps(measure(Path(sys.argv[1]), *sys.argv[2:])))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder))
        for base_weights in FORMATS:
            command = [sys.executable, __file__, folder, "float32", base_weights]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            print_row(json.loads(done.stdout.splitlines()[-1]))


def print_row(row: dict[str, object]) -> None:
    """One line of the table in README.md."""
    held, loading, training = (
        int(str(row[f"{name}_bytes"])) / 2**20 for name in ("held", "loading_peak", "training_peak")
    )
    print(
        f"| {row['file']} | {row['base_weights']} | {held:.0f} | {loading:.0f} | "
        f"{loading / held:.2f} | {training:.0f} | {row['step_seconds']:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
