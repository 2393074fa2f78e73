"""Write the state of training: the trained tensors, the optimizer's moments, and the numbers."""

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from lorastudy.model.sharing import gather
from lorastudy.run.context import RunContext
from lorastudy.run.setup import RunSetup
from lorastudy.store.checkpoints import write_checkpoint
from lorastudy.store.files import flush_to_disk
from lorastudy.store.records import Fingerprint
from lorastudy.store.training_state import TrainerState
from lorastudy.train.optimizer import read_moments

WEIGHTS, MOMENTS, STATE = "weights.safetensors", "optimizer.safetensors", "trainer.json"


def commit_checkpoint(context: RunContext, setup: RunSetup, state: TrainerState) -> None:
    """Write a checkpoint of `state`; every member takes part, and the first one writes.

    Raises:
        StorageError: The disk refused a write.
    """
    assert setup.inputs is not None
    parameters = setup.inputs.model.trained_tensors()
    weights = gather(parameters, context.team)
    moments = gather(read_moments(setup.inputs.optimizer, parameters), context.team)
    if context.team.is_first:
        _write(context, setup.manifest.environment, state, weights, moments)
    context.team.wait()


def _write(
    context: RunContext,
    environment: Fingerprint,
    state: TrainerState,
    weights: dict[str, Tensor],
    moments: dict[str, Tensor],
) -> None:
    # lines of `steps.jsonl` first: a checkpoint promises that they exist
    if context.folder.steps.exists():
        flush_to_disk(context.folder.steps)
    context.folder.note_written()
    write_checkpoint(
        context.folder.checkpoints,
        state.step,
        {
            WEIGHTS: _tensor_writer(weights),
            MOMENTS: _tensor_writer(moments),
            STATE: lambda path: path.write_text(state.model_dump_json(indent=1)),
        },
        identity=context.spec.identity,
        environment=environment,
        needed_bytes=sum(t.nbytes for t in (*weights.values(), *moments.values())),
    )


def _tensor_writer(tensors: dict[str, Tensor]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, path)

    return write
