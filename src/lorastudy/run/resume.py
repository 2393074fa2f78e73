"""Go back to a checkpoint: load its tensors into the model, and continue from its numbers.

Records from after the checkpoint are dropped, since those steps will be repeated. All records from
before the checkpoint have to exist.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
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
from lorastudy.units import write_count

_Line = TypeVar("_Line", bound=BaseModel)


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
    forget_written(folder.path)  # lines that it counts may go; noted again with the manifest
    if checkpoint is None:
        replace_records(folder.steps, ())
        replace_records(folder.epochs, ())
        if inputs.settings.validate_every is not None:
            replace_records(folder.validations, ())
        return
    state = read_record(checkpoint / STATE, TrainerState)
    n_steps = state.step
    _keep(folder.steps, StepRecord, lambda line: line.step, n_steps, range(1, n_steps + 1))
    # the last epoch may have been trained and not yet validated
    ended = state.ended_epoch
    known = ended.epoch if ended else inputs.plan.count_ended_epochs(n_steps)
    needed = range(1, known if ended else known + 1)
    kept = _keep(folder.epochs, EpochRecord, lambda line: line.epoch, known, needed)
    if inputs.settings.validate_every is not None:
        # the last validation may have been killed after its checkpoint
        within = list_steps_between(inputs.settings, inputs.plan, n_steps - 1)
        kept += _keep(folder.validations, ValidationRecord, lambda line: line.step, n_steps, within)
    if kept:
        refuse_changed_weights(folder)
    resumes = read_records(folder.resumes, ResumeRecord)
    replace_records(folder.resumes, (*resumes, ResumeRecord(step=n_steps)))


def _keep(
    path: Path,
    kind: type[_Line],
    number_of: Callable[[_Line], int],
    last: int,
    needed: Iterable[int],
) -> int:
    """Keep one line for each number up to `last`, and count them; those `needed` have to exist."""
    found = {number_of(line): line for line in read_records(path, kind) if number_of(line) <= last}
    lost = [number for number in needed if number not in found]
    if lost:
        raise StorageError(
            f"{path} has lost {write_count(len(lost), 'line')} from before the checkpoint, the "
            f"first of them that of {lost[0]}. Restore the file, or train this run again with "
            "--restart."
        )
    replace_records(path, tuple(found[number] for number in sorted(found)))
    return len(found)


def restore_best(setup: RunSetup, folder: RunFolder) -> None:
    """Load the best epoch's tensors into the model.

    Raises:
        StorageError: They are not those that were written.
    """
    refuse_changed_weights(folder)
    setup.model.load_best(folder.best)
