"""What a study's budget means for each of its arms, before the first run.

    tokens     steps that read as many scored tokens, on average over an epoch's rows
    flops      the same for operations, counted by `flops`
    seconds    the same for seconds, from the first steps of each arm on this machine
    memory     rows that are computed at once, and whether layers are computed again

A plan holds for all seeds and learning rates of an arm. It becomes a part of the study file, so
runs are known before they start, and a study that is continued, or copied, has the same ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import torch

from lorastudy.analysis.evidence import CONTENDED
from lorastudy.config.budget import PlannedArm, TrainingBudget, write_amount
from lorastudy.config.models import Study, Training
from lorastudy.config.study_file import with_plan
from lorastudy.config.syntax import MOST
from lorastudy.errors import ConfigError, show_names
from lorastudy.launch.attempt import TriedArm
from lorastudy.launch.probe import time_study
from lorastudy.machine.environment import choose_device
from lorastudy.machine.speed import MachineSpeed, measure_speed
from lorastudy.study.cards import Card
from lorastudy.study.check import ArmCheck, StudyCheck, check_study, find_longest_row
from lorastudy.study.fitting import ArmFit, fit_study
from lorastudy.study.flops import count_flops
from lorastudy.study.open import OpenedStudy
from lorastudy.study.predicted_peak import predict_arm_peak
from lorastudy.study.run_seconds import count_targets, predict_roughly
from lorastudy.study.start import refuse_folder
from lorastudy.units import write_mib


@dataclass(frozen=True, slots=True)
class Pace:
    """The seconds of an arm's optimizer steps."""

    first_steps: float  # what the first steps take longer than the others
    per_epoch: float
    waited_share: float | None = None  # for the CPU, as `ProbedSeconds` has it


def plan_budget(opened: OpenedStudy, device: str) -> OpenedStudy:
    """The study with a plan for every arm; it is checked, and arms are tried where that is needed.

    Raises:
        UserError: See `check_study`; another study was started in the folder; the budget cannot be
            met; or an arm does not fit into memory.
    """
    study = opened.study
    if not list_unplanned(study):
        return opened
    refuse_folder(study, opened.folder)
    checked = check_study(study, opened.places, choose_device(device))
    assert study.training.budget is not None
    paces = {}
    if study.training.budget.kind == "seconds":
        paces = try_paces(study, checked, opened, device)
    return replace(opened, study=plan_study(study, checked, paces))


def list_unplanned(study: Study) -> tuple[str, ...]:
    """The trained arms for which it is not known yet what the budget means."""
    return tuple(arm.name for arm in study.arms if not study.is_planned(arm))


def plan_study(study: Study, checked: StudyCheck, paces: Mapping[str, Pace]) -> Study:
    """The study with a plan for every arm; `paces` are needed for a budget of seconds.

    Raises:
        ConfigError: The budget is less than one step, more than all steps that a study may have,
            or less than any memory that an arm needs.
    """
    budget, unplanned = study.training.budget, list_unplanned(study)
    if budget is None or not unplanned:
        return study
    arms = [arm for arm in checked.arms if arm.spec.arm.name in unplanned]
    if budget.kind == "peak_memory":
        planned = _plan_memory(budget, arms, checked)
    else:
        planned = [_plan_steps(budget, arm, checked, paces.get(arm.spec.arm.name)) for arm in arms]
    return with_plan(study, planned)


def _plan_steps(
    budget: TrainingBudget, arm: ArmCheck, checked: StudyCheck, pace: Pace | None
) -> PlannedArm:
    """The most steps with which an arm uses no more than the budget."""
    first, per_epoch = Fraction(0), Fraction(0)
    match budget.kind:
        case "tokens":
            per_epoch = Fraction(count_targets(arm.layout.epoch, arm.layout.padding))
        case "flops":
            counted = count_flops(arm.spec.arm, checked.reader.base, arm.placement)
            per_epoch = Fraction(counted.of_rows(arm.layout.epoch, arm.layout.padding))
        case "seconds":
            assert pace is not None
            first, per_epoch = Fraction(pace.first_steps), Fraction(pace.per_epoch)
    plan = arm.layout.plan
    steps = plan.count_steps_within(max(Fraction(0), Fraction(budget.amount) - first) / per_epoch)
    if steps < 1:
        one = float(first + per_epoch * plan.until(1).epochs_until(1))
        raise ConfigError(
            f"training.budget.{budget.kind}: {write_amount(budget.kind, budget.amount)} is less "
            f"than one step of {arm.spec.arm.name}, which needs about "
            f"{write_amount(budget.kind, one)}. Give a larger budget."
        )
    if steps > MOST:
        raise ConfigError(
            f"training.budget.{budget.kind}: {write_amount(budget.kind, budget.amount)} is more "
            f"than {MOST:,} steps of {arm.spec.arm.name}. Give a smaller budget."
        )
    used = first + per_epoch * plan.until(steps).epochs_until(steps)
    waited = pace.waited_share if pace is not None else None
    return PlannedArm(
        arm=arm.spec.arm.name,
        amount=round(float(used), 3),
        steps=steps,
        waited_share=round(waited, 2) if waited is not None and waited >= CONTENDED else None,
    )


