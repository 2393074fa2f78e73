"""The content of a run's files, as frozen values.

`runs/<run>/result.json` or `failure.json` has one `RunResult`; the study's `results.json` has all
of them. Reports read nothing else, so a report can be made anywhere.
The unit is the last word of every name; cross-entropies are nats per scored token.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from lorastudy.config.arms import BaseWeights, Method
from lorastudy.config.budget import TrainingBudget
from lorastudy.config.spec import RunSpec
from lorastudy.config.syntax import IfAny, IfGiven
from lorastudy.protocols import TargetClass
from lorastudy.store.counts import TextCounts
from lorastudy.store.memory_parts import HeldMemory
from lorastudy.store.validation import Validation

Strategy = Literal["ddp", "fsdp2"]  # how the processes of a team share one run
# of a run that ended; two that are never stored: "damaged" (its records are not those that it
# wrote) and "stopped" (by a decision of its study)
Status = Literal["done", "failed", "diverged", "out-of-memory", "damaged", "stopped"]


class Record(BaseModel):
    """Base of all stored values: frozen; unknown keys, as of newer versions, are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="strings", defer_build=True
    )


class EpochRecord(Record):
    """One line of `epochs.jsonl`."""

    epoch: int  # from 1
    step: int  # optimizer steps done when the epoch ended
    train_loss: float  # running mean over the epoch, with dropout, nats per target
    validation_loss: float  # without dropout, nats per target, protocol of the training rows
    learning_rate: float  # of the last optimizer step
    train_seconds: float  # optimizer steps of this epoch only
    train_loss_eval: float | None = None  # as validation_loss, on a fixed part of the training rows
    # share of right answers to the items of `data.best_by`; None: there are none
    validation_accuracy: IfGiven[float] = None

    @property
    def validation(self) -> Validation:
        """What the validation after the epoch found."""
        return Validation(self.validation_loss, self.validation_accuracy)


class ValidationRecord(Record):
    """One line of `validations.jsonl`: a validation within an epoch."""

    step: int  # optimizer steps done
    epoch: int  # that it lies in, from 1
    validation_loss: float  # these two: as in `EpochRecord`
    validation_accuracy: IfGiven[float] = None

    @property
    def validation(self) -> Validation:
        """What it found."""
        return Validation(self.validation_loss, self.validation_accuracy)


class Fingerprint(Record):
    """What the numbers of a run depend on, in addition to its spec."""

    lorastudy: str
    python: str
    libraries: dict[str, str]
    device: str
    precision: str
    threads: int  # of the CPU; 0 on CUDA
    attention: str
    micro_batch: int
    world_size: int = 1  # processes that train one run together
    strategy: Strategy | None = None  # how they share it; None: one process
    # of this package, where it runs from a checkout; "-dirty" if files were changed since
    commit: IfGiven[str] = None


class Manifest(Record):
    """`manifest.json`: modules, versions and digests of a run, written before its first step."""

    run_id: str
    modules: tuple[str, ...]  # adapted, by full path
    # of LoRA, if a budget chose it
    rank: IfGiven[int] = None
    trainable_parameters: int
    total_parameters: int  # base and adapter
    optimizer_steps: int
    warmup_steps: int
    train_rows: int
    train_targets_per_epoch: int
    text_share: float  # of the computed positions of rows padded to full length
    base_digest: str
    tokenizer_digest: str
    train_digest: str
    validation_digest: str
    environment: Fingerprint
    drift: tuple[str, ...] = ()  # changes of the environment that --allow-drift accepted
    base_weights: Annotated[BaseWeights, Field(exclude_if=lambda held: held == "float32")] = (
        "float32"  # number format that the base's frozen weights are held in
    )
    # class of the base model, if only its text part was loaded
    text_part_of: IfGiven[str] = None


class StepRecord(Record):
    """One line of `steps.jsonl`."""

    step: int  # from 1
    epoch: int
    loss: float  # nats per scored target over the step's accumulation group
    n_tokens: int  # scored targets
    n_positions: int  # positions computed, including padding
    learning_rate: float
    gradient_norm: float  # before clipping
    seconds: float
    ran_seconds: float | None = None  # of all threads since the previous step; None: not counted
    waited_seconds: float | None = None  # ready, but others used the core
    peak_memory_bytes: int | None = None  # so far: allocated on CUDA, else resident


class ResumeRecord(Record):
    """One line of `resumes.jsonl`: a killed or interrupted run continued from a checkpoint."""

    step: int  # optimizer steps in the checkpoint


class ClassSum(Record):
    """Loss of one class of target, under a protocol that tells classes apart."""

    target_class: TargetClass
    n_targets: int
    sum_nats: float


