"""R11: what it costs that nothing is lost, as a share of a run's time.

    ./run python benchmarks/reliability/durability.py

Trains one LoRA arm of the demo in this process and counts the seconds inside lines, checkpoints and
the best epoch: writing, hashing, fsync and renames. All of it counts as overhead, though any
program writes its weights somehow, so the share is an upper bound.
"""

import platform
import sys
import tempfile
import time
from pathlib import Path

import torch

from lorastudy import __version__
from lorastudy.config.spec import expand_study
from lorastudy.config.study_file import load_study, preset_text
from lorastudy.model.base import quieten_libraries
from lorastudy.run import commit, training
from lorastudy.run.context import RunContext
from lorastudy.run.execute import execute_run
from lorastudy.store.folders import StudyFolder
from lorastudy.store.places import Places, default_cache
from lorastudy.study.check import check_study

TIMED = ("append_record", "write_checkpoint", "publish_folder", "flush_to_disk")


def main() -> None:
    """Measure and print the row."""
    quieten_libraries()
    study = load_study(preset_text("demo"), "demo", sys.argv[1:])
    device = torch.device("cpu")
    places = Places(Path.cwd(), offline=True, cache=default_cache())
    checked = check_study(study, places, device)
    spec = next(run for run in expand_study(study) if run.arm.method == "lora")
    seconds = dict.fromkeys(TIMED, 0.0)
    for module in (commit, training):
        for name in set(TIMED) & set(vars(module)):
            setattr(module, name, timed(getattr(module, name), name, seconds))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        run = StudyFolder(Path(folder)).run(spec.run_id)
        began = time.perf_counter()
        result = execute_run(
            RunContext(spec=spec, folder=run, reader=checked.reader, device=device)
        )
        total = time.perf_counter() - began
    spent = sum(seconds.values())
    parts = ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
    print(
        f"R11 | {spent / total:.2%} of {total:.1f} s ({result.optimizer_steps} steps; {parts}) | "
        f"lorastudy {__version__}, torch {torch.__version__}, {platform.machine()}"
    )


def timed(function, name: str, seconds: dict[str, float]):  # noqa: ANN001, ANN201
    """`function`, its seconds added to `seconds[name]`."""

    def call(*arguments: object, **named: object) -> object:
        began = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            seconds[name] += time.perf_counter() - began

    return call


if __name__ == "__main__":
    main()
