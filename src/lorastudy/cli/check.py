"""`check`: everything about a study that can be known before it runs."""

from dataclasses import asdict

from lorastudy.cli import options
from lorastudy.cli.options import AsJson, Device, Mirror, Offline, Overrides, StudyName
from lorastudy.study.open import open_study


def check(
    study: StudyName,
    *,
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Validate everything short of training: weights, modules, counts, steps, memory."""
    options.check_device(device)
    opened = open_study(study, overrides=overrides or (), mirror=mirror, offline=offline)
    from lorastudy.machine.environment import choose_device
    from lorastudy.study.check import check_study
    from lorastudy.study.facts import describe_check
    from lorastudy.study.notes import list_texts, note_overlaps

    checked = check_study(opened.study, opened.places, choose_device(device))
    facts = describe_check(opened.study, checked)
    if as_json:
        options.print_json(asdict(facts))
        return
    from lorastudy.cli.show import print_check

    print_check(opened.study, checked)
    for line in list_texts(checked.lock):
        print(line)
    for note in (*facts.notes, *note_overlaps(checked.lock)):
        print(f"Note: {note}")
