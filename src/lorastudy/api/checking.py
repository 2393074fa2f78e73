"""`lorastudy.check`: everything about a study that can be known before it runs."""

from dataclasses import dataclass
from pathlib import Path

from lorastudy.api.facts import CheckFacts, describe_check
from lorastudy.api.study import Study, open_for
from lorastudy.launch.probe import time_study
from lorastudy.machine.environment import choose_device
from lorastudy.study.check import StudyCheck, check_study
from lorastudy.study.open import OpenedStudy
from lorastudy.study.price import Price, read_price
from lorastudy.study.run_seconds import predict_study


def check(
    study: Study | str | Path,
    *,
    device: str = "auto",
    mirror: str | Path | None = None,
    offline: bool = False,
    probe: bool = False,
    price: str | None = None,
) -> CheckFacts:
    """Validate everything short of training; the facts of `lorastudy check --json`.

    Args:
        study: A study, or what `load_study` takes.
        device: auto, cpu or cuda.
        mirror: Folder laid out like the hub, looked at before the cache and the hub.
        offline: Never ask the hub.
        probe: Measure the first steps of every arm instead of counting what they compute.
        price: Of an hour on this machine, as "1.20/h".

    Raises:
        StudyError: Settings that cannot be carried out with this model or device, or a value of
            an argument that cannot be read.
        lorastudy.errors.InputError: Data or model files that are missing or unfit.
    """
    opened = open_for(study, mirror=mirror, offline=offline)
    return look_ahead(opened, read_wishes(device=device, probe=probe, price=price))[1]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of a check beyond its facts."""

    device: str
    probe: bool
    price: Price | None


def read_wishes(*, device: str, probe: bool, price: str | None) -> Wishes:
    """The options of `lorastudy check` and the arguments of `check`, understood.

    Raises:
        ConfigError: One of them cannot be read; the message shows the right form.
    """
    return Wishes(device=device, probe=probe, price=None if price is None else read_price(price))


def look_ahead(opened: OpenedStudy, wishes: Wishes) -> tuple[StudyCheck, CheckFacts]:
    """The checked study, and its facts.

    Raises:
        UserError: As `check`.
    """
    study, device = opened.study, wishes.device
    checked = check_study(study, opened.places, choose_device(device))
    whole = [arm.spec.model_copy(update={"benchmarks": study.benchmarks}) for arm in checked.arms]
    tried = time_study(study, whole, opened.places, device) if wishes.probe else None
    times = predict_study(study, checked, tried)
    return checked, describe_check(study, checked, times, wishes.price)
