"""Train one run: events become files, and files become the place to go on from.

At the end of an epoch: checkpoint, validate, publish `best/` if it is the best so far, and
only then append the epoch's line. So a line in `epochs.jsonl` means that everything before
it is on the disk; a crash in between repeats the validation, not the epoch.
"""

import math
import time
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lorastudy import faults
from lorastudy.data.corpus import Corpus
from lorastudy.data.rows import RowTable
from lorastudy.errors import DivergedError, StorageError
from lorastudy.evaluate.score import average_nats, score_rows
from lorastudy.interrupts import StopFlag
from lorastudy.machine.memory import measure_peak_memory, read_cpu_times
from lorastudy.model.sharing import gather
from lorastudy.run.setup import RunSetup
from lorastudy.store.checkpoints import newest_sound_checkpoint, write_checkpoint
from lorastudy.store.files import (
    append_record,
    flush_to_disk,
    publish_folder,
    read_record,
    read_records,
    replace_records,
)
from lorastudy.store.folders import RunFolder
from lorastudy.store.hashes import find_changes, write_hashes
from lorastudy.store.records import EndedEpoch, EpochRecord, ResumeRecord, StepRecord, TrainerState
from lorastudy.train.loop import EpochDone, EpochSums, Progress, StepDone, TrainingInputs, train
from lorastudy.train.optimizer import read_moments, restore_moments


