"""Execute one run; read `execute_run` from top to bottom.

Claim the folder, load what is needed, write the manifest, train, reload the best epoch,
score every protocol, write `result.json` last. Whatever goes wrong is kept as a row too.
"""

import gc
import time

import torch

from lorastudy.errors import DivergedError, InterruptedRunError, OutOfMemoryError, UserError
from lorastudy.inputs import Reader
from lorastudy.interrupts import StopFlag
from lorastudy.resources import measure_peak_memory, start_memory_meter
from lorastudy.run.scores import score_benchmarks
from lorastudy.run.setup import RunSetup, set_up_run
from lorastudy.run.training import TrainingSession, restore_best
from lorastudy.spec import RunSpec
from lorastudy.store.files import write_record
from lorastudy.store.folders import RunFolder
from lorastudy.store.records import EpochRecord, EvaluationRecord, RunResult, Status


def execute_run(
    spec: RunSpec, folder: RunFolder, reader: Reader, device: torch.device, stop: StopFlag
) -> RunResult:
    """Do what is left of a run and return its result; a finished run is only read.

    Raises:
        OwnedError: Another process executes it.
        InterruptedRunError: A signal came; the same call continues.
        UserError: It failed; `failure.json` says why.
    """
    with folder.claim():
        known = folder.read_result()
        if known is not None and known.status == "done":
            return known
        folder.failure.unlink(missing_ok=True)
        write_record(folder.spec, spec)
        try:
            result = _train_and_score(spec, folder, reader, device, stop)
        except InterruptedRunError:
            raise
        except Exception as error:
            failure = describe_failure(spec, error, device)
            write_record(folder.failure, failure)
            if failure.status == "out-of-memory":
                raise OutOfMemoryError(str(failure.reason)) from error
            raise
        write_record(folder.result, result)
        return result


def _train_and_score(
    spec: RunSpec, folder: RunFolder, reader: Reader, device: torch.device, stop: StopFlag
) -> RunResult:
    began = time.perf_counter()
    start_memory_meter(device)
    setup = set_up_run(spec, reader, device)
    if setup.inputs is None:
        write_record(folder.manifest, setup.manifest)
        evaluations = score_benchmarks(spec, folder, reader, setup, stop)
        return _describe_result(
            spec,
            setup,
            evaluations,
            total_seconds=time.perf_counter() - began,
            peak_memory_bytes=measure_peak_memory(device),
        )
    session = TrainingSession(folder, setup, stop)
    session.resume()
    write_record(folder.manifest, setup.manifest)
    epochs = session.run()
    trained_peak = session.peak_memory_bytes  # training and validation, as in the study
    restore_best(setup, folder)
    evaluations = score_benchmarks(spec, folder, reader, setup, stop)
    return _describe_result(
        spec,
        setup,
        evaluations,
        epochs=epochs,
        train_seconds=session.progress.seconds,
        train_tokens=session.progress.n_tokens,
        total_seconds=session.total_seconds,
        peak_memory_bytes=trained_peak,
    )


def _describe_result(
    spec: RunSpec,
    setup: RunSetup,
    evaluations: tuple[EvaluationRecord, ...],
    *,
    total_seconds: float,
    peak_memory_bytes: dict[str, int],
    epochs: tuple[EpochRecord, ...] = (),
    train_seconds: float | None = None,
    train_tokens: int | None = None,
) -> RunResult:
    manifest = setup.manifest
    best = min(epochs, key=lambda e: (e.validation_loss, e.epoch), default=None)
    return RunResult(
        run_id=spec.run_id,
        arm=spec.arm.name,
        method=spec.arm.method,
        seed=spec.seed,
        learning_rate=spec.learning_rate,
        status="done",
        trainable_parameters=manifest.trainable_parameters,
        total_parameters=manifest.total_parameters,
        adapted_modules=len(manifest.modules),
        best_epoch=best.epoch if best else None,
        optimizer_steps=manifest.optimizer_steps,
        epochs=epochs,
        train_seconds=train_seconds,
        total_seconds=total_seconds,
        train_tokens=train_tokens,
        tokens_per_second=train_tokens / train_seconds if train_tokens and train_seconds else None,
        steps_per_second=manifest.optimizer_steps / train_seconds if train_seconds else None,
        peak_memory_bytes=peak_memory_bytes,
        device=manifest.environment.device,
        precision=manifest.environment.precision,
        evaluations=evaluations,
    )


def describe_failure(spec: RunSpec, error: BaseException, device: torch.device) -> RunResult:
    """The row of a run that could not finish, with its reason."""
    status: Status = "failed"
    reason = str(error).strip() or type(error).__name__
    if isinstance(error, DivergedError):
        status = "diverged"
    elif isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        status = "out-of-memory"
        gc.collect()
        reason = (
            f"{device} ran out of memory (peak bytes: {measure_peak_memory(device)}). "
            "Lower training.micro_batch for all arms in a new study, or free the device and "
            "run the same command again."
        )
    elif not isinstance(error, UserError):
        reason = f"{type(error).__name__}: {reason}"
    return RunResult(
        run_id=spec.run_id,
        arm=spec.arm.name,
        method=spec.arm.method,
        seed=spec.seed,
        learning_rate=spec.learning_rate,
        status=status,
        reason=reason,
        peak_memory_bytes=measure_peak_memory(device),
    )
