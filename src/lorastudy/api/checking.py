"""`lorastudy.check`: everything about a study that can be known before it runs."""

from pathlib import Path

from lorastudy.api.study import Study, open_for
from lorastudy.machine.environment import choose_device
from lorastudy.study.check import check_study
from lorastudy.study.facts import CheckFacts, describe_check


def check(
    study: Study | str | Path,
    *,
    device: str = "auto",
    mirror: str | Path | None = None,
    offline: bool = False,
) -> CheckFacts:
    """Validate everything short of training; the facts of `lorastudy check --json`.

    Args:
        study: A study, or what `load_study` takes.
        device: auto, cpu or cuda.
        mirror: Folder laid out like the hub, looked at before the cache and the hub.
        offline: Never ask the hub.

    Raises:
        StudyError: Settings that cannot be carried out with this model or device.
        lorastudy.errors.InputError: Data or model files that are missing or unfit.
    """
    opened = open_for(study, mirror=mirror, offline=offline)
    checked = check_study(opened.study, opened.places, choose_device(device))
    return describe_check(opened.study, checked)
