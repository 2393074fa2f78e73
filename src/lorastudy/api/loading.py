"""The model of a finished run, in memory, as the libraries behind it know it."""

from typing import Any

from lorastudy.config.spec import RunSpec
from lorastudy.errors import ConfigError
from lorastudy.machine.environment import choose_device
from lorastudy.model.adapters import load_adapter
from lorastudy.model.base import load_base, quieten_libraries
from lorastudy.model.elsewhere import load_weights
from lorastudy.run.readers import open_reader, refuse_other_base
from lorastudy.store.weights import refuse_changed_weights
from lorastudy.study.open import OpenedStudy

LoadedModel = Any  # a PeftModel or a PreTrainedModel, with the attribute `tokenizer`


def load_model(opened: OpenedStudy, spec: RunSpec, device: str) -> LoadedModel:
    """The model of a finished run with its tokenizer; see `Results.load`.

    Raises:
        ConfigError: The run has not finished.
        InputError: The base model was not found, is not the run's, or its files are damaged; or
            weights that were trained elsewhere are not those that were scored.
        StorageError: A record of the run, or its `best/`, is not what was written.
    """
    run = opened.folder.run(spec.run_id)
    result = run.read_result()
    if result is None or result.status != "done":
        raise ConfigError(
            f"{spec.run_id} has not finished, so it has no model to load. "
            f"Finish it:  lorastudy run {opened.folder.path}"
        )
    weights = spec.arm.weights[0] if spec.arm.weights else None
    if spec.arm.method != "baseline" and weights is None:
        refuse_changed_weights(run)
    quieten_libraries()
    where = choose_device(device)
    reader = open_reader(opened.study, opened.places)
    trains_model = not spec.arm.trains_adapter and spec.arm.method != "baseline"
    is_full = trains_model if weights is None else weights.kind == "model"
    refuse_other_base(run, reader, needs_weights=not is_full)
    model: LoadedModel
    held = spec.arm.base_weights
    if weights is not None:
        loaded = load_weights(weights, reader.base.folder, where)
        model = loaded.network if loaded.adapter is None else loaded.adapter
    elif spec.arm.trains_adapter:
        base = load_base(reader.base.folder, device=where, base_weights=held)
        model = load_adapter(base, run.best).adapter
    else:
        folder = run.best if is_full else reader.base.folder
        model = load_base(folder, device=where, base_weights=held)
    model.tokenizer = reader.tokenizer.backend
    return model.eval()
