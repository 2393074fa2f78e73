"""Train one run: events become files.

At the end of an epoch: checkpoint, validate, publish `best/` if it is the best so far, and
only then append the epoch's line. A line in `epochs.jsonl` therefore means that everything before
it is on the disk. After a crash in between, the validation is repeated, but not the epoch. The same
goes for validations within epochs and their lines in `validations.jsonl`.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from lorastudy import faults
from lorastudy.data.corpus import Corpus
from lorastudy.data.rows import RowTable
from lorastudy.errors import DivergedError, InterruptedRunError
from lorastudy.evaluate.score import average_nats, score_rows
from lorastudy.machine.memory import measure_peak_memory, read_cpu_times
from lorastudy.model.sharing import gather
from lorastudy.run.commit import commit_checkpoint
from lorastudy.run.context import RunContext
from lorastudy.run.meter import RunMeter
from lorastudy.run.setup import RunSetup
from lorastudy.run.tasks import AskedModel, TaskItems
from lorastudy.store.files import flush_to_disk, publish_folder
from lorastudy.store.folders import RunFolder
from lorastudy.store.hashes import write_hashes
from lorastudy.store.lines import append_record, read_records
from lorastudy.store.records import (
    EpochRecord,
    StepRecord,
    ValidationRecord,
    validations_by_step,
)
from lorastudy.store.training_state import EndedEpoch, Progress, TrainerState
from lorastudy.store.validation import Validation
from lorastudy.train.loop import EpochDone, StepDone, train
from lorastudy.train.validations import should_stop, validates_between


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run's training came to."""

    progress: Progress
    epochs: tuple[EpochRecord, ...]
    validations: tuple[ValidationRecord, ...]  # within epochs


