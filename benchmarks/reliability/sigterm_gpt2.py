"""R7: seconds from SIGTERM to a durable checkpoint, for LoRA and full fine-tuning of GPT-2's size.

    ./run python benchmarks/reliability/sigterm_gpt2.py

The model has the shape of GPT-2 124M and random weights (nothing is downloaded); rows have 64
tokens, so that a CPU takes a step in seconds. SIGTERM comes in the forward of the second step.
"""

import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from lorastudy import __version__, faults
from lorastudy.config.spec import expand_study
from lorastudy.config.study_file import load_study
from lorastudy.errors import InterruptedRunError
from lorastudy.interrupts import StopFlag
from lorastudy.model.base import quieten_libraries
from lorastudy.run.context import RunContext
from lorastudy.run.execute import execute_run
from lorastudy.store.checkpoints import find_damage, list_checkpoints
from lorastudy.store.folders import StudyFolder
from lorastudy.store.places import Places, default_cache
from lorastudy.study.check import check_study

STUDY = """
name: sigterm
base_model: {{path: "{base}"}}
data:
  train: {{builtin: python-reference, split: train, limit: 64}}
  validation: {{builtin: python-reference, split: validation, limit: 4}}
  rows: {{cut: lines, length: 64}}
training: {{epochs: 1, rows_per_step: 4, micro_batch: 4, optimizer: {{name: adamw}}}}
seeds: [0]
arms:
  - {{name: lora, method: lora, placement: [attention, projection], rank: 16, alpha: 32,
     learning_rates: [1.0e-3]}}
  - {{name: full, method: full, learning_rates: [1.0e-4]}}
benchmarks: []
"""


def main() -> None:
    """Measure and print the row."""
    quieten_libraries()
    demo = Path(sys.modules["lorastudy"].__path__[0]) / "demo" / "base"
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        base = Path(scratch) / "base"
        GPT2LMHeadModel(GPT2Config()).save_pretrained(base)
        AutoTokenizer.from_pretrained(demo).save_pretrained(base)
        study = load_study(STUDY.format(base=base), "sigterm")
        device = torch.device("cpu")
        places = Places(Path(scratch), offline=True, cache=default_cache())
        checked = check_study(study, places, device)
        for spec in expand_study(study):
            seconds = stop_in_second_step(spec, Path(scratch), checked.reader, device)
            print(
                f"R7 | {spec.arm.name}: {seconds:.1f} s | lorastudy {__version__}, "
                f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores"
            )


def stop_in_second_step(spec, folder: Path, reader, device: torch.device) -> float:  # noqa: ANN001
    """Seconds from the signal to the end of the run, whose checkpoint is sound."""
    run, stop, count, asked = StudyFolder(folder).run(spec.run_id), StopFlag(), [0], [0.0]
    stop.listen()

    def handler(point: str) -> None:
        if point == "train:after-forward":
            count[0] += 1
            if count[0] == 2:
                asked[0] = time.perf_counter()
                os.kill(os.getpid(), signal.SIGTERM)

    faults.handler = handler
    try:
        execute_run(RunContext(spec=spec, folder=run, reader=reader, device=device, stop=stop))
    except InterruptedRunError:
        seconds = time.perf_counter() - asked[0]
    (checkpoint,) = list_checkpoints(run.checkpoints)
    assert not find_damage(checkpoint)
    return seconds


if __name__ == "__main__":
    main()
