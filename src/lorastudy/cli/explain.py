"""`explain`: what training changed, and what each change is worth."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.options import AsJson, Device, Mirror, Offline, StudyDir
from lorastudy.errors import ConfigError
from lorastudy.study.open import open_folder

if TYPE_CHECKING:
    from lorastudy.store.explanations import Explanation

ArmNames = Annotated[
    list[str] | None, typer.Option("--arm", help="Only this arm; repeatable.", metavar="NAME")
]
NRows = Annotated[int, typer.Option("--rows", min=1, help="Validation rows scored, at most 512.")]
AllSeeds = Annotated[
    bool, typer.Option("--all-seeds", help="Every run of an arm, not only its best one.")
]


def explain(
    folder: StudyDir,
    *,
    arms: ArmNames = None,
    n_rows: NRows = 128,
    all_seeds: AllSeeds = False,
    device: Device = "auto",
    mirror: Mirror = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Score trained models without one layer or one kind of module, and measure what changed.

    Nothing is trained. The report then shows what was found.
    """
    from lorastudy.analysis.findings import read_findings
    from lorastudy.api.explaining import explain_study
    from lorastudy.report.build import write_report
    from lorastudy.store.explanations import Explanation

    opened = open_folder(folder, mirror=mirror, offline=offline)
    found = []
    for one in explain_study(opened, arms or (), n_rows=n_rows, all_seeds=all_seeds, device=device):
        if isinstance(one, Explanation):
            found.append(one)
            if not as_json:
                print(_say(one))
        else:
            print(f"lorastudy: {one.run_id} is left out: {one.reason}", file=sys.stderr)
    if not found:
        raise ConfigError("no run could be explained.")
    page = write_report(read_findings(folder), folder)
    if as_json:
        options.print_json({"report": page, "explanations": [one.model_dump() for one in found]})
    else:
        print(f"Report: {page}")


def _say(found: "Explanation") -> str:
    worth = {
        kind: max(
            (part for part in found.parts if part.kind == kind),
            key=lambda part: part.cross_entropy,
            default=None,
        )
        for kind in ("layer", "modules")
    }
    said = [
        f"{'layer ' if kind == 'layer' else ''}{part.name} "
        f"({part.cross_entropy - found.cross_entropy:+.4f})"
        for kind, part in worth.items()
        if part is not None
    ]
    gain = found.base_cross_entropy - found.cross_entropy
    return (
        f"{found.run_id}: {gain:.4f} nats per target better than the base model on {found.n_rows} "
        f"validation rows; worth most: {', '.join(said)}"
    )
