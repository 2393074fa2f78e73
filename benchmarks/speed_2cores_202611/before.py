"""This package now against an earlier commit of it, alternated: has a change made it slower?

    git worktree add ../before COMMIT
    ./run python benchmarks/speed_2cores_202611/before.py --before ../before
    ./run python benchmarks/speed_2cores_202611/before.py --before ../before --only dynamic

Both sides are processes that stay loaded and take the same steps in turn, each with its own
source and its own `ours.py`, in one environment. A line has the median of the ratios of
neighbouring steps, seconds before / seconds now, with its range: above 1 is faster now. The sides
change their order every time, since the second one is a little slower even with the same code.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from comparisons import EVALUATION, TRAINING, Comparison
from sides import HERE, Side, alternate, our_arguments
from speed import make_base

ROWS = tuple(
    row
    for row in (*TRAINING, *EVALUATION)
    if row.key
    in {
        "train/dynamic padding/lora-1/float32",
        "train/dynamic padding/lora-2/float32",
        "train/dynamic padding/lora-4/float32",
        "train/dynamic padding/full/float32",
        "train/dynamic padding/lora-2/bfloat16",
        "train/dynamic padding/full/bfloat16",
        "train/padding scored/lora-2/float32",
        "evaluate/WikiText-2: padded to 350/lora-2/float32",
        "evaluate/IMDB: padded to 350/lora-2/float32",
    }
)


def compare(row: Comparison, before: Path, common: list[str], n_steps: int) -> str:
    """One line of the table: the row's key, and how many times as fast it is now."""
    script, arguments = our_arguments(row, common, n_steps)
    place = HERE.relative_to(HERE.parents[1])
    sides = {
        "before": Side(script, arguments, folder=before / place, source=before / "src"),
        "now": Side(script, arguments, source=HERE.parents[1] / "src"),
    }
    steps, _ = alternate(sides, n_steps, has_first=row.has_first)
    ratios = [step["before"]["seconds"] / step["now"]["seconds"] for step in steps]
    cpu = [step["before"]["cpu_seconds"] / step["now"]["cpu_seconds"] for step in steps]
    return (
        f"| {row.key} | {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f}) "
        f"| {statistics.median(cpu):.3f} |"
    )


def main() -> None:
    """Print a line for every row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the commit")
    parser.add_argument("--only", action="append", help="part of a key; repeatable")
    parser.add_argument("--alternations", type=int, default=8, help="even, for both orders")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print("| row | times as fast as before (range) | processor time |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        common = ["--base", str(make_base(Path(folder))), "--threads", str(options.threads)]
        for row in ROWS:
            if not options.only or any(part in row.key for part in options.only):
                line = compare(row, options.before.resolve(), common, options.alternations)
                print(line, flush=True)


if __name__ == "__main__":
    main()