class TrainingSession:
    """The training part of one run, from its present state to its last epoch."""

    def __init__(self, context: RunContext, setup: RunSetup, meter: RunMeter) -> None:
        self._context, self._setup, self._meter = context, setup, meter
        state, folder = meter.before, context.folder
        self._progress = state.progress if state else Progress()
        self._ended = state.ended_epoch if state else None  # trained, but perhaps not yet validated
        self._epochs = read_records(folder.epochs, EpochRecord) if state else ()
        self._validations = read_records(folder.validations, ValidationRecord) if state else ()
        self._cpu_times = read_cpu_times()

    def run(self) -> Trained:
        """Train the remaining epochs, or until validation no longer improves.

        Raises:
            DivergedError: A loss or gradient is not finite.
            InterruptedRunError: A signal came, or the run is to go no further for now; a checkpoint
                was written.
        """
        inputs = self._setup.inputs
        assert inputs is not None
        self._validate_checkpoint()
        is_over = self._is_over()  # it was killed after it had stopped early
        if not is_over:
            self._pause()
        for event in () if is_over else train(inputs, self._progress):
            self._progress = event.progress
            if isinstance(event, StepDone):
                self._end_step(event)
            elif event.ended.epoch > len(self._epochs):
                self._end_epoch(event)
            if self._is_over():
                break
            self._pause()
        return Trained(self._progress, self._epochs, self._validations)

    def _validate_checkpoint(self) -> None:
        """Validate what the checkpoint holds, if a kill came between the two."""
        ended, step = self._ended, self._progress.step
        if ended is not None:
            if ended.epoch > len(self._epochs):
                self._finish_epoch(ended)
        elif self._validates_after(step) and step not in {v.step for v in self._validations}:
            self._validate_within(step)

    def _validates_after(self, step: int) -> bool:
        return validates_between(self._context.spec.training, self._setup.layout.plan, step)

    def _is_over(self) -> bool:
        stopping = self._context.spec.training.early_stopping
        if stopping is None:
            return False
        return should_stop(self._known().values(), stopping)

    def _end_step(self, event: StepDone) -> None:
        self._record_step(event.record)
        if event.ends_epoch:
            return  # the end of the epoch follows
        validates, stop = self._validates_after(event.record.step), self._context.stop
        if validates or stop.is_requested():
            self._commit(None)
            stop.poll()
        if validates:
            self._validate_within(event.record.step)

    def _end_epoch(self, event: EpochDone) -> None:
        self._commit(event.ended)
        self._context.stop.poll()
        self._finish_epoch(event.ended)

    def _pause(self) -> None:
        """Stop here if the run was asked to go no further; the same call goes on from here."""
        until = self._context.until_epoch
        if until is not None and len(self._epochs) >= until:
            raise InterruptedRunError(
                f"stopped after epoch {len(self._epochs)}, until a decision of its study "
                "(decisions.jsonl) asks for more."
            )

    def _record_step(self, record: StepRecord) -> None:
        """Append the line of a step, with what was measured for this process."""
        if not self._context.team.is_first:
            return
        now, before = read_cpu_times(), self._cpu_times
        used = now - before if now is not None and before is not None else None
        self._cpu_times = now
        peak = measure_peak_memory(self._context.device)
        measured = {
            "ran_seconds": used.ran_seconds if used else None,
            "waited_seconds": used.waited_seconds if used else None,
            "peak_memory_bytes": peak.get("allocated", peak["resident"]),
        }
        append_record(self._context.folder.steps, record.model_copy(update=measured))
        faults.hit("run:after-step-line")

    def _commit(self, ended: EndedEpoch | None) -> None:
        """Write a checkpoint; `ended` is the epoch that was trained just before, if any."""
        state = TrainerState(
            **self._progress.model_dump(),
            total_seconds=self._meter.total_seconds,
            peak_memory_bytes=self._meter.peak_memory_bytes,
            ended_epoch=ended,
        )
        commit_checkpoint(self._context, self._setup, state)

    def _finish_epoch(self, ended: EndedEpoch) -> None:
        layout = self._setup.layout
        found = self._validate(f"epoch {ended.epoch}")
        train_loss_eval = self._measure_loss(layout.corpus, layout.train_slice)
        self._publish_if_best(found)
        record = EpochRecord(
            **ended.model_dump(),
            step=self._progress.step,
            validation_loss=found.loss,
            train_loss_eval=train_loss_eval,
            validation_accuracy=found.accuracy,
        )
        self._epochs = (*self._epochs, record)
        self._append(self._context.folder.epochs, record)

    def _validate_within(self, step: int) -> None:
        """Validate after a step that does not end an epoch."""
        plan = self._setup.layout.plan
        found = self._validate(f"step {step}")
        self._publish_if_best(found)
        record = ValidationRecord(
            step=step,
            epoch=plan.epoch_of(plan.group_of(step)[-1]),
            validation_loss=found.loss,
            validation_accuracy=found.accuracy,
        )
        self._validations = (*self._validations, record)
        self._append(self._context.folder.validations, record)

    def _validate(self, when: str) -> Validation:
        layout = self._setup.layout
        loss = self._measure_loss(layout.validation_corpus, layout.validation_table)
        _refuse_non_finite(when, loss)
        items = layout.items_of_best
        return Validation(loss, None if items is None else self._measure_accuracy(items))

    def _publish_if_best(self, found: Validation) -> None:
        faults.hit("run:after-validation")
        known = self._known().values()
        if not known or found.rank < min(before.rank for before in known):
            publish_best(self._context, self._setup)

    def _known(self) -> dict[int, Validation]:
        return validations_by_step(self._epochs, self._validations)

    def _append(self, path: Path, record: BaseModel) -> None:
        """Write the line of a validation, with everything that it promises."""
        if self._context.team.is_first:
            append_record(path, record)
            flush_to_disk(path)
            self._context.folder.note_written()
        faults.hit("run:after-epoch-line")

    def _measure_loss(self, corpus: Corpus, table: RowTable) -> float:
        """Loss without dropout, averaged as the protocol of the training rows says."""
        layout = self._setup.layout
        scores = score_rows(
            self._setup.scorer,
            corpus.tokens,
            table,
            layout.padding,
            device=self._context.device,
            poll=self._context.stop.poll,
            team=self._context.team,
        )
        return average_nats(layout.validation_protocol, scores)

    def _measure_accuracy(self, items: TaskItems) -> float:
        """The share of items that the model answers right, the same for all members of a team."""
        context = self._context
        model = AskedModel(self._setup.scorer, context.device, context.stop.poll, context.team)
        answered = items.answer(model).items
        n_right = sum(item.right for item in answered)
        # members of other devices may answer otherwise; what the first one says counts
        own = n_right if context.team.is_first else 0.0
        return float(context.team.add(np.array([own]))[0]) / len(answered)


def publish_best(context: RunContext, setup: RunSetup) -> None:
    """Write the model as it is now as the run's best epoch, in place of an earlier one."""
    model, team = setup.model, context.team
    tensors = gather(model.stored_tensors(), team)

    def save(folder: Path) -> None:
        model.save(folder, tensors)
        if model.adapter is None:
            context.reader.tokenizer.save(folder)  # a whole model is of use only with its tokenizer
        write_hashes(folder)

    if team.is_first:
        publish_folder(context.folder.best, save)
    team.wait()


def measure_waited_share(folder: RunFolder) -> float | None:
    """Share of its threads' ready time in which the run waited for the CPU; None: not counted."""
    steps = read_records(folder.steps, StepRecord)
    waited = sum(step.waited_seconds or 0.0 for step in steps)
    ready = waited + sum(step.ran_seconds or 0.0 for step in steps)
    return waited / ready if ready else None


def _refuse_non_finite(when: str, loss: float) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"{when}: the validation loss is {loss:g}; training stops here. "
            "Lower this arm's learning rate."
        )
