"""`check`: everything about a study that can be known before it runs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.options import (
    AsJson,
    Device,
    Mirror,
    Offline,
    Overrides,
    StudyName,
    named_path,
)
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
MemoryOfDevice = Annotated[
    str | None,
    typer.Option(
        "--device-memory",
        metavar="SIZE",
        help="Of a GPU, e.g. 12GB: memory of every arm by part, and what to change to make it fit.",
    ),
]
Gpu = Annotated[
    str | None,
    typer.Option("--gpu", metavar="NAME", help='The same by name of a card, e.g. "RTX 3060".'),
]
Like = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a finished study whose runs spread over seeds as these will.",
        parser=named_path,
        metavar="DIR",
    ),
]
WantedDifference = Annotated[
    float | None,
    typer.Option(
        metavar="NATS", help="Say how many seeds separate arms that differ by this, e.g. 0.02."
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
    device_memory: MemoryOfDevice = None,
    gpu: Gpu = None,
    like: Like = None,
    difference: WantedDifference = None,
    as_json: AsJson = False,
) -> None:
    """Find mistakes, and say what can be known before training: modules, steps, memory, time."""
    from lorastudy.api.checking import look_ahead, read_wishes

    wishes = read_wishes(
        device=device,
        probe=probe,
        price=price,
        device_memory=device_memory,
        gpu=gpu,
        like=like,
        difference=difference,
    )
    opened = open_study(study, overrides=overrides or (), mirror=mirror, offline=offline)
    checked, facts = look_ahead(opened, wishes)
    if as_json:
        options.print_json(asdict(facts))
        return
    from lorastudy.cli.show_check import print_check

    print_check(opened.study, checked, facts, wishes, name=study)