class TrainingSession:
    """The training part of one run, from its newest checkpoint to its last epoch."""

    def __init__(
        self, folder: RunFolder, setup: RunSetup, stop: StopFlag, *, identity: str
    ) -> None:
        assert setup.inputs is not None
        self._identity = identity
        self._folder, self._setup, self._stop = folder, setup, stop
        self._team = setup.team
        self._epochs: tuple[EpochRecord, ...] = ()
        self._inputs: TrainingInputs = setup.inputs
        self._began = time.perf_counter()
        self._earlier_seconds = 0.0
        self._earlier_peak: dict[str, int] = {}
        self._ended: EndedEpoch | None = None  # trained, perhaps not yet validated
        self._cpu_times = read_cpu_times()
        self.progress = Progress()

    @property
    def total_seconds(self) -> float:
        """Seconds of the run so far, those before a resume included."""
        return self._earlier_seconds + time.perf_counter() - self._began

    @property
    def peak_memory_bytes(self) -> dict[str, int]:
        """Highest measured so far, by kind, those before a resume included; of any member."""
        now = measure_peak_memory(self._setup.device)
        highest = self._team.highest(np.array(list(now.values()))).tolist()
        now = dict(zip(now, highest, strict=True))
        kinds = now.keys() | self._earlier_peak.keys()
        return {kind: max(now.get(kind, 0), self._earlier_peak.get(kind, 0)) for kind in kinds}

    def run(self) -> tuple[EpochRecord, ...]:
        """Train what is left and return the records of all epochs.

        Raises:
            DivergedError: A loss or gradient is not finite.
            InterruptedRunError: A signal came; a checkpoint was written.
        """
        ended = self._ended
        if ended is not None and len(self._epochs) < ended.epoch:
            self._finish_epoch(ended)
        for event in train(self._inputs, self.progress):
            self.progress = event.progress
            if isinstance(event, StepDone):
                if self._team.is_first:
                    self._record_step(event)
                if not event.ends_epoch and self._stop.is_requested():
                    self.checkpoint(None)
                    self._stop.poll()
            elif event.epoch > len(self._epochs):
                ended = _ended(event)
                self.checkpoint(ended)
                self._stop.poll()
                self._finish_epoch(ended)
        return self._epochs

    @property
    def waited_share(self) -> float | None:
        """Share of its threads' ready time that the run waited for a core; None: not counted."""
        steps = read_records(self._folder.steps, StepRecord)
        waited = sum(step.waited_seconds or 0.0 for step in steps)
        ready = waited + sum(step.ran_seconds or 0.0 for step in steps)
        return waited / ready if ready else None

    def _record_step(self, event: StepDone) -> None:
        now, before = read_cpu_times(), self._cpu_times
        used = now - before if now is not None and before is not None else None
        self._cpu_times = now
        record = StepRecord(
            step=event.progress.step,
            epoch=event.epoch,
            loss=event.loss,
            n_tokens=event.n_tokens,
            n_positions=event.n_positions,
            learning_rate=event.learning_rate,
            gradient_norm=event.gradient_norm,
            seconds=event.seconds,
            ran_seconds=used.ran_seconds if used else None,
            waited_seconds=used.waited_seconds if used else None,
            peak_memory_bytes=_shown_peak(measure_peak_memory(self._setup.device)),
        )
        append_record(self._folder.steps, record)
        faults.hit("run:after-step-line")

    def _finish_epoch(self, ended: EndedEpoch) -> None:
        layout = self._setup.layout
        loss = self._measure_loss(layout.validation_corpus, layout.validation_table)
        _refuse_non_finite(ended.epoch, loss)
        train_loss_eval = self._measure_loss(layout.corpus, layout.train_slice)
        faults.hit("run:after-validation")
        if loss < min((e.validation_loss for e in self._epochs), default=float("inf")):
            self._publish_best()
        record = EpochRecord(
            epoch=ended.epoch,
            step=self.progress.step,
            train_loss=ended.train_loss,
            validation_loss=loss,
            learning_rate=ended.learning_rate,
            train_seconds=ended.train_seconds,
            train_loss_eval=train_loss_eval,
        )
        self._epochs = (*self._epochs, record)
        if self._team.is_first:
            append_record(self._folder.epochs, record)
            flush_to_disk(self._folder.epochs)
        faults.hit("run:after-epoch-line")

    def _measure_loss(self, corpus: Corpus, table: RowTable) -> float:
        """Loss in evaluation mode, averaged as the protocol of the training rows says."""
        layout = self._setup.layout
        scores = score_rows(
            self._setup.scorer,
            corpus.tokens,
            table,
            layout.padding,
            device=self._setup.device,
            poll=self._stop.poll,
            team=self._team,
        )
        return average_nats(layout.validation_protocol, scores)

    def _publish_best(self) -> None:
        model = self._setup.model
        tensors = gather(model.stored_tensors(), self._team)

        def save(folder: Path) -> None:
            model.save(folder, tensors)
            if model.adapter is None:
                self._setup.tokenizer.save(folder)  # a whole model is of use with it only
            write_hashes(folder)

        if self._team.is_first:
            publish_folder(self._folder.best, save)
        self._team.wait()

    def checkpoint(self, ended: EndedEpoch | None) -> None:
        """Commit where training stands; `ended` is the epoch that was trained just before, if any.

        Raises:
            StorageError: The disk refused.
        """
        inputs, p = self._inputs, self.progress
        parameters = inputs.model.trained_tensors()
        state = TrainerState(
            step=p.step,
            epoch_sum_nats=p.epoch_sums.sum_nats,
            epoch_n_tokens=p.epoch_sums.n_tokens,
            epoch_sum_of_means=p.epoch_sums.sum_of_means,
            epoch_n_micro_batches=p.epoch_sums.n_micro_batches,
            epoch_seconds=p.epoch_sums.seconds,
            train_tokens=p.n_tokens,
            train_seconds=p.seconds,
            total_seconds=self.total_seconds,
            peak_memory_bytes=self.peak_memory_bytes,
            ended_epoch=ended,
        )
        weights = gather(parameters, self._team)
        moments = gather(read_moments(inputs.optimizer, parameters), self._team)
        if self._team.is_first:
            self._write_checkpoint(state, weights, moments)
        self._team.wait()

    def _write_checkpoint(
        self, state: TrainerState, weights: dict[str, Tensor], moments: dict[str, Tensor]
    ) -> None:
        if self._folder.steps.exists():
            flush_to_disk(self._folder.steps)
        write_checkpoint(
            self._folder.checkpoints,
            state.step,
            {
                "weights.safetensors": _tensor_writer(weights),
                "optimizer.safetensors": _tensor_writer(moments),
                "trainer.json": lambda path: path.write_text(state.model_dump_json(indent=1)),
            },
            identity=self._identity,
            environment=self._setup.manifest.environment,
            needed_bytes=sum(t.nbytes for t in (*weights.values(), *moments.values())),
        )

    def resume(self) -> None:
        """Go back to the newest sound checkpoint and forget what was recorded after it.

        Raises:
            InputError: Every checkpoint is damaged.
            StorageError: A line from before the checkpoint, or `best/`, is lost or damaged.
        """
        checkpoint = self._find_checkpoint()
        if checkpoint is None:
            return
        state = read_record(checkpoint / "trainer.json", TrainerState)
        try:
            weights = load_file(checkpoint / "weights.safetensors")
            moments = load_file(checkpoint / "optimizer.safetensors")
        except (OSError, SafetensorError) as error:
            raise StorageError(f"{checkpoint} cannot be read ({error}). Try again.") from error
        self._inputs.model.load_trained(weights)
        restore_moments(self._inputs.optimizer, self._inputs.model.trained_tensors(), moments)
        self.progress = _progress(state)
        self._earlier_seconds = state.total_seconds
        self._earlier_peak = state.peak_memory_bytes
        self._ended = state.ended_epoch
        self._epochs = read_records(self._folder.epochs, EpochRecord)

    def _find_checkpoint(self) -> Path | None:
        """The checkpoint to go on from, after the first member has put the folder in order."""
        root = self._folder.checkpoints
        if self._team.is_first:
            checkpoint = newest_sound_checkpoint(root)
            self._rewind(checkpoint)
        self._team.wait()
        return checkpoint if self._team.is_first else newest_sound_checkpoint(root)

    def _rewind(self, checkpoint: Path | None) -> None:
        if checkpoint is None:
            replace_records(self._folder.steps, ())
            replace_records(self._folder.epochs, ())
            return
        self._keep_lines(read_record(checkpoint / "trainer.json", TrainerState))

    def _keep_lines(self, state: TrainerState) -> None:
        """Keep the lines up to the checkpoint, each once; all of them have to be there."""
        folder = self._folder
        steps = {s.step: s for s in read_records(folder.steps, StepRecord) if s.step <= state.step}
        _refuse_gaps(folder.steps, steps, range(1, state.step + 1))
        replace_records(folder.steps, tuple(steps[n] for n in sorted(steps)))
        ended = state.ended_epoch
        known = ended.epoch if ended else self._whole_epochs(state.step)
        recorded = read_records(folder.epochs, EpochRecord)
        epochs = {e.epoch: e for e in recorded if e.epoch <= known}
        validated = known - 1 if ended and known not in epochs else known
        _refuse_gaps(folder.epochs, epochs, range(1, validated + 1))
        replace_records(folder.epochs, tuple(epochs[n] for n in sorted(epochs)))
        if epochs:
            check_best(folder)
        append_record(folder.resumes, ResumeRecord(step=state.step))

    def _whole_epochs(self, step: int) -> int:
        """Epochs whose end lies before the first micro-batch that comes after `step`."""
        plan = self._inputs.plan
        return plan.group_of(step + 1).start // plan.micro_batches_per_epoch


