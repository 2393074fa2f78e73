"""`lorastudy.check`: everything about a study that can be known before it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lorastudy.analysis.outlook import ASSUMED_SPREADS, Spreads, read_spreads
from lorastudy.api.facts import CheckFacts, describe_check
from lorastudy.api.memory import describe_fits
from lorastudy.api.outlook import look_out_for
from lorastudy.api.study import Study, open_for
from lorastudy.config import models
from lorastudy.errors import ConfigError
from lorastudy.launch.attempt import TriedArm
from lorastudy.launch.probe import time_study
from lorastudy.machine.environment import choose_device
from lorastudy.study.budget import Pace, guess_paces, list_unplanned, plan_study, read_paces
from lorastudy.study.cards import Card, read_card
from lorastudy.study.check import StudyCheck, check_study
from lorastudy.study.fitting import fit_study
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
    device_memory: str | None = None,
    gpu: str | None = None,
    like: str | Path | None = None,
    difference: float | None = None,
) -> CheckFacts:
    """Validate everything short of training; the facts of `lorastudy check --json`.

    Args:
        study: A study, or what `load_study` takes.
        device: auto, cpu or cuda.
        mirror: Folder laid out like the hub, looked at before the cache and the hub.
        offline: Never ask the hub.
        probe: Measure the first steps of every arm instead of counting what they compute.
        price: Of an hour on this machine, as "1.20/h".
        device_memory: Of a device that every arm is to fit into, as "12GB".
        gpu: The same by the name of a card, as "RTX 3060".
        like: Folder of a finished study, whose runs spread over seeds as these will.
        difference: In nats per token, that the study is to separate: how many seeds it needs.

    Raises:
        StudyError: Settings that cannot be carried out with this model or device, or a value of
            an argument that cannot be read.
        lorastudy.errors.InputError: Data or model files that are missing or unfit.
    """
    opened = open_for(study, mirror=mirror, offline=offline)
    wishes = read_wishes(
        device=device,
        probe=probe,
        price=price,
        device_memory=device_memory,
        gpu=gpu,
        like=None if like is None else Path(like),
        difference=difference,
    )
    return look_ahead(opened, wishes)[1]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of a check beyond its facts."""

    device: str
    probe: bool
    price: Price | None
    card: Card | None
    spreads: Spreads
    difference: float | None  # nats per target


def read_wishes(
    *,
    device: str,
    probe: bool,
    price: str | None,
    device_memory: str | None,
    gpu: str | None,
    like: Path | None,
    difference: float | None,
) -> Wishes:
    """The options of `lorastudy check` and the arguments of `check`, understood.

    Raises:
        ConfigError: One of them cannot be read, or has no use; the message says what does.
    """
    return Wishes(
        device=device,
        probe=probe,
        price=None if price is None else read_price(price),
        card=read_card(device_memory, gpu),
        spreads=ASSUMED_SPREADS if like is None else read_spreads(like),
        difference=_read_difference(difference),
    )


def _read_difference(difference: float | None) -> float | None:
    if difference is None or 1e-6 <= difference <= 10:
        return difference
    raise ConfigError(
        f"--difference {difference} is not between 0.000001 and 10. Write it in nats per token, as "
        "0.02, which is 2 % of a perplexity."
    )


_AT_START = (
    "`run` plans the steps of each arm once, from its first steps on the machine that starts the "
    "study, and keeps them for all seeds"
)
_GUESSED = f"the steps of each arm are a rough guess from shapes. {_AT_START}; --probe does so now."
_MEASURED = f"the steps of each arm follow from what was measured just now. {_AT_START}."


def _find_paces(
    study: models.Study, checked: StudyCheck, tried: Mapping[str, TriedArm] | None
) -> Mapping[str, Pace]:
    """How fast each arm is trained, as far as this is known, if its budget needs it."""
    budget = study.training.budget
    if budget is None or budget.kind != "seconds":
        return {}
    if tried is None:
        return guess_paces(study, checked)
    return read_paces((arm for arm in checked.arms if arm.trains), tried)


def look_ahead(opened: OpenedStudy, wishes: Wishes) -> tuple[StudyCheck, CheckFacts]:
    """The checked study, and its facts.

    Raises:
        UserError: As `check`.
    """
    study, device = opened.study, wishes.device
    checked = check_study(study, opened.places, choose_device(device))
    whole = [arm.spec.model_copy(update={"benchmarks": study.benchmarks}) for arm in checked.arms]
    tried = time_study(study, whole, opened.places, device) if wishes.probe else None
    unplanned = list_unplanned(study)
    if unplanned:
        study = plan_study(study, checked, _find_paces(study, checked, tried))
        checked = check_study(study, opened.places, choose_device(device))
    facts = describe_check(study, checked, predict_study(study, checked, tried), wishes.price)
    if unplanned and facts.budget is not None and facts.budget.kind == "seconds":
        facts = replace(facts, notes=(*facts.notes, _GUESSED if tried is None else _MEASURED))
    outlooks = tuple(look_out_for(study, checked, wishes.spreads, wishes.difference))
    facts = replace(facts, separable=outlooks, notes=(*opened.notes, *facts.notes))
    if wishes.card is None:
        return checked, facts
    # a card is meant where nothing else is said
    where = torch.device("cpu" if device == "cpu" else "cuda")
    usable = wishes.card.usable_bytes(where.type)
    fits = fit_study(checked, usable_bytes=usable, device=where)
    return checked, replace(facts, device_memory=describe_fits(wishes.card, usable, fits, checked))
