"""The study file as frozen values: which values are allowed, and which fit together.

Every model refuses unknown keys and wrong types (`8.0` is not a count, `yes` is not a name).
Everything that can be checked without data, weights or a device is checked only here;
`study_file` reads YAML into these models and turns all mistakes into one message.
The docstring under a field is its description in `Study.model_json_schema()`.
"""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from lorastudy.config.arms import Arm, BaseWeights, mistakes_of_elsewhere
from lorastudy.config.benchmarks import Benchmark, BestBy, Samples
from lorastudy.config.sources import (
    BaseModelRef,
    MixedSource,
    Part,
    Source,
    Split,
    TrainSource,
    ValidationSource,
    plain_source,
)
from lorastudy.config.syntax import (
    FULL_OR_LORA,
    LAYER_TYPES,
    ROOT_PATTERNS,
    FilePath,
    IfAny,
    IfGiven,
    Margin,
    Mistake,
    Name,
    Question,
    Seed,
    StudyModel,
    refuse,
    repeated,
)
from lorastudy.config.training import EarlyStopping, Optimizer, Rounding, Schedule, Training

__all__ = [
    "EQUIVALENCE_MARGIN",
    "LAYER_TYPES",
    "ROOT_PATTERNS",
    "Arm",
    "BaseModelRef",
    "BaseWeights",
    "Benchmark",
    "BestBy",
    "Data",
    "EarlyStopping",
    "MixedSource",
    "Optimizer",
    "Part",
    "Rounding",
    "Rows",
    "Schedule",
    "Source",
    "Study",
    "StudyModel",
    "TrainSource",
    "Training",
    "ValidationSource",
]


EQUIVALENCE_MARGIN = 0.02  # nats per target, 2 % of a perplexity


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
    too_long: Annotated[
        Literal["cut-prompt", "drop"], Field(exclude_if=lambda what: what == "cut-prompt")
    ] = "cut-prompt"
    """A row longer than length: cut-prompt keeps its answer whole, drop leaves the row out."""


class Data(StudyModel):
    """The texts, or rows with answers, to train on, and those that choose the best epoch."""

    train: TrainSource
    """Documents to train on."""
    validation: ValidationSource
    """Documents whose loss after each epoch chooses the best epoch, unless best_by does."""
    rows: Rows
    """How both are cut into rows; row protocols of benchmarks use the same length."""
    completion_only_loss: IfGiven[bool] = None
    """Score only completions, not prompts; null: yes. For rows with prompt and completion."""
    assistant_only_loss: IfAny[bool] = False
    """Score only what the chat template marks with {% generation %}. For rows with messages."""
    chat_template_path: IfGiven[FilePath] = None
    """File with the chat template, in Jinja; null: that of the base model's tokenizer."""
    best_by: IfGiven[BestBy] = None
    """A task whose right answers choose the best weights; null: the validation loss chooses."""

    @property
    def train_part(self) -> Part:
        """The documents that are trained on."""
        return Part(self.train.sources, self._split("train"))

    @property
    def validation_part(self) -> Part:
        """The documents that are validated on."""
        split = self._split("validation")
        sources = self.train.sources if split else (plain_source(self.validation),)
        return Part(sources, split)

    def _split(self, side: Literal["train", "validation"]) -> Split | None:
        share = self.validation.from_train
        return None if share is None else Split(share, self.validation.seed, side)

    def list_sources(self) -> dict[str, Source]:
        """Every source that is read, by its key."""
        if self.train.mixture is None:
            found: dict[str, Source] = {"data.train": self.train}
        else:
            mixed = enumerate(self.train.mixture)
            found = {f"data.train.mixture.{i}": one for i, one in mixed if one.weight > 0}
        if self.validation.from_train is None:
            found["data.validation"] = self.validation
        if self.best_by is not None and self.best_by.items is not None:
            found["data.best_by.items"] = self.best_by.items
        return found

    @property
    def is_elsewhere(self) -> bool:
        """Whether the arms were trained elsewhere, on texts that are not known here."""
        return self.train.builtin == "elsewhere"


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
    tuning_seeds: IfAny[Annotated[tuple[Seed, ...], AfterValidator(_distinct_seeds)]] = ()
    """Learning rates of an arm are compared with these seeds; only the best one runs with seeds."""
    arms: Annotated[
        tuple[Arm, ...],
        Field(min_length=1),
        AfterValidator(_distinct_names),
        AfterValidator(_distinct_arms),
    ]
    """The variants to compare."""
    benchmarks: Annotated[tuple[Benchmark, ...], AfterValidator(_distinct_names)] = ()
    """The test sets on which the models are scored; may be empty."""
    samples: IfGiven[Samples] = None
    """Prompts after which every model writes; the report shows the texts side by side."""
    margin: Annotated[Margin, Field(exclude_if=lambda margin: margin == EQUIVALENCE_MARGIN)] = (
        EQUIVALENCE_MARGIN
    )
    """Arms shown to differ by less are tied: nats per token, or wrong answers per item."""
    question: IfAny[Question] = None
    """What is judged by itself: full-or-lora (every LoRA arm beside full), or two names of arms."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.data.rows.cut == "stream" and self.training.padding == "scored":
            what = "scored needs padded rows, but data.rows.cut: stream cuts full rows; use masked"
            refuse([("training.padding", what)])
        if self.data.rows.end == "scored":
            refuse(self._end_mistakes())
        refuse([("question", what) for what in self._mistakes_of_question()])
        what = "bfloat16-stochastic needs training.optimizer.name: adamw; leave it out, or use that"
        refuse(
            [
                (f"arms.{i}.trained_weights", what)
                for i, arm in enumerate(self.arms)
                if arm.trained_weights != "float32" and self.training.optimizer.name != "adamw"
            ]
        )
        refuse([("tuning_seeds", what) for what in self._mistakes_of_tuning()])
        refuse(mistakes_of_elsewhere(self.arms, is_elsewhere=self.data.is_elsewhere))
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

    def is_planned(self, arm: Arm) -> bool:
        """Whether it is known what the budget of training means for an arm."""
        budget = self.training.budget
        if budget is None or budget.kind == "steps" or arm.method == "baseline":
            return True
        return budget.plan_of(arm.name) is not None

    def is_tuned(self, arm: Arm) -> bool:
        """Whether the arm's learning rate is chosen with tuning seeds."""
        return bool(self.tuning_seeds) and len(arm.learning_rates) > 1

    def _mistakes_of_tuning(self) -> list[str]:
        """Why the tuning seeds cannot choose a learning rate for these arms and seeds."""
        if not self.tuning_seeds:
            return []
        if not any(map(self.is_tuned, self.arms)):
            return ["choose between learning rates, but no arm has several; leave them out"]
        return [
            f"{seed} is one of seeds as well, whose runs are reported; use another number"
            for seed in self.tuning_seeds
            if seed in self.seeds
        ]

    def _mistakes_of_question(self) -> list[str]:
        """Why the declared question cannot be asked of these arms."""
        if self.question is None:
            return []
        if isinstance(self.question, str):
            known = {arm.method for arm in self.arms}
            lacking = [method for method in ("full", "lora") if method not in known]
            return [f"{FULL_OR_LORA} needs an arm with method: {method}" for method in lacking]
        trained = [arm.name for arm in self.arms if arm.method != "baseline"]
        if self.question[0] == self.question[1]:
            return ["names one arm twice; write two different ones"]
        return [
            f"{name!r} is not a trained arm of this study; allowed: {', '.join(trained)}"
            for name in self.question
            if name not in trained
        ]
