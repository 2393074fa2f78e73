"""Go back to a checkpoint: load its tensors into the model, and continue from its numbers.

Records from after the checkpoint are dropped, since those steps will be repeated. All records from
before the checkpoint have to exist.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from lorastudy.errors import StorageError
from lorastudy.run.commit import MOMENTS, STATE, WEIGHTS
from lorastudy.run.context import RunContext
from lorastudy.run.setup import RunSetup
from lorastudy.store.checkpoints import newest_sound_checkpoint
from lorastudy.store.files import read_record
from lorastudy.store.folders import RunFolder
from lorastudy.store.lines import read_records, replace_records
from lorastudy.store.records import EpochRecord, ResumeRecord, StepRecord, ValidationRecord
from lorastudy.store.training_state import TrainerState
from lorastudy.store.weights import refuse_changed_weights
from lorastudy.store.written import forget_written
from lorastudy.train.groups import TrainingInputs
from lorastudy.train.optimizer import restore_moments
from lorastudy.train.validations import list_steps_between


def go_back_to_checkpoint(context: RunContext, setup: RunSetup) -> TrainerState | None:
    """Restore the newest undamaged checkpoint; None if there is none and training starts again.

    Raises:
        InputError: Every checkpoint is damaged.
        StorageError: A line from before the checkpoint, or `best/`, is lost or damaged.
    """
    inputs = setup.inputs
    assert inputs is not None
    checkpoint = _find_checkpoint(context, inputs)
    if checkpoint is None:
        return None
    state = read_record(checkpoint / STATE, TrainerState)
    try:
        weights = load_file(checkpoint / WEIGHTS)
        moments = load_file(checkpoint / MOMENTS)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{checkpoint} cannot be read ({error}). Try again.") from error
    inputs.model.load_trained(weights)
    restore_moments(inputs.optimizer, inputs.model.trained_tensors(), moments)
    return state


def _find_checkpoint(context: RunContext, inputs: TrainingInputs) -> Path | None:
    """The checkpoint to continue from, after the first member has put the folder in order."""
    folder, team = context.folder, context.team
    if team.is_first:
        checkpoint = newest_sound_checkpoint(folder.checkpoints)
        _rewind(folder, checkpoint, inputs)
    team.wait()
    return checkpoint if team.is_first else newest_sound_checkpoint(folder.checkpoints)


def _rewind(folder: RunFolder, checkpoint: Path | None, inputs: TrainingInputs) -> None:
    """Keep the lines up to the checkpoint, each once; all of them have to exist."""
    forget_written(folder.path)  # which goes for more lines; noted again with the manifest
    if checkpoint is None:
        replace_records(folder.steps, ())
        replace_records(folder.epochs, ())
        if inputs.settings.validate_every is not None:
            replace_records(folder.validations, ())
        return
    state = read_record(checkpoint / STATE, TrainerState)

    # one line for each step up to the checkpoint
    steps = {s.step: s for s in read_records(folder.steps, StepRecord) if s.step <= state.step}
    _refuse_gaps(folder.steps, steps, range(1, state.step + 1))
    replace_records(folder.steps, tuple(steps[n] for n in sorted(steps)))

    # one line for each epoch; the last one may have been trained and not yet validated
    ended = state.ended_epoch
    known = ended.epoch if ended else inputs.plan.count_ended_epochs(state.step)
    recorded = read_records(folder.epochs, EpochRecord)
    epochs = {e.epoch: e for e in recorded if e.epoch <= known}
    validated = known - 1 if ended and known not in epochs else known
    _refuse_gaps(folder.epochs, epochs, range(1, validated + 1))
    replace_records(folder.epochs, tuple(epochs[n] for n in sorted(epochs)))
    within = _rewind_validations(folder, state.step, inputs)
    if epochs or within:
        refuse_changed_weights(folder)
    resumes = read_records(folder.resumes, ResumeRecord)
    replace_records(folder.resumes, (*resumes, ResumeRecord(step=state.step)))


def _rewind_validations(folder: RunFolder, step: int, inputs: TrainingInputs) -> bool:
    """Keep the lines of validations within epochs up to `step`; whether there are any.

    The last one may have been killed after its checkpoint.
    """
    if inputs.settings.validate_every is None:
        return False
    recorded = read_records(folder.validations, ValidationRecord)
    found = {v.step: v for v in recorded if v.step <= step}
    _refuse_gaps(
        folder.validations, found, list_steps_between(inputs.settings, inputs.plan, step - 1)
    )
    replace_records(folder.validations, tuple(found[n] for n in sorted(found)))
    return bool(found)


def _refuse_gaps(path: Path, found: Collection[int], expected: Iterable[int]) -> None:
    lost = [number for number in expected if number not in found]
    if lost:
        raise StorageError(
            f"{path}: {len(lost)} lines from before the checkpoint are lost, the first of them "
            f"that of {lost[0]}. Restore the file, or train this run again with --restart."
        )


def restore_best(setup: RunSetup, folder: RunFolder) -> None:
    """Load the best epoch's tensors into the model.

    Raises:
        StorageError: They are not those that were written.
    """
    refuse_changed_weights(folder)
    setup.model.load_best(folder.best)
