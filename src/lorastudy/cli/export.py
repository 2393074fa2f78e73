"""`export`: write models and results in forms that other programs use."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorastudy.cli import options
from lorastudy.cli.completion import complete_runs
from lorastudy.cli.options import AsJson, Mirror, Offline, StudyDir
from lorastudy.errors import ConfigError
from lorastudy.exchange.shapes import SHAPES
from lorastudy.store.folders import StudyFolder
from lorastudy.units import write_count

if TYPE_CHECKING:
    from lorastudy.analysis.choice import Choice
    from lorastudy.run.export import Exported

Run = Annotated[
    str | None,
    typer.Argument(
        help="A run, as `status` lists it; or an arm, for its best finished run.",
        metavar="RUN",
        autocompletion=complete_runs,
    ),
]
To = Annotated[
    str,
    typer.Option(help=f"With RUN: a new folder for its model. Without: {', '.join(SHAPES)}."),
]
ResultsFolder = Annotated[
    Path | None,
    typer.Option(
        help="Without RUN: folder for the results; default DIR/exports/TO.",
        parser=options.named_path,
        metavar="PATH",
    ),
]
Merge = Annotated[
    bool,
    typer.Option("--merge", help="Add the adapter into the weights, which gives a whole model."),
]
Weights = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(help="With --merge: the number format of the merged weights."),
]


def export(
    folder: StudyDir,
    name: Run = None,
    *,
    to: To,
    out: ResultsFolder = None,
    merge: Merge = False,
    weights: Weights = "float32",
    mirror: Mirror = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Write a run's model as a PEFT folder or a whole model; or all results for another program.

    Models have a card with their scores, and are checked by loading them again.
    """
    if name is None:
        if merge:
            raise ConfigError("--merge merges one run's adapter. Name the RUN.")
        _export_results(StudyFolder(folder), to, out or folder / "exports" / to, as_json=as_json)
        return
    if weights != "float32" and not merge:
        raise ConfigError("--weights is for merged weights. Add --merge.")
    if not to.strip():
        raise ConfigError("--to: the path is empty. Name a new folder.")
    if out is not None:
        raise ConfigError("--out is for results of the whole study. With RUN, --to is the folder.")
    from lorastudy.api.export import export_model
    from lorastudy.study.open import open_folder

    opened = open_folder(folder, mirror=mirror, offline=offline)
    choice = _choose(opened.folder, name, as_json=as_json)
    written = export_model(opened, choice.spec, Path(to), is_merged=merge, weights=weights)
    if as_json:
        options.print_json({"run_id": choice.spec.run_id, **asdict(written)})
    else:
        print(_say(written, weights=weights if merge else None))


def _choose(study: StudyFolder, name: str, *, as_json: bool) -> "Choice":
    """The run that is meant; damaged ones cannot be chosen, so they are named."""
    from lorastudy.analysis.choice import choose_run

    options.say_doubts(study)
    choice = choose_run(study, name)
    if choice.reason and not as_json:
        print(choice.reason)
    return choice


def _export_results(study: StudyFolder, to: str, out: Path, *, as_json: bool) -> None:
    from lorastudy.exchange.shapes import export_results

    run_ids = export_results(study, to, out)
    options.say_doubts(study)
    if as_json:
        options.print_json({"to": to, "folder": out, "runs": run_ids})
    else:
        print(f"Wrote {write_count(len(run_ids), 'run')} to {out}.")


def _say(written: "Exported", *, weights: str | None) -> str:
    found = written.reloaded
    how = ", whatever the base's number format" if weights == "float32" else ""
    form = f" Its weights are {weights}{how}." if weights else ""
    costs = ", ".join(f"{form} {nats:+.4f}" for form, nats in written.costs.items())
    served = f" Served from it, nats per token more than the run: {costs}." if costs else ""
    return (
        f"Wrote {written.folder}. Reloaded, its logits differ from the run's by at most "
        f"{found.largest_logit_difference:g} (the largest is {found.largest_logit:.4g}); its "
        f"cross-entropy on {found.n_rows} validation rows, "
        f"{found.cross_entropy:.4f} nats per token, by {abs(found.cross_entropy_difference):g}."
        f"{form}{served}"
    )
