"""Training steps of this package against Hugging Face Trainer + PEFT, alternated, as a table.

    python speed.py --lengths wikitext2_line_lengths.npy [--base GPT2_FOLDER] [--only NAME]...

Both sides are processes of their own that stay loaded; the driver lets them take one
optimizer step in turn. A ratio is taken of neighbouring steps, and the median of the ratios is
reported with its range: of wall seconds, and of processor seconds, which other programs on
the machine disturb less. Memory is the peak of the whole process. Results are added to the
JSON file after every comparison, so that an interrupted run loses little.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
MIB = 1024**2


@dataclass(frozen=True)
class Comparison:
    """One row of the table."""

    name: str
    arm: str
    mode: str  # of the peer
    precision: str = "float32"
    batch: int = 14
    accumulation: int = 5
    micro_batch: int = 14  # of ours
    checkpointing: bool = False

    @property
    def peer_arguments(self) -> list[str]:
        """Options of peer.py."""
        return [
            *("--arm", self.arm, "--mode", self.mode, "--precision", self.precision),
            *("--batch", str(self.batch), "--accumulation", str(self.accumulation)),
            *(["--checkpointing"] if self.checkpointing else []),
        ]

    @property
    def our_arguments(self) -> list[str]:
        """Options of ours.py; as many rows in a step, except where the peer's are blocks."""
        rows = 70 if self.mode == "blocks" else self.batch * self.accumulation
        return [
            *("--arm", self.arm, "--precision", self.precision),
            *("--micro-batch", str(self.micro_batch), "--rows", str(rows)),
            *(["--grouped"] if self.mode == "grouped" else []),
            *(["--scored"] if self.mode == "scored" else []),
        ]


BLOCKS = {"mode": "blocks", "batch": 4}  # 4 x 350 tokens, about as many as 14 lines hold
SINGLE = {"mode": "dynamic", "batch": 1, "accumulation": 70}
COMPARISONS = (
    Comparison("micro-batch 1 x 70", "lora-2", **SINGLE),
    Comparison("350-blocks (not exact)", "lora-2", **BLOCKS),
    Comparison("350-blocks (not exact)", "lora-1", **BLOCKS),
    Comparison("350-blocks (not exact)", "lora-4", **BLOCKS),
    Comparison("350-blocks (not exact)", "full", **BLOCKS),
    Comparison("grouped by length", "lora-2", "grouped"),
    Comparison("padding-free", "lora-2", "flattened"),
    Comparison("dynamic padding", "lora-2", "dynamic"),
    Comparison("dynamic padding", "full", "dynamic"),
    Comparison("padding-free", "full", "flattened"),
    Comparison("dynamic padding", "lora-1", "dynamic"),
    Comparison("dynamic padding", "lora-4", "dynamic"),
    Comparison("padded to 350", "lora-2", "padded"),
    Comparison("padding scored, 14 x 1", "lora-2", "scored", accumulation=1),
    Comparison("micro-batch 1 x 70, ours 2 x 35", "lora-2", **SINGLE, micro_batch=2),
    Comparison("dynamic + checkpointing", "lora-2", "dynamic", checkpointing=True),
    Comparison("350-blocks (not exact)", "lora-2", precision="bfloat16", **BLOCKS),
    Comparison("micro-batch 1 x 70", "lora-2", precision="bfloat16", **SINGLE),
    Comparison("padding-free", "lora-2", "flattened", precision="bfloat16"),
    Comparison("dynamic padding", "lora-2", "dynamic", precision="bfloat16"),
    Comparison("dynamic padding", "full", "dynamic", precision="bfloat16"),
    Comparison("padded to 350", "lora-2", "padded", precision="bfloat16"),
)


