"""Train one run: events become files.

At the end of an epoch: checkpoint, validate, publish `best/` if it is the best so far, and
only then append the epoch's line. A line in `epochs.jsonl` therefore means that everything before
it is on the disk. After a crash in between, the validation is repeated, but not the epoch.
"""

import math
from pathlib import Path

from lorastudy import faults
from lorastudy.data.corpus import Corpus
from lorastudy.data.rows import RowTable
from lorastudy.errors import DivergedError
from lorastudy.evaluate.score import average_nats, score_rows
from lorastudy.machine.memory import measure_peak_memory, read_cpu_times
from lorastudy.model.sharing import gather
from lorastudy.run.commit import commit_checkpoint
from lorastudy.run.context import RunContext
from lorastudy.run.meter import RunMeter
from lorastudy.run.setup import RunSetup
from lorastudy.store.files import flush_to_disk, publish_folder
from lorastudy.store.folders import RunFolder
from lorastudy.store.hashes import write_hashes
from lorastudy.store.lines import append_record, read_records
from lorastudy.store.records import EpochRecord, StepRecord
from lorastudy.store.training_state import EndedEpoch, Progress, TrainerState
from lorastudy.train.loop import StepDone, train


class TrainingSession:
    """The training part of one run, from its present state to its last epoch."""

    def __init__(self, context: RunContext, setup: RunSetup, meter: RunMeter) -> None:
        self._context, self._setup, self._meter = context, setup, meter
        state = meter.before
        self.progress = state.progress if state else Progress()
        self._ended = state.ended_epoch if state else None  # trained, but perhaps not yet validated
        self._epochs = read_records(context.folder.epochs, EpochRecord) if state else ()
        self._cpu_times = read_cpu_times()

    def run(self) -> tuple[EpochRecord, ...]:
        """Train the remaining epochs and return the records of all epochs.

        Raises:
            DivergedError: A loss or gradient is not finite.
            InterruptedRunError: A signal came; a checkpoint was written.
        """
        inputs, stop = self._setup.inputs, self._context.stop
        assert inputs is not None
        if self._ended is not None and self._ended.epoch > len(self._epochs):
            self._finish_epoch(self._ended)
        for event in train(inputs, self.progress):
            self.progress = event.progress
            if isinstance(event, StepDone):
                self._record_step(event.record)
                if not event.ends_epoch and stop.is_requested():
                    self._commit(None)
                    stop.poll()
            elif event.ended.epoch > len(self._epochs):
                self._commit(event.ended)
                stop.poll()
                self._finish_epoch(event.ended)
        return self._epochs

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
            **self.progress.model_dump(),
            total_seconds=self._meter.total_seconds,
            peak_memory_bytes=self._meter.peak_memory_bytes,
            ended_epoch=ended,
        )
        commit_checkpoint(self._context, self._setup, state)

    def _finish_epoch(self, ended: EndedEpoch) -> None:
        layout, folder = self._setup.layout, self._context.folder
        loss = self._measure_loss(layout.validation_corpus, layout.validation_table)
        _refuse_non_finite(ended.epoch, loss)
        train_loss_eval = self._measure_loss(layout.corpus, layout.train_slice)
        faults.hit("run:after-validation")
        if loss < min((e.validation_loss for e in self._epochs), default=float("inf")):
            publish_best(self._context, self._setup)
        record = EpochRecord(
            **ended.model_dump(),
            step=self.progress.step,
            validation_loss=loss,
            train_loss_eval=train_loss_eval,
        )
        self._epochs = (*self._epochs, record)
        if self._context.team.is_first:
            append_record(folder.epochs, record)
            flush_to_disk(folder.epochs)
            folder.note_written()
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


def _refuse_non_finite(epoch: int, loss: float) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"epoch {epoch}: the validation loss is {loss:g}; training stops here. "
            "Lower this arm's learning rate."
        )