def try_paces(
    study: Study, checked: StudyCheck, opened: OpenedStudy, device: str
) -> dict[str, Pace]:
    """The pace of each arm that has no plan, measured in its first steps.

    Raises:
        ConfigError: An arm does not fit into memory, so nothing could be measured.
        UserError: An arm cannot be trained.
    """
    unplanned = list_unplanned(study)
    arms = {a.spec.arm.name: a for a in checked.arms if a.spec.arm.name in unplanned}
    runs = [arm.spec.model_copy(update={"benchmarks": ()}) for arm in arms.values()]
    return read_paces(arms.values(), time_study(study, runs, opened.places, device))


def read_paces(arms: Iterable[ArmCheck], tried: Mapping[str, TriedArm]) -> dict[str, Pace]:
    """The pace of each of `arms` that was tried.

    Raises:
        ConfigError: One of them does not fit into memory.
    """
    found = {}
    for arm in arms:
        name = arm.spec.arm.name
        seconds = tried[name].seconds
        if seconds is None:
            raise ConfigError(
                f"training.budget.seconds: the first steps of {name} do not fit into memory, so "
                "they could not be measured. `lorastudy check --device-memory SIZE` says what to "
                "change."
            )
        targets = count_targets(arm.layout.epoch, arm.layout.padding)
        found[name] = Pace(seconds.first_steps, seconds.per_target * targets, seconds.waited_share)
    return found


def guess_paces(study: Study, checked: StudyCheck) -> dict[str, Pace]:
    """The pace of each trained arm, roughly, from shapes and half a second of measuring."""
    hidden, precision = checked.reader.base.hidden_size, study.training.precision
    speed: MachineSpeed = measure_speed(checked.device, precision, hidden)
    arms = (arm for arm in checked.arms if arm.trains)
    return {
        arm.spec.arm.name: Pace(
            0.0, predict_roughly(arm, checked, speed).training / arm.layout.plan.n_passes
        )
        for arm in arms
    }


def _plan_memory(
    budget: TrainingBudget, arms: Iterable[ArmCheck], checked: StudyCheck
) -> list[PlannedArm]:
    """The smallest change with which each arm fits into the budget; it changes only rounding."""
    assert budget.peak_memory is not None
    usable = Card("the budget", budget.peak_memory).usable_bytes(checked.device.type)
    few = replace(checked, arms=tuple(arms))
    fits = fit_study(few, usable_bytes=usable, device=checked.device)
    if short := [f for f in fits if not f.formats[0].fits and _change_of(f) is None]:
        names = [fit.arm for fit in short]
        least = ", ".join(f"{f.arm} {write_mib(f.formats[0].peak.total)} MiB" for f in short)
        raise ConfigError(
            f"training.budget.peak_memory: {show_names(names)} would need more than "
            f"{write_mib(usable)} MiB even with one row at a time and activation checkpointing "
            f"(as it is: {least}). Give a larger budget, or hold the base in fewer bits."
        )
    return [
        _describe_memory(_change_of(fit) or arm.spec.training, arm, checked)
        for arm, fit in zip(few.arms, fits, strict=True)
    ]


def _change_of(fit: ArmFit) -> Training | None:
    """The settings with which the arm fits and is still the same arm; None: as it is, or none."""
    return fit.change.training if fit.change is not None and fit.harm == "none" else None


def _describe_memory(training: Training, arm: ArmCheck, checked: StudyCheck) -> PlannedArm:
    peak = predict_arm_peak(
        arm.spec.arm,
        training,
        checked.reader.base,
        arm.placement,
        arm.size,
        row=find_longest_row(arm.layout, arm.spec),
        device=torch.device(checked.device.type),
    )
    return PlannedArm(
        arm=arm.spec.arm.name,
        amount=float(peak.total),
        token_budget=training.token_budget,
        activation_checkpointing=training.activation_checkpointing,
    )
