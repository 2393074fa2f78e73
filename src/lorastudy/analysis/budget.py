"""What the budget of a study was, and what each arm made of it."""

from dataclasses import dataclass

from lorastudy.analysis.evidence import Evidence
from lorastudy.analysis.statistics import estimate_mean
from lorastudy.analysis.summary import ArmSummary
from lorastudy.config.budget import PlannedArm, TrainingBudget
from lorastudy.config.models import Study


@dataclass(frozen=True, slots=True)
class ArmBudget:
    """What one arm made of the budget; means over seeds."""

    arm: str
    planned: PlannedArm | None  # None: a budget of steps needs no plan
    steps: float | None  # optimizer steps that its runs took; None: no run finished
    tokens: float | None  # scored, that its runs were trained on
    epochs: float | None  # the same as passes over the training rows; None: not known


@dataclass(frozen=True, slots=True)
class SharedBudget:
    """One amount that every arm had, and what the trained arms made of it."""

    budget: TrainingBudget
    arms: tuple[ArmBudget, ...]


def measure_budget(
    arms: tuple[ArmSummary, ...], evidence: Evidence, study: Study | None
) -> SharedBudget | None:
    """The budget of the study, and what its arms made of it; None: it has none."""
    if study is None or (budget := study.training.budget) is None:
        return None
    trained = [arm for arm in arms if not arm.is_baseline and arm.runs]
    return SharedBudget(budget, tuple(_measure(arm, evidence, budget) for arm in trained))


def _measure(arm: ArmSummary, evidence: Evidence, budget: TrainingBudget) -> ArmBudget:
    steps = estimate_mean([run.optimizer_steps for run in arm.runs if run.optimizer_steps])
    tokens = estimate_mean([run.train_tokens for run in arm.runs if run.train_tokens])
    per_epoch = next((e.manifest for e in evidence.of_arm(arm) if e.manifest is not None), None)
    return ArmBudget(
        arm=arm.arm,
        planned=budget.plan_of(arm.arm),
        steps=steps.mean if steps else None,
        tokens=tokens.mean if tokens else None,
        epochs=tokens.mean / per_epoch.train_targets_per_epoch if tokens and per_epoch else None,
    )
