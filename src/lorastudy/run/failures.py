"""The record of a run that could not finish: a row of the report like any other."""

import gc
from contextlib import suppress

import torch

from lorastudy.config.spec import RunSpec
from lorastudy.errors import (
    DivergedError,
    OutOfMemoryError,
    StorageError,
    UserError,
    is_out_of_memory,
    redact_secrets,
)
from lorastudy.machine.memory import describe_shortage, measure_peak_memory
from lorastudy.store.folders import RunFolder
from lorastudy.store.lines import read_records
from lorastudy.store.records import RunResult, Status, StepRecord

_LAST_LOSSES = 3  # enough to see whether it rose or jumped


def describe_failure(
    spec: RunSpec, folder: RunFolder, error: BaseException, device: torch.device
) -> RunResult:
    """The row of a run that could not finish, with its reason and exit code."""
    status: Status = "failed"
    reason = str(error).strip() or type(error).__name__
    exit_code = error.exit_code if isinstance(error, UserError) else 1
    if isinstance(error, DivergedError):
        status = "diverged"
        reason += _last_losses(folder)
    elif is_out_of_memory(error):
        status, exit_code = "out-of-memory", OutOfMemoryError.exit_code
        reason = describe_shortage_of_run(spec, folder, device)
    elif not isinstance(error, UserError):
        reason = f"{type(error).__name__}: {reason}"
    return RunResult.of(
        spec,
        status=status,
        reason=redact_secrets(reason),
        peak_memory_bytes=measure_peak_memory(device),
        exit_code=exit_code,
    )


def describe_shortage_of_run(spec: RunSpec, folder: RunFolder, device: torch.device) -> str:
    """How much memory was missing, and two commands to choose from."""
    gc.collect()
    study = folder.path.parent.parent
    if spec.data.is_elsewhere:
        return (
            f"{device} ran out of memory ({describe_shortage(device)}). When memory is free again, "
            "run the same command again; with --device cpu it scores in main memory."
        )
    lower = max(1, spec.training.micro_batch // 2)
    return (
        f"{device} ran out of memory ({describe_shortage(device)}). "
        f"When memory is free again:  lorastudy run {study}  "
        "Or with a smaller training.micro_batch, for all arms and in a new folder:  "
        f"lorastudy run {study / 'study.yaml'} --out {study}-micro-batch-{lower} "
        f"--set training.micro_batch={lower}"
    )


def _last_losses(folder: RunFolder) -> str:
    with suppress(StorageError):
        steps = read_records(folder.steps, StepRecord)[-_LAST_LOSSES:]
        if steps:
            losses = ", ".join(f"{step.loss:.4g}" for step in steps)
            return f" Losses of the last steps before it: {losses}."
    return ""
