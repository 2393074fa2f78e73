"""Does an arm fit in memory? Tried before the study on the largest thing that can come up.

The longest rows of the training split in one micro-batch, two optimizer steps (the moments exist
after the first), an evaluation of the longest rows, and a checkpoint, which is thrown away.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from lorastudy import faults
from lorastudy.config.spec import RunSpec
from lorastudy.data.rows import IntArray, RowTable
from lorastudy.evaluate.score import score_rows
from lorastudy.interrupts import StopFlag
from lorastudy.machine.memory import measure_peak_memory, start_memory_meter
from lorastudy.run.inputs import Reader
from lorastudy.run.setup import RunSetup, set_up_run
from lorastudy.run.training import TrainingSession
from lorastudy.store.folders import RunFolder

_PROBED_STEPS = 2


def probe_arm(spec: RunSpec, reader: Reader, device: torch.device) -> dict[str, int]:
    """Peak bytes of the arm by kind (see `measure_peak_memory`); nothing is left behind.

    Raises:
        torch.OutOfMemoryError, MemoryError: It does not fit.
    """
    start_memory_meter(device)
    setup = set_up_run(spec, reader, device)
    for _ in range(_PROBED_STEPS if setup.inputs is not None else 0):
        _take_step(setup)
    layout = setup.layout
    longest = _longest(layout.validation_table, spec.training.micro_batch)
    score_rows(
        setup.scorer,
        layout.validation_corpus.tokens,
        layout.validation_table.select(longest),
        layout.padding,
        device=device,
    )
    if setup.inputs is not None:
        with tempfile.TemporaryDirectory() as scratch:
            folder = RunFolder(Path(scratch))
            session = TrainingSession(folder, setup, StopFlag(), identity=spec.identity)
            session.checkpoint(None)
    return measure_peak_memory(device)


def _take_step(setup: RunSetup) -> None:
    """One step at rate zero on the longest rows, all of them in one micro-batch."""
    inputs = setup.inputs
    assert inputs is not None
    rows = _longest(inputs.table, inputs.settings.micro_batch)
    inputs.model.network.train()
    for batch, _ in inputs.batches(rows):
        nats = setup.scorer.sum_nats(batch.to(setup.device))
        faults.hit("probe:after-forward")
        (nats / batch.n_scored).backward()
    for group in inputs.optimizer.param_groups:
        group["lr"] = 0.0
    inputs.optimizer.step()
    inputs.optimizer.zero_grad(set_to_none=True)


def _longest(table: RowTable, n_rows: int) -> IntArray:
    return np.argsort(table.lengths)[-n_rows:].astype(np.int64)
