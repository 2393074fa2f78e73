"""Seconds of a training step, on a quiet machine and beside busy processes, by how threads wait.

    python busy.py [--busy 0 2] [--rounds 2] [--steps 30] [--limit 30] [--spin 5000 50000 ...]
                   [--same-session]

A setting is a fresh `lorastudy run demo` of one LoRA run, stopped after `--steps` optimizer steps
or `--limit` seconds. The settings take turns, first with none and then with two processes that
compute without end. A row is the median over rounds of the median step, with the rounds' range.

Linux may share the cores between sessions first, and then within each (its autogroups). A run has a
session of its own, as in a terminal of its own, or with `--same-session` that of the busy
processes, as where all were started from one shell.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple


class Setting(NamedTuple):
    """How a run's threads are told to wait, and where they may be."""

    environment: dict[str, str]  # that is added
    options: tuple[str, ...] = ()  # of the command
    cores: frozenset[int] = frozenset()  # that the process may use; empty: all


SETTINGS = {
    "two, that spin while the cores are free (default)": Setting({}),
    "two, that sleep at once": Setting({"OMP_WAIT_POLICY": "PASSIVE"}),
    "two, on one core": Setting({"OMP_NUM_THREADS": "2"}, ("--threads", "2"), frozenset({0})),
    "one": Setting({}, ("--threads", "1")),
}
LORASTUDY = (sys.executable, "-m", "lorastudy", "run", "demo", "--arm", "lora-2", "--seed", "0")
FIRST = 3  # the step from which steps are counted: the first ones allocate memory
POLL_SECONDS = 0.1


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """While the block lasts, `number` processes compute without end."""
    processes = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


class Run(NamedTuple):
    """Until when a run trains, and in which session."""

    n_steps: int
    limit: float  # seconds of training
    has_own_session: bool


def measure(setting: Setting, run: Run) -> list[float]:
    """Seconds of the steps that one run takes until it is stopped, without the first ones."""
    cores = setting.cores or os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "study"
        process = subprocess.Popen(
            [*LORASTUDY, "--out", str(out), *setting.options],
            env={**os.environ, **setting.environment},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=run.has_own_session,
            process_group=None if run.has_own_session else 0,
        )
        try:
            wait_for_steps(process, out, run.n_steps, run.limit)
            return read_seconds(out)[FIRST - 1 :]
        finally:
            end(process)


def wait_for_steps(process: subprocess.Popen[bytes], out: Path, n_steps: int, limit: float) -> None:
    """Wait until there are `n_steps`, or for `limit` seconds of training."""
    began = None
    while process.poll() is None:
        n_done = len(read_seconds(out))
        if n_done and began is None:
            began = time.monotonic()
        if n_done >= n_steps or (began is not None and time.monotonic() - began > limit):
            return
        time.sleep(POLL_SECONDS)


def read_seconds(out: Path) -> list[float]:
    """Seconds of each step so far."""
    lines = [path.read_bytes() for path in out.glob("runs/*/steps.jsonl")]
    whole = [line for text in lines for line in text.split(b"\n")[:-1]]
    return [json.loads(line)["seconds"] for line in whole]


def end(process: subprocess.Popen[bytes]) -> None:
    """Let the run stop at a checkpoint, and end whatever is left of it after that."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(60)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def describe(rounds: list[list[float]]) -> str:
    """Milliseconds per step as a cell: the median over rounds and their range, and the steps."""
    middles = [statistics.median(steps) * 1000 for steps in rounds if steps]
    if not middles:
        return "no three steps within the limit | 0"
    cells = f"{statistics.median(middles):,.0f} ({min(middles):,.0f}, {max(middles):,.0f})"
    return f"{cells} | {min(map(len, rounds))}"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--limit", type=float, default=30.0, help="seconds of a run's training")
    parser.add_argument("--spin", type=int, nargs="*", default=[], help="further GOMP_SPINCOUNTs")
    parser.add_argument("--same-session", action="store_true")
    given = parser.parse_args()
    for count in given.spin:
        SETTINGS[f"threads spin {count:,} times"] = Setting({"GOMP_SPINCOUNT": str(count)})
    run = Run(given.steps, given.limit, has_own_session=not given.same_session)
    print_table(run, given.busy, given.rounds)


def print_table(run: Run, busy: list[int], n_rounds: int) -> None:
    """Measure every setting beside each number of busy processes, and print a row of each."""
    print("| busy processes | threads | ms per step, median (lowest, highest) | steps at least |")
    print("|--:|---|---|--:|", flush=True)
    for n_busy in busy:
        found: dict[str, list[list[float]]] = {name: [] for name in SETTINGS}
        with busy_processes(n_busy):
            for _ in range(n_rounds):
                for name, rounds in found.items():
                    rounds.append(measure(SETTINGS[name], run))
        for name, rounds in found.items():
            print(f"| {n_busy} | {name} | {describe(rounds)} |", flush=True)


if __name__ == "__main__":
    main()
