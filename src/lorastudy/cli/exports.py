"""`export`: take models and results to where others use them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorastudy.cli import options
from lorastudy.cli.completion import complete_runs
from lorastudy.cli.options import AsJson, Mirror, Offline, StudyDir
from lorastudy.config.spec import RunSpec
from lorastudy.errors import ConfigError
from lorastudy.exchange.stored_runs import StoredRun, read_run, read_runs
from lorastudy.store.collect import read_study
from lorastudy.store.files import write_text
from lorastudy.store.folders import StudyFolder

if TYPE_CHECKING:
    from lorastudy.exchange.card import ExportForm
    from lorastudy.run.export import Exported

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
RESULT_SHAPES = ("lm-eval", "peft-comparison")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("export")(export)


def export(
    folder: StudyDir,
    name: Annotated[
        str | None,
        typer.Argument(
            help="A run as `status` lists it, or an arm: its best finished run.",
            metavar="RUN",
            autocompletion=complete_runs,
        ),
    ] = None,
    *,
    to: Annotated[
        str,
        typer.Option(
            help="With RUN: new folder for its model. Without: "
            + ", ".join((*TRACKERS, *RESULT_SHAPES))
            + "."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Without RUN: where results go; default DIR/exports/TO.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Add the adapter into the weights: a whole model.")
    ] = False,
    mirror: Mirror = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Take a run's model away as a PEFT folder or a whole model; or all results to a tracker.

    Models carry a card with their scores and are checked by reloading them.
    """
    options.check_mirror(mirror)
    study = StudyFolder(folder)
    if name is None:
        if merge:
            raise ConfigError("--merge merges one run's adapter. Name the RUN.")
        exported = _export_results(study, to, out or folder / "exports" / to)
        if as_json:
            options.print_json(exported)
        else:
            print(f"Wrote {len(exported['runs'])} runs to {exported['folder']}.")
        return
    if out is not None:
        raise ConfigError("--out is for results of the whole study. With RUN, --to is the folder.")
    from lorastudy.cli.choice import choose_run

    choice = choose_run(study, name)
    if choice.reason and not as_json:
        print(choice.reason)
    written = _export_model(
        study, choice.spec, Path(to), is_merged=merge, mirror=mirror, offline=offline
    )
    if as_json:
        options.print_json({"run_id": choice.spec.run_id, **asdict(written)})
    else:
        print(_say(written))


def _export_results(study: StudyFolder, shape: str, out: Path) -> dict[str, Any]:
    if shape not in (*TRACKERS, *RESULT_SHAPES):
        raise ConfigError(
            f"--to {shape}: without RUN it is one of {', '.join((*TRACKERS, *RESULT_SHAPES))}. "
            "To take a model away, name its run as `lorastudy status` lists it, or its arm."
        )
    runs = read_runs(study)
    if shape == "peft-comparison":  # which knows methods of fine-tuning only
        runs = tuple(run for run in runs if run.spec.arm.method != "baseline")
    if shape in TRACKERS:
        from lorastudy.exchange.trackers import replay

        replay(runs, shape, out)
    else:
        _write_results(runs, shape, out)
    return {"to": shape, "folder": str(out), "runs": [run.result.run_id for run in runs]}


def _write_results(runs: tuple[StoredRun, ...], shape: str, out: Path) -> None:
    from lorastudy.exchange.harness import make_harness_result
    from lorastudy.exchange.peft_comparison import make_comparison_result

    make = make_harness_result if shape == "lm-eval" else make_comparison_result
    prefix = "results_" if shape == "lm-eval" else ""
    for run in runs:
        text = json.dumps(make(run), indent=2) + "\n"
        write_text(out / f"{prefix}{run.result.run_id}.json", text)


def _export_model(
    study: StudyFolder,
    spec: RunSpec,
    to: Path,
    *,
    is_merged: bool,
    mirror: Path | None,
    offline: bool,
) -> "Exported":
    run = read_run(read_study(study), spec, study.run(spec.run_id))
    if run is None or run.result.status != "done":
        raise ConfigError(
            f"{spec.run_id} has not finished, so there is no best epoch to take away. "
            f"Finish it:  lorastudy run {study.path}"
        )
    from lorastudy.exchange.card import make_card
    from lorastudy.model.base import quieten_libraries
    from lorastudy.run.export import check_export, export_run
    from lorastudy.run.inputs import open_reader

    is_adapter = check_export(run.folder, to, is_merged=is_merged)
    form: ExportForm = "merged" if is_merged else "adapter" if is_adapter else "model"
    quieten_libraries()
    reader = open_reader(run.study, options.stored_places(study, mirror, offline))
    card = make_card(run, form, name=to.name)
    return export_run(spec, run.folder, reader, to, is_merged=is_merged, card=card)


def _say(written: "Exported") -> str:
    found = written.reloaded
    return (
        f"Wrote {written.folder}. Reloaded, its logits differ from the run's by at most "
        f"{found.largest_logit_difference:g} (the largest is {found.largest_logit:.4g}); its "
        f"cross-entropy on {found.n_rows} validation rows, "
        f"{found.cross_entropy:.4f} nats a token, by {abs(found.cross_entropy_difference):g}."
    )
