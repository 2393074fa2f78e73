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
    """Validate everything short of loading weights: modules, counts, steps, memory."""
    options.check_device(device)
    opened = open_study(study, overrides=overrides or (), mirror=mirror, offline=offline)
    from lorastudy.machine.environment import choose_device
    from lorastudy.study.check import check_study
    from lorastudy.study.facts import describe_check

    checked = check_study(opened.study, opened.places, choose_device(device))
    facts = describe_check(opened.study, checked)
    if as_json:
        options.print_json(asdict(facts))
        return
    from lorastudy.cli.show import print_check

    print_check(opened.study, checked)
    for name, counts in (("train", facts.train_text), ("validation", facts.validation_text)):
        print(
            f"{name}: {counts.n_documents:,} documents, {counts.n_tokens:,} tokens, of which "
            f"{counts.dropped_share:.1%} in no row and {counts.unknown_share:.1%} unknown"
        )
    for note in facts.notes:
        print(f"Note: {note}")
    for part in facts.overlap:
        print(
            f"{part.documents:,} of the {part.of:,} documents of {part.benchmark} are in the "
            "training split: its scores show memory too."
        )
