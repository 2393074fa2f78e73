"""`check`: everything about a study that can be known before it runs."""

from dataclasses import asdict
from typing import Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.options import AsJson, Device, Mirror, Offline, Overrides, StudyName
from lorastudy.study.open import open_study

Probe = Annotated[
    bool,
    typer.Option(
        "--probe",
        help="Try the first 20 steps of every arm, and predict the hours of the study from them.",
    ),
]
PriceOfHour = Annotated[
    str | None,
    typer.Option(
        "--price", metavar="AMOUNT/h", help="Of an hour on this machine, e.g. 1.20/h: add the cost."
    ),
]


def check(
    study: StudyName,
    *,
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    overrides: Overrides = None,
    probe: Probe = False,
    price: PriceOfHour = None,
    as_json: AsJson = False,
) -> None:
    """Validate everything short of training: weights, modules, steps, memory, time."""
    options.check_device(device)
    from lorastudy.api.checking import look_ahead, read_wishes

    wishes = read_wishes(device=device, probe=probe, price=price)
    opened = open_study(study, overrides=overrides or (), mirror=mirror, offline=offline)
    from lorastudy.study.notes import list_texts, note_overlaps

    checked, facts = look_ahead(opened, wishes)
    if as_json:
        options.print_json(asdict(facts))
        return
    from lorastudy.cli.show_check import print_check

    print_check(opened.study, checked, facts, wishes)
    for line in list_texts(checked.lock):
        print(line)
    for note in (*facts.notes, *note_overlaps(checked.lock)):
        print(f"Note: {note}")
