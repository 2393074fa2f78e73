"""How every arm of a study is trained: schedule, optimizer, sums and precision.

Nothing here differs between the arms of a study; learning rates belong to the arms. Only a budget
means something of its own for each arm, which `Training.of_arm` says.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from lorastudy.config.budget import TrainingBudget, write_amount
from lorastudy.config.syntax import Count, IfAny, IfGiven, Mistake, StudyModel, refuse

Rounding = Literal["down", "up"]


class Schedule(StudyModel):
    """The learning rate as a function of the optimizer step."""

    shape: Literal["linear", "cosine", "constant"] = "linear"
    """What follows the linear warm-up: a descent to zero, or the peak until the end."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the counted steps during which the rate rises from zero to its peak."""
    counted_in: Literal["optimizer-steps", "micro-batches"] = "optimizer-steps"
    """micro-batches repeats a known mistake: totals count these, but the rate moves by steps."""
    rounding: Annotated[Rounding, Field(exclude_if=lambda way: way == "down")] = "up"
    """How the warm-up becomes whole steps; up: as transformers' Trainer does."""

    @model_validator(mode="before")
    @classmethod
    def _read_record(cls, values: Any, info: ValidationInfo) -> Any:
        """Records are JSON, and leave `down` out: it was the only way before there was a key."""
        if info.mode == "json" and isinstance(values, dict):
            return {"rounding": "down", **values}
        return values


class Optimizer(StudyModel):
    """The optimizer; its learning rate belongs to the arm."""

    name: Literal["adamw", "adamw-8bit"] = "adamw"
    """AdamW with decoupled weight decay; adamw-8bit: moments in 8 bits, by bitsandbytes."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Decay of every trained parameter per step; it is multiplied by the learning rate."""
    betas: tuple[
        Annotated[float, Field(ge=0, lt=1)],
        Annotated[float, Field(ge=0, lt=1)],
    ] = (0.9, 0.999)
    """Decay rates of the optimizer's two moment estimates."""
    eps: Annotated[float, Field(gt=0, lt=1)] = 1e-8
    """Added to the denominator of the update."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradients with a larger norm are scaled down to this norm; null: never."""


class EarlyStopping(StudyModel):
    """When a run ends before its last step. The schedule stays that of all planned steps."""

    patience: Count
    """A run stops after this many validations in a row without an improvement."""
    min_delta: Annotated[float, Field(ge=0, lt=10)] = 0.0
    """Least improvement: nats per target, or a share of right answers with data.best_by."""


class Training(StudyModel):
    """One training protocol for all arms of the study."""

    epochs: IfGiven[Count] = None
    """Passes over the training rows; required unless budget says how long arms are trained."""
    budget: IfGiven[TrainingBudget] = None
    """One amount that every arm gets, such as {tokens: 2M}; null: all arms have the same epochs."""
    rows_per_step: Count
    """Rows whose gradients are added for one optimizer step."""
    micro_batch: Count
    """Rows computed at once; rows_per_step must be a multiple of it. Never changed silently."""
    token_budget: Count | None = None
    """A micro-batch of more tokens is computed in parts; same sums; on a GPU other dropout."""
    implementation: Literal["fast", "compiled", "reference"] = "fast"
    """fast: own code; compiled: fast with torch.compile; reference: transformers + PEFT as is."""
    schedule: Schedule = Schedule()
    """Shape of the learning rate over the steps."""
    optimizer: Optimizer = Optimizer()
    """Update rule."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the computation; trained parameters stay float32."""
    padding: Literal["masked", "scored"] = "masked"
    """scored: padding is trained on as if it were text (the published protocol)."""
    accumulation: Literal["token-weighted", "micro-batch-means"] = "token-weighted"
    """Whether every scored token of a step weighs the same, or every micro-batch does."""
    activation_checkpointing: IfAny[bool] = False
    """Keep only the inputs of layers, and compute the layers again in backward: less memory."""
    first_group: Literal["full", "one"] = "full"
    """one: the first optimizer step follows a single micro-batch (the published protocol)."""
    validate_every: IfGiven[Count] = None
    """Validate after every N optimizer steps too; null: only after epochs. Each may be the best."""
    early_stopping: IfGiven[EarlyStopping] = None
    """Stop runs that no longer improve on validation, all by this rule; null: never."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        mistakes = self._mistakes_of_length()
        groups, rest = divmod(self.rows_per_step, self.micro_batch)
        if rest:
            what = f"{self.rows_per_step} is not a multiple of micro_batch {self.micro_batch}"
            mistakes.append(("rows_per_step", what))
        if self.activation_checkpointing and self.implementation == "compiled":
            what = "is for fast and reference; compiled layers choose themselves what they keep"
            mistakes.append(("activation_checkpointing", what))
        counts_micro_batches = self.schedule.counted_in == "micro-batches"
        if counts_micro_batches and self.schedule.warmup * groups >= 1:
            what = (
                f"{self.schedule.warmup} of the micro-batches is a warm-up longer than training, "
                f"since the rate moves only once every {groups} micro-batches; "
                "lower it or count in optimizer-steps"
            )
            mistakes.append(("schedule.warmup", what))
        if self.early_stopping is not None and self.validate_every is None:
            mistakes += self._mistakes_of_stopping(self.early_stopping.patience)
        refuse(mistakes)
        return self

    def _mistakes_of_length(self) -> list[Mistake]:
        """Whether epochs and budget both say how long arms are trained, or neither does."""
        if self.budget is None or self.budget.kind == "peak_memory":
            what = "is required; or a budget, such as budget: {tokens: 2M}"
            return [] if self.epochs is not None else [("epochs", what)]
        if self.epochs is None:
            return []
        what = (
            f"{self.epochs} and a budget of {self.budget.kind} both say how long arms are trained"
        )
        return [("epochs", f"{what}; leave one of them out, as with epochs: null")]

    @property
    def whole_epochs(self) -> int:
        """The epochs of every arm, where there is no budget that says how long it is trained."""
        assert self.epochs is not None
        return self.epochs

    @property
    def length_in_words(self) -> str:
        """How long arms are trained: "8 epochs", or "a budget of 2,000,000 tokens for each arm"."""
        if self.epochs is not None:
            return f"{self.epochs} epoch{'s' * (self.epochs != 1)}"
        assert self.budget is not None
        if self.budget.kind == "steps":
            return write_amount("steps", self.budget.amount)
        amount = write_amount(self.budget.kind, self.budget.amount)
        return f"a budget of {amount} for each arm"

    def of_arm(self, arm: str) -> "Training":
        """How one arm is trained, whatever the budget means for others."""
        if self.budget is None:
            return self
        if (planned := self.budget.plan_of(arm)) is None:
            alone = self.budget.model_copy(update={"planned": ()})
            return self.model_copy(update={"budget": alone})
        if planned.steps is not None:
            return self.model_copy(update={"budget": TrainingBudget(steps=planned.steps)})
        settings = planned.model_dump(include={"token_budget", "activation_checkpointing"})
        return self.model_copy(update={"budget": None, **settings})

    def _mistakes_of_stopping(self, patience: int) -> list[Mistake]:
        """Whether a run that validates only after epochs could stop before the last one."""
        if self.epochs is None or patience + 1 < self.epochs:
            return []
        what = (
            f"{patience} can stop no run, since the first validation always improves and "
            f"{self.epochs} epochs have {self.epochs}; lower it, or validate more often with "
            "training.validate_every"
        )
        return [("early_stopping.patience", what)]