class Side:
    """A process that takes a step when told to."""

    def __init__(self, script: str, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.start_bytes = int(self._read()["start_bytes"])

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            command = " ".join(map(str, self._process.args))
            raise SystemExit(f"a side ended early (exit {self._process.wait()}): {command}")
        found: dict[str, float] = json.loads(line)
        return found

    def step(self) -> dict[str, float]:
        """Take one optimizer step; what it cost."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def compare(row: Comparison, common: list[str], n_steps: int) -> dict[str, object]:
    """Alternate `n_steps` steps of both sides."""
    arguments = [*common, "--steps", str(n_steps)]
    sides = {
        "ours": Side("ours.py", [*row.our_arguments, *arguments]),
        "peer": Side("peer.py", [*row.peer_arguments, *arguments]),
    }
    try:
        if row.mode not in ("padded", "scored"):  # they warm up with a step of short rows
            for side in sides.values():
                side.step()
        steps = [{name: side.step() for name, side in sides.items()} for _ in range(n_steps)]
    finally:
        for side in sides.values():
            side.close()
    return {
        **asdict(row),
        "steps": steps,
        "start_bytes": {name: side.start_bytes for name, side in sides.items()},
    }


def ratios(found: dict[str, object], key: str) -> list[float]:
    """Peer over ours of `key` a real token, for each pair of neighbouring steps."""
    steps = found["steps"]
    assert isinstance(steps, list)
    return [
        (s["peer"][key] / s["peer"]["tokens"]) / (s["ours"][key] / s["ours"]["tokens"])
        for s in steps
    ]


def describe(found: dict[str, object]) -> str:
    """One line of the table."""
    steps, start = found["steps"], found["start_bytes"]
    assert isinstance(steps, list) and isinstance(start, dict)
    wall, cpu = ratios(found, "seconds"), ratios(found, "cpu_seconds")
    per_token = {
        name: statistics.median(1e3 * s[name]["seconds"] / s[name]["tokens"] for s in steps)
        for name in ("ours", "peer")
    }
    peak = {name: max(s[name]["peak_bytes"] for s in steps) for name in per_token}
    net = {name: peak[name] - start[name] for name in peak}
    cells = [
        f"{found['arm']}",
        f"{found['name']}",
        f"{found['precision']}",
        f"{per_token['ours']:.2f} / {per_token['peer']:.2f}",
        f"**{statistics.median(wall):.2f}x** ({min(wall):.2f}-{max(wall):.2f})",
        f"{statistics.median(cpu):.2f}x",
        f"{peak['ours'] / MIB:,.0f} / {peak['peer'] / MIB:,.0f}",
        f"{peak['ours'] / peak['peer']:.2f} / {net['ours'] / net['peer']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


HEADER = """| arm | peer | precision | ms a token, ours / peer | speed (range) | processor time | \
peak MiB, ours / peer | ratio / net of start |
|---|---|---|---|---|---|---|---|"""


def measure_ceiling(threads: int) -> dict[str, float]:
    """Billion operations a second of large matrix products, the bound of both sides."""
    import torch

    torch.set_num_threads(threads)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(1400, 768, dtype=dtype), torch.randn(768, 3072, dtype=dtype))
        seconds = []
        for _ in range(30):
            began = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - began)
        found[str(dtype).removeprefix("torch.")] = (
            2 * 1400 * 768 * 3072 / statistics.median(seconds) / 1e9
        )
    return found


def make_base(folder: Path) -> None:
    """GPT-2 of 124 million random weights; speed does not depend on their values."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)


def describe_machine(threads: int) -> dict[str, object]:
    """Versions and hardware."""
    model = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    return {
        "processor": model[0].split(":")[1].strip() if model else platform.processor(),
        "threads": threads,
        "versions": {n: version(n) for n in ("torch", "transformers", "peft", "lorastudy")},
        "matmul_gflops": measure_ceiling(threads),
    }


def main() -> None:
    """Measure what is asked for and print the table of all results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=Path, required=True, help="token counts of lines, .npy")
    parser.add_argument("--base", type=Path, help="GPT-2 folder; random weights without it")
    parser.add_argument("--only", action="append", help="index, arm or part of a name; repeatable")
    parser.add_argument("--alternations", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = options.base or Path(folder)
        if options.base is None:
            make_base(base)
        results = {"machine": describe_machine(options.threads), "comparisons": []}
        if options.out.exists():
            results["comparisons"] = json.loads(options.out.read_text())["comparisons"]
        common = [
            *("--base", str(base), "--lengths", str(options.lengths)),
            *("--threads", str(options.threads)),
        ]
        print(HEADER, flush=True)
        for index, row in enumerate(COMPARISONS):
            wanted = options.only or [str(index)]
            if not any(
                w == str(index) if w.isdecimal() else w == row.arm or w in row.name for w in wanted
            ):
                continue
            found = compare(row, common, options.alternations)
            results["comparisons"].append(found)
            options.out.write_text(json.dumps(results, indent=1) + "\n")
            print(describe(found), flush=True)


if __name__ == "__main__":
    main()
