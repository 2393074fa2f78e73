"""Execute one run; read `execute_run` from top to bottom.

Claim the folder, load what is needed, write the manifest, train, reload the best epoch,
score every protocol, write `result.json` last. A failure is recorded as a row too.

The first member of a team does this. The others take the same steps (`join_run`) and write nothing.
"""

import hashlib
import sys
import time
from dataclasses import replace

from lorastudy.config.spec import RunSpec
from lorastudy.errors import InterruptedRunError, OutOfMemoryError, StorageError
from lorastudy.machine.memory import measure_peak_memory, measure_resident, start_memory_meter
from lorastudy.machine.team import name_losses
from lorastudy.machine.waiting import sleep_beside_others
from lorastudy.run.context import RunContext
from lorastudy.run.drift import settle_drift
from lorastudy.run.elsewhere import prepare_scoring
from lorastudy.run.failures import describe_failure
from lorastudy.run.held import count_held
from lorastudy.run.meter import RunMeter
from lorastudy.run.resume import go_back_to_checkpoint, restore_best
from lorastudy.run.samples import write_samples
from lorastudy.run.scores import score_benchmarks
from lorastudy.run.served import score_served
from lorastudy.run.setup import set_up_run
from lorastudy.run.training import Trained, TrainingSession, measure_waited_share
from lorastudy.store.files import write_record
from lorastudy.store.folders import RunFolder
from lorastudy.store.hashes import hash_files, write_hashes
from lorastudy.store.memory_parts import HeldMemory
from lorastudy.store.records import (
    EpochRecord,
    EvaluationRecord,
    Manifest,
    RunResult,
    ServedScore,
    ValidationRecord,
)
from lorastudy.store.training_state import Progress
from lorastudy.store.written import forget_written

_CHANGING = ("checkpoints/", "quarantine/", "log.txt", "failure.json")  # not of the result


def execute_run(context: RunContext) -> RunResult:
    """Execute what remains of a run and return its result; a finished run is only read.

    Raises:
        OwnedError: Another process executes the run.
        InterruptedRunError: A signal came; the same call continues.
        UserError: The run failed; `failure.json` says why.
    """
    spec, folder, team = context.spec, context.folder, context.team
    with folder.claim() as abandoned:
        known = _read_known(folder, is_restarted=context.resuming.restart)
        if team.any(known is not None and known.status == "done"):
            assert known is not None
            return known
        if abandoned is not None:
            print(
                f"{spec.run_id}: taken over from process {abandoned.pid} on {abandoned.host}, "
                "which ended without releasing it.",
                file=sys.stderr,
            )
        folder.reopen()
        if context.resuming.restart:
            folder.set_aside()
        write_record(folder.spec, spec)
        try:
            with name_losses(), sleep_beside_others():
                team.wait()  # until here the other members do not touch the folder
                result = _train_and_score(context)
        except InterruptedRunError:
            raise
        except Exception as error:
            failure = describe_failure(spec, folder, error, context.device)
            folder.write_failure(failure)
            if failure.status == "out-of-memory":
                raise OutOfMemoryError(str(failure.reason)) from error
            raise
        _write_result(folder, result)
        return result


def _read_known(folder: RunFolder, *, is_restarted: bool) -> RunResult | None:
    """The result so far; a damaged one is refused, unless the run is to start again."""
    try:
        return folder.read_result()
    except StorageError:
        if is_restarted:
            return None
        raise


def join_run(context: RunContext) -> None:
    """Take part as a member of a team whose first member is in `execute_run`.

    Raises:
        UserError: As in `execute_run`.
    """
    with name_losses(), sleep_beside_others():
        if context.team.any(False):
            return
        context.team.wait()
        _train_and_score(context)