class EvaluationRecord(Record):
    """One score: a run's model on one benchmark under one protocol."""

    benchmark: str
    protocol: str
    protocol_version: int
    # nats per target, or per document if `averaged_over` says so; these three: None for a task
    cross_entropy: float | None
    perplexity: float | None
    n_tokens: int  # scored targets; of a task, tokens that were generated or scored
    n_documents: int  # or items
    sum_nats: float | None
    seconds: float
    classes: tuple[ClassSum, ...] = ()
    averaged_over: Literal["tokens", "batch-means", "documents"] | None = None  # None: not recorded
    n_unscored: int | None = None  # tokens of the text that are not targets
    n_documents_cut: int | None = None  # documents, part of which is not read
    n_words: int | None = None  # of the original text, scored or not
    n_bytes: int | None = None
    word_perplexity: float | None = None  # these: only if the whole text is scored and known
    byte_perplexity: float | None = None
    bits_per_byte: float | None = None
    # share of documents whose targets are all first choices, or of items with a right answer
    accuracy: float | None = None
    tokenizer_digest: str | None = None  # numbers of two tokenizers are not comparable
    n_population: int | None = None  # documents, or windows, of which a random part was scored
    standard_error: float | None = None  # of the loss, as an estimate for all of them
    text: IfGiven[TextCounts] = None
    # of a task of lm-evaluation-harness: what `accuracy` is, as "exact_match,strict-match"
    metric: IfGiven[str] = None
    # items whose generated answer ended only at `max_new_tokens`
    n_cut: IfAny[int] = 0

    @property
    def loss(self) -> float:
        """What is compared, lower is better: the cross-entropy, or the share of wrong answers."""
        if self.cross_entropy is not None:
            return self.cross_entropy
        assert self.accuracy is not None, "a score has a cross-entropy or an accuracy"
        return 1 - self.accuracy

    @property
    def shown(self) -> float:
        """What people read of it: the perplexity, or the share of right answers."""
        found = self.accuracy if self.perplexity is None else self.perplexity
        assert found is not None, "a score has a perplexity or an accuracy"
        return found


class ServedScore(Record):
    """The score of a run's adapter after it was merged into weights of another form."""

    merged: BaseWeights  # what the merged weights are held in
    evaluation: EvaluationRecord


class RunResult(Record):
    """Everything that the report says about one run."""

    run_id: str
    arm: str
    method: Method
    seed: int
    learning_rate: float | None
    status: Status
    reason: str | None = None  # why it did not finish
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    adapted_modules: int | None = None
    best_epoch: int | None = None  # that the best validation ends, or lies in
    best_step: IfGiven[int] = None  # of the best validation; None: validated only after epochs
    optimizer_steps: int | None = None  # taken
    planned_steps: IfGiven[int] = None  # of the whole training, if the run stopped early
    epochs: tuple[EpochRecord, ...] = ()
    validations: IfAny[tuple[ValidationRecord, ...]] = ()  # within epochs
    train_seconds: float | None = None  # optimizer steps only
    total_seconds: float | None = None  # including validation, checkpoints and scoring
    # steps, validation and checkpoints; None: not recorded
    train_and_validate_seconds: IfGiven[float] = None
    train_tokens: int | None = None  # scored targets trained on
    tokens_per_second: float | None = None  # train_tokens / train_seconds
    steps_per_second: float | None = None
    waited_share: float | None = None  # of its threads' ready time in training
    peak_memory_bytes: dict[str, int] = {}  # cuda: allocated, reserved; cpu: resident
    # parts of that which can be counted; None: not recorded, or a team shared them
    held: IfGiven[HeldMemory] = None
    device: str | None = None
    precision: str | None = None
    commit: IfGiven[str] = None
    drift: tuple[str, ...] = ()  # changes of the environment that --allow-drift accepted
    exit_code: int | None = None  # of the process, where it failed
    evaluations: tuple[EvaluationRecord, ...] = ()
    served: IfAny[tuple[ServedScore, ...]] = ()

    @classmethod
    def of(cls, spec: RunSpec, **values: Any) -> Self:
        """The result of the run that `spec` describes; `values` are the fields beside those."""
        return cls(
            run_id=spec.run_id,
            arm=spec.arm.name,
            method=spec.arm.method,
            seed=spec.seed,
            learning_rate=spec.learning_rate,
            **values,
        )

    @property
    def validation_losses(self) -> dict[int, float]:
        """The loss of every validation by its optimizer step, ascending."""
        return {step: found.loss for step, found in self.validations_by_step.items()}

    @property
    def validations_by_step(self) -> dict[int, Validation]:
        """Every validation by its optimizer step, ascending."""
        return validations_by_step(self.epochs, self.validations)


def validations_by_step(
    epochs: Iterable[EpochRecord], validations: Iterable[ValidationRecord]
) -> dict[int, Validation]:
    """Validations after and within epochs by optimizer step, ascending."""
    found = {line.step: line.validation for line in validations}
    found |= {line.step: line.validation for line in epochs}
    return dict(sorted(found.items()))


class DecidedArm(Record):
    """What a study that runs until its question is decided gave one arm."""

    arm: str
    n_seeds: int  # the first ones of the study
    learning_rate: float | None  # that a search chose; None: there was none, or none yet


class StudyResults(Record):
    """`results.json`: all runs of a study, whether finished, failed or not yet started."""

    name: str
    format: Literal[1] = 1
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    # whose runs chose learning rates, and are in no score
    tuning_seeds: IfAny[tuple[int, ...]] = ()
    benchmarks: tuple[str, ...]
    # benchmarks of neutral text: tuned minus base is what was forgotten
    forgetting: tuple[str, ...] = ()
    training_protocol: str  # of the losses during training: a protocol of rows, "windows", ...
    runs: tuple[RunResult, ...]
    missing: tuple[str, ...] = ()  # run ids without a result
    decided: IfAny[tuple[DecidedArm, ...]] = ()
    stopped: IfAny[tuple[RunResult, ...]] = ()
    # one amount that every arm had, and what it was planned to mean; None: the same epochs
    budget: IfGiven[TrainingBudget] = None
