"""Make a run ready: data, base model, adapters, optimizer, schedule, and the manifest."""

from dataclasses import dataclass

import numpy as np
import torch

from lorastudy.config import Training
from lorastudy.data.batches import Padding
from lorastudy.data.corpus import Corpus
from lorastudy.data.rows import RowTable
from lorastudy.data.steps import StepPlan
from lorastudy.environment import take_fingerprint
from lorastudy.errors import ConfigError
from lorastudy.evaluate.protocols import Protocol
from lorastudy.inputs import Reader
from lorastudy.model.adapters import ArmModel, attach_arm
from lorastudy.model.base import digest_base, load_base, move_model
from lorastudy.model.placement import ResolvedPlacement, resolve_placement
from lorastudy.model.scoring import Scorer, make_scorer
from lorastudy.model.tokenizer import Tokenizer
from lorastudy.seeds import derive_seed
from lorastudy.spec import RunSpec
from lorastudy.store.records import Manifest
from lorastudy.train.loop import TrainingInputs
from lorastudy.train.optimizer import make_optimizer
from lorastudy.train.schedule import RateSchedule, lay_out_schedule

MOST_SLICE_ROWS = 512  # keeps the measurement of training rows a small part of an epoch


@dataclass(frozen=True, slots=True)
class TrainingLayout:
    """What is known of a run's training before any weight is loaded."""

    plan: StepPlan
    schedule: RateSchedule
    corpus: Corpus
    table: RowTable
    padding: Padding
    validation_corpus: Corpus
    validation_table: RowTable
    validation_protocol: Protocol
    train_slice: RowTable  # training rows whose loss is measured as the validation loss is


@dataclass(frozen=True, slots=True)
class RunSetup:
    """A run in memory."""

    model: ArmModel
    tokenizer: Tokenizer
    scorer: Scorer
    device: torch.device
    layout: TrainingLayout
    inputs: TrainingInputs | None  # None: the baseline, which trains nothing
    manifest: Manifest


def resolve_arm(spec: RunSpec, reader: Reader) -> ResolvedPlacement:
    """The linear modules that a run adapts; none unless its method is lora."""
    if spec.arm.method != "lora":
        return ResolvedPlacement(())
    return resolve_placement(
        spec.arm.name,
        spec.arm.placement,
        reader.base.linear_modules,
        model_type=reader.base.model_type,
        allow_tied=spec.arm.allow_tied,
    )


def lay_out_training(spec: RunSpec, reader: Reader) -> TrainingLayout:
    """Rows, steps and schedule of a run.

    Raises:
        ConfigError: Scored padding with rows that are never padded.
        InputError: A split has less than one row.
    """
    rows, training = spec.data.rows, spec.training
    corpus, table = reader.training_rows(spec.data.train, rows)
    validation_corpus, validation_table = reader.training_rows(spec.data.validation, rows)
    plan = StepPlan(
        n_rows=table.n_rows,
        epochs=training.epochs,
        rows_per_step=training.rows_per_step,
        micro_batch=training.micro_batch,
        first_group=training.first_group,
        seed=spec.seed,
    )
    return TrainingLayout(
        plan=plan,
        schedule=lay_out_schedule(training.schedule, spec.learning_rate or 0.0, plan),
        corpus=corpus,
        table=table,
        padding=choose_padding(training, reader, rows.cut, rows.length),
        validation_corpus=validation_corpus,
        validation_table=validation_table,
        validation_protocol=reader.protocol(
            "paper-padded" if training.padding == "scored" else "rows-text", rows
        ),
        train_slice=choose_slice(table, validation_table.n_rows),
    )


def choose_slice(table: RowTable, n_validation_rows: int) -> RowTable:
    """Training rows to measure in evaluation mode: as many as validation has, at most 512.

    Drawn once and for all, so that every epoch, arm and seed of a study measures the same rows.
    """
    n_rows = min(table.n_rows, n_validation_rows, MOST_SLICE_ROWS)
    bits = np.random.Philox(derive_seed(0, "train-slice"))
    order = np.random.Generator(bits).permutation(table.n_rows)
    return table.select(np.sort(order[:n_rows]))


def choose_padding(training: Training, reader: Reader, cut: str, length: int) -> Padding:
    """Padding of training and validation rows.

    Raises:
        ConfigError: Scored padding with rows that are never padded.
    """
    if training.padding == "masked":
        return Padding(reader.special.end_id)
    if cut != "lines":
        raise ConfigError(
            "training.padding: scored needs data.rows.cut: lines; rows of a stream are full."
        )
    return Padding(reader.special.end_id, length)


def set_up_run(spec: RunSpec, reader: Reader, device: torch.device) -> RunSetup:
    """Load the base model, attach the arm, and write down what it resolved to."""
    placement = resolve_arm(spec, reader)
    layout = lay_out_training(spec, reader)
    network = load_base(reader.base.folder, device=device)
    model = attach_arm(network, spec.arm, placement, seed=spec.seed, base=spec.base_model)
    move_model(network, device)
    scorer = make_scorer(
        network, spec.training.precision, implementation=spec.training.implementation
    )
    trained = model.trained_tensors()
    inputs = None
    if trained:
        inputs = TrainingInputs(
            model=model,
            scorer=scorer,
            optimizer=make_optimizer(trained, spec.training.optimizer),
            schedule=layout.schedule,
            settings=spec.training,
            plan=layout.plan,
            table=layout.table,
            tokens=layout.corpus.tokens,
            padding=layout.padding,
            device=device,
        )
    manifest = _describe_run(spec, reader, placement, layout, model, device)
    return RunSetup(model, reader.tokenizer, scorer, device, layout, inputs, manifest)


def _describe_run(
    spec: RunSpec,
    reader: Reader,
    placement: ResolvedPlacement,
    layout: TrainingLayout,
    model: ArmModel,
    device: torch.device,
) -> Manifest:
    table = layout.table
    trains = spec.arm.method != "baseline"
    return Manifest(
        run_id=spec.run_id,
        modules=placement.paths,
        trainable_parameters=sum(p.numel() for p in model.trained_tensors().values()),
        total_parameters=sum(p.numel() for p in model.network.parameters()),
        optimizer_steps=layout.plan.n_steps if trains else 0,
        warmup_steps=layout.schedule.n_warmup if trains else 0,
        train_rows=table.n_rows,
        train_targets_per_epoch=int(table.n_scored.sum()),
        text_share=float(table.n_scored.sum() / (table.n_rows * (spec.data.rows.length - 1))),
        base_digest=digest_base(reader.base.folder),
        tokenizer_digest=reader.tokenizer.digest,
        train_digest=layout.corpus.digest,
        validation_digest=layout.validation_corpus.digest,
        environment=take_fingerprint(
            device, spec.training.precision, micro_batch=spec.training.micro_batch
        ),
    )
