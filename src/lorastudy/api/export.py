"""Take the model of a finished run away, with a card that holds its scores."""

from pathlib import Path

from lorastudy.config.spec import RunSpec
from lorastudy.errors import ConfigError, StorageError
from lorastudy.exchange.card import ExportForm, make_card
from lorastudy.exchange.stored_runs import read_run
from lorastudy.model.base import quieten_libraries
from lorastudy.run.export import Exported, MergedWeights, check_export, export_run
from lorastudy.run.readers import open_reader
from lorastudy.study.open import OpenedStudy


def export_model(
    opened: OpenedStudy,
    spec: RunSpec,
    to: Path,
    *,
    is_merged: bool,
    weights: MergedWeights = "float32",
) -> Exported:
    """Write the best epoch of a run to the new folder `to`, checked by reloading it.

    Raises:
        ConfigError: The run has not finished, or cannot be exported in this form.
        InputError: The reloaded copy computes something else; nothing is left behind.
        StorageError: A record of the run, or its `best/`, is not what was written.
    """
    run = read_run(opened.study, spec, opened.folder.run(spec.run_id))
    if run is not None and run.result.status == "damaged":
        raise StorageError(f"{spec.run_id}: {run.result.reason}")
    if run is None or run.result.status != "done":
        raise ConfigError(
            f"{spec.run_id} has not finished, so there is no best epoch to export. "
            f"Finish it:  lorastudy run {opened.folder.path}"
        )
    if spec.arm.weights:
        raise ConfigError(
            f"{spec.run_id} was trained elsewhere and only scored here. Take its weights from "
            f"{spec.arm.weights[0].folder}."
        )
    is_adapter = check_export(run.folder, to, is_merged=is_merged)
    form: ExportForm = "merged" if is_merged else "adapter" if is_adapter else "model"
    quieten_libraries()
    reader = open_reader(run.study, opened.places)
    card = make_card(run, form, name=to.name, weights=weights)
    return export_run(spec, run.folder, reader, to, is_merged=is_merged, card=card, weights=weights)
