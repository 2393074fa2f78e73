"""What a training step of this package costs as rows, lengths, vocabulary, rank and modules grow.

    python growth.py [--only rows] [--out growth.json]      measures, prints a table, draws
    python growth.py --table growth.json                    the table of a file, measuring nothing

One thing is changed at a time, from a model of 4 layers and width 256 with LoRA-2 and one
micro-batch of 14 rows of 100 tokens. Each measurement is a process of its own, so that its peak
is its own; seconds are the median of its steps.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MIB = 1024**2


@dataclass(frozen=True)
class Size:
    """One measurement."""

    rows: int = 70  # of the corpus; 14 make a step
    length: int = 100  # tokens of every row
    vocabulary: int = 8_192
    rank: int = 16
    arm: str = "lora-2"


VARIED: dict[str, tuple[Size, ...]] = {
    "rows": tuple(Size(rows=70 * n) for n in (1, 10, 100, 1_000)),
    "length": tuple(Size(length=n) for n in (32, 64, 128, 256, 512, 1_024)),
    "vocabulary": tuple(Size(vocabulary=n) for n in (8_192, 16_384, 32_768, 65_536)),
    "rank": tuple(Size(rank=n) for n in (4, 16, 64, 256)),
    "modules": tuple(Size(arm=f"lora-{n}") for n in (1, 2, 3, 4)),
}
STEPS, UNTIMED = 5, 1


def measure_here(size: Size, threads: int) -> None:
    """Train a few steps in this process and print what a step cost."""
    import numpy as np
    import torch
    from meter import peak_bytes, report
    from ours import keep_order, load_arm, make_arm, prepare
    from transformers import GPT2Config, GPT2LMHeadModel

    from lorastudy.config.models import Training
    from lorastudy.machine.environment import set_up_memory
    from lorastudy.store.training_state import Progress
    from lorastudy.train.loop import StepDone, train

    set_up_memory()
    keep_order()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=4,
        n_embd=256,
        n_head=4,
        vocab_size=size.vocabulary,
        bos_token_id=0,
        eos_token_id=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        GPT2LMHeadModel(config).save_pretrained(folder)
        model = load_arm(Path(folder), make_arm(size.arm, size.rank), seed=0)
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, size.vocabulary, size=(size.rows, size.length - 1))
    settings = Training(epochs=1, rows_per_step=14, micro_batch=14)
    rows = [[0, *row] for row in tokens.tolist()]
    inputs = prepare(model, rows, settings, longest=size.length)
    start_bytes = peak_bytes()
    seconds = []
    events = (e for e in train(inputs, Progress()) if isinstance(e, StepDone))
    for _ in range(STEPS):
        began = time.perf_counter()
        next(events)
        seconds.append(time.perf_counter() - began)
    report(
        seconds=statistics.median(seconds[UNTIMED:]),
        peak_bytes=peak_bytes(),
        start_bytes=start_bytes,
        trained=sum(p.numel() for p in model.trained_tensors().values()),
    )


def measure(size: Size, threads: int) -> dict[str, Any]:
    """As `measure_here`, in a fresh process."""
    command = [sys.executable, str(HERE / "growth.py"), "--here", json.dumps(asdict(size))]
    done = subprocess.run(
        [*command, "--threads", str(threads)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{size}:\n{done.stderr[-2_000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**asdict(size), **found}


def of_what(name: str, found: dict[str, Any]) -> int:
    """The quantity that was varied."""
    return int(found["trained"] if name == "modules" else found[name])


def markdown(results: dict[str, Any]) -> str:
    """A table of all measurements."""
    lines = [
        "| varied | value | ms a step | ms a token | peak MiB | of it since the start |",
        "|---|---|---|---|---|---|",
    ]
    for name, measured in results["growth"].items():
        for found in measured:
            label = f"{found['arm']}, {found['trained']:,} trained" if name == "modules" else ""
            cells = (
                name,
                label or f"{found[name]:,}",
                f"{1e3 * found['seconds']:.0f}",
                f"{1e3 * found['seconds'] / (14 * found['length']):.3f}",
                f"{found['peak_bytes'] / MIB:,.0f}",
                f"{(found['peak_bytes'] - found['start_bytes']) / MIB:,.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """Seconds a step and memory since the start, against what was varied."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    growth = results["growth"]
    figure, axes = pyplot.subplots(
        2, len(growth), figsize=(2.6 * len(growth), 4.6), squeeze=False, layout="constrained"
    )
    for column, (name, measured) in enumerate(growth.items()):
        x = [of_what(name, found) for found in measured]
        seconds = [1e3 * found["seconds"] for found in measured]
        bytes_used = [(found["peak_bytes"] - found["start_bytes"]) / MIB for found in measured]
        for axis, y in ((axes[0, column], seconds), (axes[1, column], bytes_used)):
            axis.plot(x, y, "o-", color="#1f5a8a", markersize=4)
            axis.set_ylim(bottom=0)
            axis.set_xscale("log", base=2)
            axis.grid(alpha=0.3)
        label = "trained parameters" if name == "modules" else name
        axes[1, column].set_xlabel(label)
    axes[0, 0].set_ylabel("ms a step")
    axes[1, 0].set_ylabel("MiB since the start")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=list(VARIED))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "growth.json")
    parser.add_argument("--table", type=Path, help="print the table of this file")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        measure_here(replace(Size(), **json.loads(options.here)), options.threads)
        return
    if options.table:
        print(markdown(json.loads(options.table.read_text())))
        return
    from sides import describe_machine

    results: dict[str, Any] = {"machine": describe_machine(options.threads), "growth": {}}
    for name in options.only or VARIED:
        results["growth"][name] = [measure(size, options.threads) for size in VARIED[name]]
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    draw(results, options.out.with_suffix(".svg"))
    print(markdown(results))


if __name__ == "__main__":
    main()