def _shown_peak(by_kind: dict[str, int]) -> int:
    return by_kind.get("allocated", by_kind["resident"])


def _refuse_non_finite(epoch: int, loss: float) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"epoch {epoch}: the validation loss is {loss:g}; training stops here. "
            "Lower this arm's learning rate."
        )


def _tensor_writer(tensors: dict[str, Tensor]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, path)

    return write


def _ended(event: EpochDone) -> EndedEpoch:
    return EndedEpoch(
        epoch=event.epoch,
        train_loss=event.train_loss,
        learning_rate=event.learning_rate,
        train_seconds=event.seconds,
    )


def _progress(state: TrainerState) -> Progress:
    sums = EpochSums(
        sum_nats=state.epoch_sum_nats,
        n_tokens=state.epoch_n_tokens,
        sum_of_means=state.epoch_sum_of_means,
        n_micro_batches=state.epoch_n_micro_batches,
        seconds=state.epoch_seconds,
    )
    return Progress(state.step, sums, state.train_tokens, state.train_seconds)


def _refuse_gaps(path: Path, found: Collection[int], expected: range) -> None:
    lost = [number for number in expected if number not in found]
    if lost:
        raise StorageError(
            f"{path}: {len(lost)} lines from before the checkpoint are lost, the first of them "
            f"that of {lost[0]}. Restore the file, or train this run again with --restart."
        )


def check_best(folder: RunFolder) -> None:
    """See that `best/` is what was written.

    Raises:
        StorageError: It is not.
    """
    if changes := find_changes(folder.best):
        raise StorageError(
            f"{'; '.join(changes)}. Restore the folder, or train this run again with --restart."
        )


def restore_best(setup: RunSetup, folder: RunFolder) -> None:
    """Put the best epoch's tensors into the model.

    Raises:
        StorageError: They are not those that were written.
    """
    check_best(folder)
    setup.model.load_best(folder.best)
