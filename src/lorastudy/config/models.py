"""The study file as frozen values: which values are allowed, and which fit together.

Every model refuses unknown keys and wrong types (`8.0` is not a count, `yes` is not a name).
Everything that can be checked without data, weights or a device is checked only here;
`study_file` reads YAML into these models and turns all mistakes into one message.
The docstring under a field is its description in `Study.model_json_schema()`.
"""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from lorastudy.config.arms import Arm, BaseWeights
from lorastudy.config.sources import BaseModelRef, Source
from lorastudy.config.syntax import (
    LAYER_TYPES,
    ROOT_PATTERNS,
    Count,
    Mistake,
    Name,
    ProtocolName,
    Seed,
    StudyModel,
    refuse,
    repeated,
)

__all__ = [
    "LAYER_TYPES",
    "ROOT_PATTERNS",
    "Arm",
    "BaseModelRef",
    "BaseWeights",
    "Benchmark",
    "Data",
    "Optimizer",
    "Rows",
    "Schedule",
    "Source",
    "Study",
    "StudyModel",
    "Training",
]


class Rows(StudyModel):
    """How documents become training rows."""

    cut: Literal["lines", "stream"]
    """lines: one row for each document, cut at length; stream: all text joined, full rows only."""
    length: Annotated[int, Field(ge=2)]
    """Tokens in a row, including the end-of-text token at its beginning."""
    strip: Annotated[bool, Field(exclude_if=bool)] = True  # true does not enter identities
    """Remove white space around each text, with cut: lines and in row protocols of benchmarks."""
    end: Annotated[Literal["masked", "scored"], Field(exclude_if=lambda end: end == "masked")] = (
        "masked"
    )
    """scored: train and validate on an end-of-text token after each text, with cut: lines."""


class Data(StudyModel):
    """The texts to train on, and the texts that choose the best epoch."""

    train: Source
    """Documents to train on."""
    validation: Source
    """Documents whose loss after each epoch chooses the best epoch."""
    rows: Rows
    """How both are cut into rows; row protocols of benchmarks use the same length."""


class Schedule(StudyModel):
    """The learning rate as a function of the optimizer step."""

    shape: Literal["linear", "cosine", "constant"] = "linear"
    """What follows the linear warm-up: a descent to zero, or the peak until the end."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the counted steps during which the rate rises from zero to its peak."""
    counted_in: Literal["optimizer-steps", "micro-batches"] = "optimizer-steps"
    """micro-batches repeats a known mistake: totals count these, but the rate moves by steps."""
    rounding: Annotated[Literal["down", "up"], Field(exclude_if=lambda way: way == "down")] = "down"
    """How the warm-up becomes whole steps; up: as transformers' Trainer does."""


class Optimizer(StudyModel):
    """The optimizer; its learning rate belongs to the arm."""

    name: Literal["adamw"] = "adamw"
    """AdamW with decoupled weight decay."""
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


class Training(StudyModel):
    """One training protocol for all arms of the study."""

    epochs: Count
    """Passes over the training rows."""
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
    activation_checkpointing: Annotated[bool, Field(exclude_if=lambda is_on: not is_on)] = False
    """Keep only the inputs of layers, and compute the layers again in backward: less memory."""
    first_group: Literal["full", "one"] = "full"
    """one: the first optimizer step follows a single micro-batch (the published protocol)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        mistakes: list[Mistake] = []
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
        refuse(mistakes)
        return self


class Benchmark(Source):
    """A test set, and the protocols under which it is scored."""

    name: Name
    """Used in tables and file names."""
    protocols: Annotated[tuple[ProtocolName, ...], Field(min_length=1)]
    """Names of protocols, such as rows-text, document or sliding-1024-512."""
    role: Literal["test", "forgetting"] = "test"
    """forgetting: neutral text, on which tuned models are compared with the baseline."""
    sample: Annotated[int, Field(ge=2)] | None = None
    """Score this many random documents (or windows), with a standard error; null: all."""

    @model_validator(mode="after")
    def _check_protocols(self) -> Self:
        refuse(repeated("protocols", self.protocols))
        return self


_Part = TypeVar("_Part", Arm, Benchmark)


def _distinct_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    refuse(repeated("", seeds))
    return seeds


def _distinct_names(parts: tuple[_Part, ...]) -> tuple[_Part, ...]:
    """Refuse names that differ only in case: for some file systems they are one folder."""
    names = [part.name.casefold() for part in parts]
    refuse(
        [
            (f"{i}.name", f"{parts[i].name!r} is used twice (case does not count); rename one")
            for i, name in enumerate(names)
            if name in names[:i]
        ]
    )
    return parts


def _distinct_arms(arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
    first: dict[Arm, Arm] = {}
    mistakes: list[Mistake] = []
    for i, arm in enumerate(arms):
        twin = first.setdefault(_without_name(arm), arm)
        if twin is not arm:
            mistakes.append((str(i), f"differs from arm {twin.name!r} only in its name; drop one"))
    refuse(mistakes)
    return arms


def _without_name(arm: Arm) -> Arm:
    """The arm without what does not change a run: its name, and the order inside its lists."""
    sorted_lists = {
        "placement": tuple(sorted(arm.placement)),
        "learning_rates": tuple(sorted(arm.learning_rates)),
    }
    return arm.model_copy(update={"name": "", **sorted_lists})


class Study(StudyModel):
    """A controlled comparison: every arm is trained with every seed and scored in the same way."""

    name: Name
    """Name of the study."""
    base_model: BaseModelRef
    """The model that every arm starts from."""
    data: Data
    """The texts to train on."""
    training: Training
    """How every arm is trained."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct_seeds)]
    """Every trained arm has a run with each seed; all arms see the same data in the same order."""
    arms: Annotated[
        tuple[Arm, ...],
        Field(min_length=1),
        AfterValidator(_distinct_names),
        AfterValidator(_distinct_arms),
    ]
    """The variants to compare."""
    benchmarks: Annotated[tuple[Benchmark, ...], AfterValidator(_distinct_names)] = ()
    """The test sets on which the models are scored; may be empty."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.data.rows.cut == "stream" and self.training.padding == "scored":
            what = "scored needs padded rows, but data.rows.cut: stream cuts full rows; use masked"
            refuse([("training.padding", what)])
        if self.data.rows.end == "scored":
            refuse(self._end_mistakes())
        has_baseline = any(arm.method == "baseline" for arm in self.arms)
        what = "forgetting compares with the base model, so an arm with method: baseline is needed"
        refuse(
            [
                (f"benchmarks.{i}.role", what)
                for i, benchmark in enumerate(self.benchmarks)
                if benchmark.role == "forgetting" and not has_baseline
            ]
        )
        return self

    def _end_mistakes(self) -> list[Mistake]:
        if self.data.rows.cut == "stream":
            what = "scored needs a row for each text, but cut: stream joins all of them"
            return [("data.rows.end", f"{what}; use cut: lines, or leave it out")]
        if self.training.padding == "scored":
            what = "is of no use with training.padding: scored, which scores that token already"
            return [("data.rows.end", f"{what}; leave it out")]
        return []