def _train_and_score(context: RunContext) -> RunResult:
    spec, folder = context.spec, context.folder
    if context.team.is_first:
        folder.refuse_rewritten()
    began = time.perf_counter()
    start_memory_meter(context.device)
    before = measure_resident()
    if spec.data.is_elsewhere:
        return _score_only(context)
    setup = set_up_run(context)
    context.stop.poll()
    manifest = settle_drift(folder, setup.manifest, allow_drift=context.resuming.allow_drift)
    setup = replace(setup, manifest=manifest)
    if setup.inputs is None:
        _write_manifest(context, manifest)
        evaluations = score_benchmarks(context, setup.scorer)
        write_samples(context, setup)
        return _describe_result(
            spec,
            manifest,
            evaluations,
            total_seconds=time.perf_counter() - began,
            peak_memory_bytes=measure_peak_memory(context.device),
        )
    meter = RunMeter(
        context=context,
        began=time.perf_counter(),
        before=go_back_to_checkpoint(context, setup),
    )
    _write_manifest(context, manifest)
    trained = TrainingSession(context, setup, meter).run()
    # training, validation and checkpoints, as in the published study
    trained_peak, trained_seconds = meter.peak_memory_bytes, meter.total_seconds
    is_alone, optimizer = context.team.size == 1, setup.inputs.optimizer
    held = count_held(setup.model, optimizer, context.device, before) if is_alone else None
    restore_best(setup, folder)
    evaluations = score_benchmarks(context, setup.scorer)
    write_samples(context, setup)
    return _describe_result(
        spec,
        manifest,
        evaluations,
        trained=trained,
        train_and_validate_seconds=trained_seconds,
        total_seconds=meter.total_seconds,
        waited_share=measure_waited_share(folder),
        peak_memory_bytes=trained_peak,
        held=held,
        served=score_served(context),
    )


def _score_only(context: RunContext) -> RunResult:
    """The run of a model that was trained elsewhere: no steps, epochs, seconds or memory."""
    prepared = prepare_scoring(context)
    context.stop.poll()
    allow_drift = context.resuming.allow_drift
    manifest = settle_drift(context.folder, prepared.manifest, allow_drift=allow_drift)
    _write_manifest(context, manifest)
    return _describe_result(context.spec, manifest, score_benchmarks(context, prepared.scorer))


def _write_manifest(context: RunContext, manifest: Manifest) -> None:
    if context.team.is_first:
        forget_written(context.folder.path)  # its notes may be those of an earlier manifest
        write_record(context.folder.manifest, manifest)
        context.folder.note_written()


def _write_result(folder: RunFolder, result: RunResult) -> None:
    """Write the hashes of all files that remain, and the result itself as the last file."""
    files = {
        name: digest
        for name, digest in hash_files(folder.path).items()
        if not name.startswith(_CHANGING)
    }
    text = result.model_dump_json(indent=1) + "\n"
    files[folder.result.name] = hashlib.sha256(text.encode()).hexdigest()
    write_hashes(folder.path, files)
    write_record(folder.result, result)


def _describe_result(
    spec: RunSpec,
    manifest: Manifest,
    evaluations: tuple[EvaluationRecord, ...],
    *,
    total_seconds: float | None = None,
    peak_memory_bytes: dict[str, int] | None = None,
    trained: Trained | None = None,
    train_and_validate_seconds: float | None = None,
    waited_share: float | None = None,
    held: HeldMemory | None = None,
    served: tuple[ServedScore, ...] = (),
) -> RunResult:
    planned = manifest.optimizer_steps
    progress = trained.progress if trained else Progress()
    n_steps, seconds = progress.step, progress.train_seconds if trained else None
    lines: list[EpochRecord | ValidationRecord] = []
    lines += [*trained.epochs, *trained.validations] if trained else []
    best = min(lines, key=lambda line: (*line.validation.rank, line.step), default=None)
    return RunResult.of(
        spec,
        status="done",
        trainable_parameters=manifest.trainable_parameters,
        total_parameters=manifest.total_parameters,
        adapted_modules=len(manifest.modules),
        best_epoch=best.epoch if best else None,
        best_step=best.step if best and spec.training.validate_every else None,
        optimizer_steps=n_steps,
        planned_steps=planned if n_steps < planned else None,
        epochs=trained.epochs if trained else (),
        validations=trained.validations if trained else (),
        train_seconds=seconds,
        total_seconds=total_seconds,
        train_and_validate_seconds=train_and_validate_seconds,
        train_tokens=progress.train_tokens if trained else None,
        tokens_per_second=progress.train_tokens / seconds if seconds else None,
        steps_per_second=n_steps / seconds if seconds else None,
        waited_share=waited_share,
        peak_memory_bytes=peak_memory_bytes or {},
        held=held,
        device=manifest.environment.device,
        precision=manifest.environment.precision,
        commit=manifest.environment.commit,
        drift=manifest.drift,
        evaluations=evaluations,
        served=served,
    )
