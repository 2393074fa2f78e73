"""Weak scaling: twice the processes on twice the rows, one thread each, through the command line.

    ./run python benchmarks/scaling_2cores_202611/weak.py [--arm full --arm lora-4] [--rows 16]

Trains arms of the demo for one epoch: one process with R rows per step, then teams of two with
2 R. Reads seconds and tokens of every step after the first two from steps.jsonl, and prints a
Markdown table: a team that loses nothing has twice the tokens a second.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from lorastudy import __version__
from lorastudy.machine.environment import describe_device
from lorastudy.store.files import read_record
from lorastudy.store.folders import RunFolder
from lorastudy.store.lines import read_records
from lorastudy.store.records import RunResult, StepRecord

TEAMS = {1: (None,), 2: ("ddp", "fsdp2")}
N_FIRST = 2  # steps in which memory is first touched and layouts are made


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm", action="append", default=[], help="default: full and lora-4")
    parser.add_argument("--rows", type=int, default=16, help="rows of a step for each process")
    asked = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"lorastudy {__version__}, torch {torch.__version__}, {cores} cores, ", end="")
    print(f"{describe_device(torch.device('cpu'))}, gloo, one thread a process\n")
    print("| arm | processes | strategy | rows per step | tokens/s | against one | waited |")
    print("|---|--:|---|--:|--:|--:|--:|")
    for arm in asked.arm or ["full", "lora-4"]:
        alone = None
        for n, strategies in TEAMS.items():
            for strategy in strategies:
                run = train(arm, n, strategy, asked.rows * n, cores)
                speed = measure_speed(run)
                alone = alone or speed
                waited = read_record(run.result, RunResult).waited_share
                share = "" if waited is None else f"{waited:.0%}"
                print(
                    f"| {arm} | {n} | {strategy or 'none'} | {asked.rows * n} | {speed:,.0f} ",
                    end="",
                )
                print(f"| {speed / alone:.2f} | {share} |", flush=True)


def train(arm: str, n: int, strategy: str | None, rows: int, cores: int) -> RunFolder:
    """The finished run of `arm` in a folder of its own."""
    out = Path(tempfile.mkdtemp()) / "study"
    team = ("--launch", "torchrun", "--nproc", str(n), "--strategy", strategy) if strategy else ()
    subprocess.run(
        [
            *(sys.executable, "-m", "lorastudy", "run", "demo", "--out", str(out), "--offline"),
            *("--device", "cpu", "--arm", arm, "--seed", "0", "--set", "training.epochs=1"),
            *("--set", f"training.rows_per_step={rows}", "--set", f"training.micro_batch={rows}"),
            *("--set", "benchmarks=[]", "--jobs", str(max(1, cores // n)), *team),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (path,) = (out / "runs").glob(f"{arm}-s0-*")
    return RunFolder(path)


def measure_speed(run: RunFolder) -> float:
    """Scored tokens a second over all steps but the first ones."""
    steps = read_records(run.steps, StepRecord)[N_FIRST:]
    return sum(step.n_tokens for step in steps) / sum(step.seconds for step in steps)


if __name__ == "__main__":
    main()
