"""Does an arm fit into memory? This is tried before the study, on the largest possible step.

The trial takes two optimizer steps (the moments exist after the first one), each with the longest
training rows in one micro-batch, evaluates the longest rows, and writes a checkpoint that is
deleted again.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from lorastudy import faults
from lorastudy.config.spec import RunSpec
from lorastudy.data.rows import IntArray, RowTable
from lorastudy.evaluate.score import score_rows
from lorastudy.machine.memory import measure_peak_memory, start_memory_meter
from lorastudy.run.commit import commit_checkpoint
from lorastudy.run.context import RunContext
from lorastudy.run.inputs import Reader
from lorastudy.run.setup import RunSetup, set_up_run
from lorastudy.store.folders import RunFolder
from lorastudy.store.training_state import TrainerState
from lorastudy.train.groups import TrainingInputs

_PROBED_STEPS = 2


def probe_arm(spec: RunSpec, reader: Reader, device: torch.device) -> dict[str, int]:
    """Peak bytes of the arm by kind (see `measure_peak_memory`); nothing is left behind.

    Raises:
        torch.OutOfMemoryError, MemoryError: It does not fit.
    """
    start_memory_meter(device)
    with tempfile.TemporaryDirectory() as scratch:
        context = RunContext(
            spec=spec, folder=RunFolder(Path(scratch)), reader=reader, device=device
        )
        setup = set_up_run(context)
        if setup.inputs is not None:
            for _ in range(_PROBED_STEPS):
                _take_step(setup.inputs)
        _score_longest(context, setup)
        if setup.inputs is not None:
            state = TrainerState(total_seconds=0.0, peak_memory_bytes={}, ended_epoch=None)
            commit_checkpoint(context, setup, state)
    return measure_peak_memory(device)


def _take_step(inputs: TrainingInputs) -> None:
    """One step at learning rate zero on the longest rows, all in one micro-batch."""
    rows = _longest(inputs.table, inputs.settings.micro_batch)
    inputs.model.network.train()
    for batch, _ in inputs.batches(rows):
        nats = inputs.scorer.sum_nats(batch.to(inputs.device))
        faults.hit("probe:after-forward")
        (nats / batch.n_scored).backward()
    for group in inputs.optimizer.param_groups:
        group["lr"] = 0.0
    inputs.optimizer.step()
    inputs.optimizer.zero_grad(set_to_none=True)


def _score_longest(context: RunContext, setup: RunSetup) -> None:
    layout = setup.layout
    longest = _longest(layout.validation_table, context.spec.training.micro_batch)
    score_rows(
        setup.scorer,
        layout.validation_corpus.tokens,
        layout.validation_table.select(longest),
        layout.padding,
        device=context.device,
    )


def _longest(table: RowTable, n_rows: int) -> IntArray:
    return np.argsort(table.lengths)[-n_rows:].astype(np.int64)
