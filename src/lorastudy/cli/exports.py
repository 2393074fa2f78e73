"""`export` and `push`: take models and results to where others use them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.options import Mirror, Offline, StudyDir
from lorastudy.errors import ConfigError, InputError
from lorastudy.exchange.records import StoredRun, read_run, read_runs
from lorastudy.spec import RunSpec
from lorastudy.store.collect import read_overview, read_study
from lorastudy.store.files import write_text
from lorastudy.store.folders import StudyFolder

if TYPE_CHECKING:
    from lorastudy.exchange.card import Form

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
RESULT_SHAPES = ("lm-eval", "peft-comparison")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("export")(export)
    app.command("push")(push)


def export(
    folder: StudyDir,
    run_id: Annotated[
        str | None, typer.Argument(help="As `status` lists it; a model is written.", metavar="RUN")
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
) -> None:
    """Take a run's model away as a PEFT folder or a whole model; or all results to a tracker.

    Models carry a card with their scores and are checked by reloading them.

    Examples:  lorastudy export DIR RUN --to my-adapter  |  lorastudy export DIR --to tensorboard
    """
    options.check_mirror(mirror)
    study = StudyFolder(folder)
    if run_id is None:
        if merge:
            raise ConfigError("--merge merges one run's adapter. Name the RUN.")
        _export_results(study, to, out or folder / "exports" / to)
        return
    if out is not None:
        raise ConfigError("--out is for results of the whole study. With RUN, --to is the folder.")
    _export_model(study, run_id, Path(to), is_merged=merge, mirror=mirror, offline=offline)


def _export_results(study: StudyFolder, shape: str, out: Path) -> None:
    if shape not in (*TRACKERS, *RESULT_SHAPES):
        raise ConfigError(
            f"--to {shape}: without RUN it is one of {', '.join((*TRACKERS, *RESULT_SHAPES))}. "
            "To take a model away, name its run as `lorastudy status` lists it."
        )
    runs = read_runs(study)
    if shape in TRACKERS:
        from lorastudy.exchange.trackers import replay

        replay(runs, shape, out)
    else:
        _write_results(runs, shape, out)
    print(f"Wrote {len(runs)} runs to {out}.")


def _write_results(runs: tuple[StoredRun, ...], shape: str, out: Path) -> None:
    from lorastudy.exchange.harness import make_harness_result
    from lorastudy.exchange.peft_comparison import make_comparison_result

    make = make_harness_result if shape == "lm-eval" else make_comparison_result
    prefix = "results_" if shape == "lm-eval" else ""
    out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        text = json.dumps(make(run), indent=2) + "\n"
        write_text(out / f"{prefix}{run.result.run_id}.json", text)


def _export_model(
    study: StudyFolder,
    run_id: str,
    to: Path,
    *,
    is_merged: bool,
    mirror: Path | None,
    offline: bool,
) -> None:
    spec = find_run(study, run_id)
    run = read_run(read_study(study), spec, study.run(run_id))
    if run is None or run.result.status != "done":
        raise ConfigError(
            f"{run_id} has not finished, so there is no best epoch to take away. "
            f"Finish it:  lorastudy run {study.path}"
        )
    from lorastudy.exchange.card import make_card
    from lorastudy.inputs import open_reader
    from lorastudy.model.base import quieten_libraries
    from lorastudy.run.export import check_export, export_run

    is_adapter = check_export(run.folder, to, is_merged=is_merged)
    form: Form = "merged" if is_merged else "adapter" if is_adapter else "model"
    quieten_libraries()
    reader = open_reader(run.study, options.stored_places(study, mirror, offline))
    card = make_card(run, form, name=to.name)
    written = export_run(spec, run.folder, reader, to, is_merged=is_merged, card=card)
    found = written.reloaded
    print(
        f"Wrote {written.folder}. Reloaded, its logits differ from the run's by at most "
        f"{found.largest_logit_difference:g}; its cross-entropy on {found.n_rows} validation rows, "
        f"{found.cross_entropy:.4f} nats a token, by {abs(found.cross_entropy_difference):g}."
    )


def find_run(study: StudyFolder, run_id: str) -> RunSpec:
    """The spec of a run by its id.

    Raises:
        ConfigError: The study has no such run; its runs are listed.
    """
    found = {run.spec.run_id: run.spec for run in read_overview(study)}
    if run_id not in found:
        raise ConfigError(f"{study.path} has no run {run_id!r}. It has: {', '.join(found)}.")
    return found[run_id]


def push(
    folder: Annotated[Path, typer.Argument(help="What `export` wrote.", metavar="FOLDER")],
    repository: Annotated[str, typer.Argument(help="Hub id, owner/name.", metavar="REPO")],
    really: Annotated[
        bool, typer.Option("--really", help="Upload; without it, only say what would be.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
) -> None:
    """Upload an exported model to the hub. Without --really nothing leaves this machine."""
    files = sorted(path for path in folder.glob("**/*") if path.is_file())
    if not (folder / "README.md").is_file() or not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} is no exported model: README.md and safetensors files are missing. "
            "Write one with `lorastudy export DIR RUN --to FOLDER`."
        )
    for path in files:
        print(f"{path.stat().st_size:>14,}  {path.relative_to(folder)}")
    visibility = "public" if public else "private"
    if not really:
        print(f"Would go to the {visibility} repository {repository}. Upload it with --really.")
        return
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        done = api.upload_folder(repo_id=repository, folder_path=folder)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"{repository}: the upload failed ({str(error).splitlines()[0]}). "
            "Check the name, the network and `hf auth login`."
        ) from error
    print(f"Uploaded: {done}")
