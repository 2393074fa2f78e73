"""Try an arm before the study: does it fit into memory, and how long will it take?

For memory, two optimizer steps are taken (the moments exist after the first one), each with the
longest training rows in one micro-batch; the longest rows are evaluated, and a checkpoint is
written. For time, the first steps of the run are taken as the run would take them, and a little of
validation and of each benchmark is scored. All of it happens in a temporary folder, which is
deleted again.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lorastudy import faults
from lorastudy.config.spec import RunSpec
from lorastudy.data.rows import IntArray, RowTable
from lorastudy.evaluate.score import MAX_POSITIONS, score_rows
from lorastudy.machine.memory import (
    CpuTimes,
    measure_peak_memory,
    read_cpu_times,
    start_memory_meter,
)
from lorastudy.run.commit import commit_checkpoint
from lorastudy.run.context import RunContext
from lorastudy.run.inputs import Reader
from lorastudy.run.resume import restore_best
from lorastudy.run.scores import score_benchmark_rows
from lorastudy.run.setup import RunSetup, set_up_run
from lorastudy.run.tasks import AskedModel, TaskItems, time_answers
from lorastudy.run.training import publish_best
from lorastudy.store.folders import RunFolder
from lorastudy.store.training_state import Progress, TrainerState
from lorastudy.train.groups import TrainingInputs
from lorastudy.train.loop import StepDone, train

_PROBED_STEPS = 2
TIMED_STEPS = 20
_FIRST_STEPS = 2  # slower than the others: libraries prepare products and allocate memory
_SCORED_TOKENS = 4 * MAX_POSITIONS  # of each table, or all of a smaller one

_TIMED_ITEMS = 8  # of each task


@dataclass(frozen=True, slots=True)
class ProbedSeconds:
    """What a run needs seconds for, each measured on a little of it."""

    set_up: float  # read inputs, load the model, attach the adapter
    first_steps: float  # what the first steps took longer than the others
    per_target: float  # of training, all that a step does included
    per_validated_token: float
    per_answered_token: float  # of items that choose the best weights; 0 without them
    checkpoint: float
    best: float  # publish the best epoch
    restore: float  # load it again, at the end of training
    per_scored_token: dict[str, float]  # by "<benchmark>--<protocol>"
    waited_share: float | None = None  # of the time of training steps, for the CPU; None: unknown


def probe_arm(spec: RunSpec, reader: Reader, device: torch.device) -> dict[str, int]:
    """Peak bytes of the arm by kind (see `measure_peak_memory`); nothing is left behind.

    Raises:
        torch.OutOfMemoryError, MemoryError: It does not fit.
    """
    with _set_up_in_scratch(spec, reader, device) as (context, setup):
        _try_longest(context, setup)
    return measure_peak_memory(device)


def time_arm(
    spec: RunSpec, reader: Reader, device: torch.device, *, began: float
) -> tuple[dict[str, int], ProbedSeconds]:
    """As `probe_arm`, and the seconds of a run's parts; `began`: when its process started.

    Raises:
        torch.OutOfMemoryError, MemoryError: It does not fit.
        DivergedError: A loss of the first steps is not finite.
    """
    with _set_up_in_scratch(spec, reader, device) as (context, setup):
        set_up = time.perf_counter() - began
        cpu_times = read_cpu_times()
        first_steps, per_target = _time_steps(setup)
        waited_share = _measure_waited(cpu_times, read_cpu_times())
        best, restore = _time_best(context, setup)
        seconds = ProbedSeconds(
            set_up=set_up,
            first_steps=first_steps,
            per_target=per_target,
            per_validated_token=_time_validation(context, setup) if setup.inputs else 0.0,
            per_answered_token=_time_answers(context, setup) if setup.inputs else 0.0,
            checkpoint=_time_checkpoint(context, setup),
            best=best,
            restore=restore,
            per_scored_token=_time_scores(context, setup),
            waited_share=waited_share,
        )
        _try_longest(context, setup)
    return measure_peak_memory(device), seconds


@contextmanager
def _set_up_in_scratch(
    spec: RunSpec, reader: Reader, device: torch.device
) -> Iterator[tuple[RunContext, RunSetup]]:
    """The run in memory, with a folder that is deleted afterwards."""
    start_memory_meter(device)
    with tempfile.TemporaryDirectory() as scratch:
        context = RunContext(
            spec=spec, folder=RunFolder(Path(scratch)), reader=reader, device=device
        )
        yield context, set_up_run(context)


def _try_longest(context: RunContext, setup: RunSetup) -> None:
    """What needs the most memory: the longest rows, trained and scored, and a checkpoint."""
    if setup.inputs is not None:
        for _ in range(_PROBED_STEPS):
            _take_step(setup.inputs)
    _score_longest(context, setup)
    _write_checkpoint(context, setup)


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


def _write_checkpoint(context: RunContext, setup: RunSetup) -> None:
    if setup.inputs is not None:
        state = TrainerState(total_seconds=0.0, peak_memory_bytes={}, ended_epoch=None)
        commit_checkpoint(context, setup, state)


def _time_steps(setup: RunSetup) -> tuple[float, float]:
    """Seconds that the first steps took longer, and seconds per target of the others."""
    if setup.inputs is None:
        return 0.0, 0.0
    setup.inputs.model.network.train()
    done = []
    for event in train(setup.inputs, Progress()):
        done += [event.record] if isinstance(event, StepDone) else []
        if len(done) == TIMED_STEPS:
            break
    setup.inputs.optimizer.zero_grad(set_to_none=True)
    usual = done[_FIRST_STEPS:] or done
    per_target = sum(step.seconds for step in usual) / sum(step.n_tokens for step in usual)
    first = done[:_FIRST_STEPS]
    late = sum(step.seconds for step in first) - per_target * sum(s.n_tokens for s in first)
    return max(0.0, late), per_target


def _measure_waited(before: CpuTimes | None, now: CpuTimes | None) -> float | None:
    if before is None or now is None:
        return None
    used = now - before
    ready = used.ran_seconds + used.waited_seconds
    return used.waited_seconds / ready if ready > 0 else None


def _time_validation(context: RunContext, setup: RunSetup) -> float:
    """Seconds per token that is validated; a first, smaller part is not counted."""
    layout = setup.layout
    for n_tokens in (MAX_POSITIONS // 4, _SCORED_TOKENS):
        table = _spread(layout.validation_table, n_tokens)
        scores = score_rows(
            setup.scorer,
            layout.validation_corpus.tokens,
            table,
            layout.padding,
            device=context.device,
        )
    return scores.seconds / table.n_tokens()


def _time_answers(context: RunContext, setup: RunSetup) -> float:
    items = setup.layout.items_of_best
    return 0.0 if items is None else _time_items(items, setup, context)


def _time_scores(context: RunContext, setup: RunSetup) -> dict[str, float]:
    """Seconds per scored token of each benchmark under each protocol."""
    found = {}
    for benchmark in context.spec.benchmarks:
        for protocol in benchmark.protocols:
            rows = context.reader.benchmark_part(benchmark, protocol, context.spec.data.rows)
            if isinstance(rows, TaskItems):
                found[f"{benchmark.name}--{protocol}"] = _time_items(rows, setup, context)
                continue
            part = replace(rows, table=_spread(rows.table, _SCORED_TOKENS))
            scores = score_benchmark_rows(setup.scorer, part, context.device)
            found[f"{benchmark.name}--{protocol}"] = scores.seconds / part.table.n_tokens()
    return found


def _time_items(items: TaskItems, setup: RunSetup, context: RunContext) -> float:
    """Seconds per token that is read or may be generated, from the first few items."""
    part = items.first(_TIMED_ITEMS)
    return time_answers(part, AskedModel(setup.scorer, context.device))[1] / part.n_positions


def _spread(table: RowTable, n_tokens: int) -> RowTable:
    """Rows of all lengths of `table`, with about `n_tokens` tokens; all of a smaller table."""
    n_rows = min(table.n_rows, max(1, round(table.n_rows * n_tokens / table.n_tokens())))
    by_length = np.argsort(table.lengths, kind="stable")
    middles = (np.arange(n_rows) + 0.5) * table.n_rows / n_rows
    return table.select(np.sort(by_length[middles.astype(np.int64)]))


def _time_checkpoint(context: RunContext, setup: RunSetup) -> float:
    began = time.perf_counter()
    _write_checkpoint(context, setup)
    return time.perf_counter() - began


def _time_best(context: RunContext, setup: RunSetup) -> tuple[float, float]:
    """Seconds of publishing the weights of the best epoch, and of loading them."""
    if setup.inputs is None:
        return 0.0, 0.0
    began = time.perf_counter()
    publish_best(context, setup)
    published = time.perf_counter()
    restore_best(setup, context.folder)
    return published - began, time.perf_counter() - published
