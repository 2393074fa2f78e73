"""The facts of a check as plain values: what `check --json` prints and Python programs read."""

from dataclasses import dataclass

from lorastudy.analysis.outlook import Outlook
from lorastudy.api.memory import DeviceMemory
from lorastudy.config.budget import BudgetKind
from lorastudy.config.models import Study
from lorastudy.store.counts import HeldOut, MixedRows, Overlap, TextCounts
from lorastudy.study.check import ArmCheck, StudyCheck
from lorastudy.study.notes import note_study
from lorastudy.study.price import Price
from lorastudy.study.run_seconds import RunSeconds, StudySeconds, count_targets
from lorastudy.train.validations import count_validations


@dataclass(frozen=True, slots=True)
class ArmFacts:
    """What is known about one arm before it runs."""

    name: str
    method: str
    trainable_parameters: int
    total_parameters: int
    modules: tuple[str, ...]  # adapted modules, by full path
    rank: int | None  # of LoRA, given or chosen by a budget
    optimizer_steps: int  # of a run
    warmup_steps: int
    n_validations: int  # of a run that does not stop early
    train_rows: int
    train_epochs: float  # of a run: passes over the training rows; not whole with a budget
    train_tokens: int  # of a run: scored targets that are trained on, on average over seeds
    predicted_peak_bytes: int
    predicted_disk_bytes: int  # of a finished run
    fits: bool  # the predicted peak is within the memory that is available now
    predicted_seconds: float  # of one run
    seconds: RunSeconds  # the same by part
    measured_peak_bytes: dict[str, int] | None = None  # by kind; None: it was not probed
    planned_amount: float | None = None  # of the budget, that the arm uses; None: no budget
    token_budget: int | None = None  # tokens that are computed at once; None: a micro-batch
    activation_checkpointing: bool = False

    @property
    def peak_bytes(self) -> int:
        """As measured where the arm was probed, else as predicted."""
        measured = self.measured_peak_bytes or {}
        return measured.get("allocated", measured.get("resident", self.predicted_peak_bytes))


@dataclass(frozen=True, slots=True)
class BudgetFacts:
    """What every arm gets the same amount of."""

    kind: BudgetKind
    amount: float


@dataclass(frozen=True, slots=True)
class CheckFacts:
    """What is known about a study before it runs."""

    arms: tuple[ArmFacts, ...]
    n_runs: int
    available_bytes: int
    overlap: tuple[Overlap, ...]  # benchmarks that share documents with the training split
    validation_overlap: Overlap | None  # None: the validation split shares none
    mixture: tuple[MixedRows, ...]  # what an epoch draws of each source; none: there is one
    held_out: HeldOut | None  # documents of the training data; None: validation has its own
    train_text: TextCounts
    validation_text: TextCounts
    notes: tuple[str, ...]  # sentences about what is allowed and may not be meant
    predicted_seconds: float  # of all runs, one after the other
    predicted_disk_bytes: int  # of all finished runs
    is_probed: bool  # seconds follow from measured steps; else roughly from shapes
    predicted_cost: float | None = None  # of all runs, in the currency of the price
    device_memory: DeviceMemory | None = None  # None: no device was named
    separable: tuple[Outlook, ...] = ()  # what each benchmark can find out
    budget: BudgetFacts | None = None  # None: every arm has the same epochs


def describe_check(
    study: Study, checked: StudyCheck, times: StudySeconds, price: Price | None = None
) -> CheckFacts:
    """The facts of `checked`, with the benchmarks whose documents are also trained on."""
    lock, budget = checked.lock, study.training.budget
    found = tuple(part for part in lock.overlap if part.documents)
    return CheckFacts(
        arms=tuple(_describe_arm(arm, study, checked, times) for arm in checked.arms),
        n_runs=checked.n_runs,
        available_bytes=checked.available_bytes,
        overlap=tuple(part for part in found if part.benchmark is not None),
        validation_overlap=next((part for part in found if part.benchmark is None), None),
        mixture=lock.mixture,
        held_out=lock.held_out,
        train_text=lock.texts["train"],
        validation_text=lock.texts["validation"],
        notes=tuple(note_study(study, checked)),
        predicted_seconds=times.total,
        predicted_disk_bytes=sum(
            arm.disk_bytes * times.n_runs[arm.spec.arm.name] for arm in checked.arms
        ),
        is_probed=bool(times.tried),
        predicted_cost=price.cost_of(times.total) if price else None,
        budget=None if budget is None else BudgetFacts(budget.kind, budget.amount),
    )


def _describe_arm(
    arm: ArmCheck, study: Study, checked: StudyCheck, times: StudySeconds
) -> ArmFacts:
    plan, schedule, name = arm.layout.plan, arm.layout.schedule, arm.spec.arm.name
    n_epochs, budget = plan.n_passes if arm.trains else 0.0, study.training.budget
    tried = times.tried.get(name)
    return ArmFacts(
        name=name,
        method=arm.spec.arm.method,
        trainable_parameters=arm.size.trained,
        total_parameters=checked.reader.base.total_parameters + arm.size.added,
        modules=arm.placement.paths,
        rank=arm.placement.rank,
        optimizer_steps=plan.n_steps if arm.trains else 0,
        warmup_steps=schedule.n_warmup if arm.trains else 0,
        n_validations=count_validations(arm.spec.training, plan) if arm.trains else 0,
        train_rows=plan.n_rows,
        train_epochs=n_epochs,
        train_tokens=round(count_targets(arm.layout.epoch, arm.layout.padding) * n_epochs),
        predicted_peak_bytes=arm.peak.total,
        predicted_disk_bytes=arm.disk_bytes,
        fits=tried.probed.fits if tried else arm.peak.total <= checked.available_bytes,
        predicted_seconds=times.by_arm[name].total,
        seconds=times.by_arm[name],
        measured_peak_bytes=tried.probed.peak_memory_bytes if tried else None,
        planned_amount=None if budget is None else budget.amount_of(name),
        token_budget=arm.spec.training.token_budget,
        activation_checkpointing=arm.spec.training.activation_checkpointing,
    )
