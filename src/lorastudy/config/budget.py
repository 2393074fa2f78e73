"""What every arm of a study gets the same amount of, instead of the same number of epochs.

A budget is one amount. What it means for an arm (optimizer steps, or rows that are computed at
once) is planned before the first run, and kept in the study file of the study's folder under
`planned`. A run's spec has only what was planned for its arm, so a budget of 2M tokens and one of
as many steps are the same run.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from lorastudy.config.syntax import Count, IfAny, IfGiven, Name, StudyModel, refuse, wrong_value
from lorastudy.units import read_bytes, read_count, read_seconds, write_mib

BudgetKind = Literal["steps", "tokens", "flops", "seconds", "peak_memory"]
BUDGET_KINDS: tuple[BudgetKind, ...] = get_args(BudgetKind)
_LEAST_BYTES = 10**6  # less than a million bytes is a number without its unit


def _reading(read: Callable[[str], float | None], what: str) -> BeforeValidator:
    """A validator that reads an amount from text such as 2M; numbers stay as they are."""

    def convert(value: object) -> object:
        if isinstance(value, str):
            found = read(value)
            if found is None:
                raise wrong_value(f"is not {what}")
            return found
        return value

    return BeforeValidator(convert)


def _as_whole(value: object) -> object:
    """2e6, which YAML reads as a number with a fraction, as 2000000."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse_few_bytes(value: int) -> int:
    if value < _LEAST_BYTES:
        raise wrong_value("bytes are too few for a model; write the unit too, as in 8GB")
    return value


def _amount(kind: str) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": kind, "exclusiveMinimum": 0}, {"type": "string"}]})


Tokens = Annotated[
    int,
    Field(ge=1, le=10**15),
    BeforeValidator(_as_whole),
    _reading(read_count, "a number of tokens, such as 2000000, 500k or 2M"),
    _amount("integer"),
]
_Positive = Annotated[float, Field(gt=0), _amount("number")]
Flops = Annotated[
    _Positive,
    _reading(read_count, "a number of floating-point operations, such as 1e15, 300T or 2P"),
]
Seconds = Annotated[_Positive, _reading(read_seconds, "a duration, such as 600, 10min or 1.5h")]
Bytes = Annotated[
    int,
    AfterValidator(_refuse_few_bytes),
    _reading(read_bytes, "an amount of memory with its unit, such as 8GB or 11.5GiB"),
    _amount("integer"),
]


class PlannedArm(StudyModel):
    """What a budget means for one arm."""

    arm: Name
    """Name of the arm."""
    amount: Annotated[float, Field(ge=0)]
    """How much of the budget's amount the arm is planned to use."""
    steps: IfGiven[Count] = None
    """Optimizer steps of its runs; null: as many as the epochs have."""
    token_budget: IfGiven[Count] = None
    """As training.token_budget, for this arm."""
    activation_checkpointing: IfAny[bool] = False
    """As training.activation_checkpointing, for this arm."""
    waited_share: IfGiven[Annotated[float, Field(ge=0, le=1)]] = None
    """Of seconds: how much of the time its threads waited for the CPU while it was measured."""


class TrainingBudget(StudyModel):
    """One amount that every arm gets: exactly one of the first five keys."""

    steps: IfGiven[Count] = None
    """Optimizer steps."""
    tokens: IfGiven[Tokens] = None
    """Scored tokens that are trained on, such as 2M."""
    flops: IfGiven[Flops] = None
    """Floating-point operations of training, by shapes, such as 1e15 or 2P."""
    seconds: IfGiven[Seconds] = None
    """Seconds of optimizer steps, such as 600 or 10min, by the first steps of each arm."""
    peak_memory: IfGiven[Bytes] = None
    """Predicted peak memory, such as 8GB: computes fewer rows at once; needs epochs as well."""
    planned: IfAny[tuple[PlannedArm, ...]] = ()
    """What it means for each arm; written when the study starts, so leave it out."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [kind for kind in BUDGET_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            said = f"has {' and '.join(given)}" if given else "has no amount"
            refuse([("", f"{said}; give exactly one of {', '.join(BUDGET_KINDS)}")])
        refuse(
            [
                (f"planned.{i}.steps", f"is {what} with a budget of {self.kind}")
                for i, planned in enumerate(self.planned)
                if (what := self._mistake_of(planned)) is not None
            ]
        )
        return self

    def _mistake_of(self, planned: PlannedArm) -> str | None:
        """What is wrong with the steps of a plan."""
        has_steps = self.kind in ("tokens", "flops", "seconds")
        if has_steps and planned.steps is None:
            return "required"
        return "not planned" if not has_steps and planned.steps is not None else None

    @property
    def kind(self) -> BudgetKind:
        """What is equal."""
        return next(kind for kind in BUDGET_KINDS if getattr(self, kind) is not None)

    @property
    def amount(self) -> float:
        """How much of it every arm gets."""
        found: float = getattr(self, self.kind)
        return found

    def amount_of(self, arm: str) -> float | None:
        """How much of it one arm is planned to use; None: it is not planned."""
        if self.kind == "steps":
            return self.amount
        planned = self.plan_of(arm)
        return None if planned is None else planned.amount

    def plan_of(self, arm: str) -> PlannedArm | None:
        """What it means for one arm; None: it is not planned, or says so itself."""
        return next((planned for planned in self.planned if planned.arm == arm), None)

    def is_like(self, other: "TrainingBudget | None") -> bool:
        """Whether the other budget gives the same amount of the same thing."""
        return other is not None and (self.kind, self.amount) == (other.kind, other.amount)


def write_plan(budget: TrainingBudget) -> str:
    """What every arm has, and what it means for each: "..., 1e+15 FLOP: full 310 steps, ..."."""
    means = [
        f"{p.arm} {describe_memory(p.token_budget, is_checkpointed=p.activation_checkpointing)}"
        if p.steps is None
        else f"{p.arm} {p.steps:,} steps"
        for p in budget.planned
    ]
    said = f"Every arm has the same budget, {write_amount(budget.kind, budget.amount)}"
    return f"{said}: {', '.join(means)}." if means else f"{said}."


def list_disturbed(budget: TrainingBudget) -> list[str]:
    """Arms whose seconds were measured while other programs used the CPU."""
    return [planned.arm for planned in budget.planned if planned.waited_share is not None]


def write_amount(kind: BudgetKind, amount: float) -> str:
    """An amount with its unit: "500 optimizer steps", "2,000,000 tokens", "1e+15 FLOP"."""
    match kind:
        case "steps":
            return f"{amount:,.0f} optimizer step{'s' * (round(amount) != 1)}"
        case "tokens":
            return f"{amount:,.0f} token{'s' * (round(amount) != 1)}"
        case "flops":
            return f"{amount:.3g} FLOP"
        case "seconds":
            return f"{amount:,.4g} s of optimizer steps"
        case "peak_memory":
            return f"{write_mib(amount)} MiB of predicted peak memory"


def describe_memory(token_budget: int | None, *, is_checkpointed: bool) -> str:
    """How an arm keeps a budget of memory: "960 tokens at once, with activation checkpointing"."""
    said = "whole micro-batches" if token_budget is None else f"{token_budget:,} tokens at once"
    return f"{said}, with activation checkpointing" if is_checkpointed else said
