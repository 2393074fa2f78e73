"""Rows, steps and schedule of a run: what is known of its training before weights are loaded."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lorastudy.config.models import Data, Training
from lorastudy.config.spec import RunSpec
from lorastudy.data.batches import Padding, make_batch
from lorastudy.data.corpus import Corpus
from lorastudy.data.mixture import Share, copy_rows, draw_copies, share_epoch
from lorastudy.data.rows import RowTable
from lorastudy.data.steps import StepPlan
from lorastudy.errors import ConfigError, InputError
from lorastudy.model.starts import N_ROWS
from lorastudy.protocols import Protocol, protocol_of_rows
from lorastudy.run.inputs import Reader
from lorastudy.run.tasks import TaskItems
from lorastudy.seeds import open_stream
from lorastudy.train.schedule import RateSchedule, lay_out_schedule

MOST_SLICE_ROWS = 512  # keeps the measurement of training rows a small part of an epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLayout:
    """What is known about a run's training before any weight is loaded."""

    plan: StepPlan
    schedule: RateSchedule
    corpus: Corpus
    table: RowTable  # all rows of the training data
    drawn: RowTable  # what the plan numbers: `table`, or the copies of its rows in a mixture
    epoch: RowTable  # the rows of one epoch: `table`, or those of a draw that no seed changes
    padding: Padding
    validation_corpus: Corpus
    validation_table: RowTable
    validation_protocol: Protocol
    items_of_best: TaskItems | None  # whose right answers choose the best weights
    train_slice: RowTable  # training rows whose loss is measured like the validation loss


def lay_out_training(spec: RunSpec, reader: Reader) -> TrainingLayout:
    """Rows, steps and schedule of a run.

    Raises:
        ConfigError: Padding is to be scored, but rows are never padded; splits are of two kinds;
            or an epoch has no row of a source.
        InputError: A split has less than one row, or an item of `data.best_by` cannot be asked.
    """
    rows, training = spec.data.rows, spec.training
    corpus, table = reader.training_rows(spec.data.train_part, rows)
    validation_corpus, validation_table = reader.training_rows(spec.data.validation_part, rows)
    has_answers = corpus.marks is not None
    if has_answers != (validation_corpus.marks is not None):
        raise ConfigError(
            "data.validation: one of training and validation holds rows with answers, and the "
            "other one holds texts, so their losses say different things. Use the same kind."
        )
    if has_answers and training.padding == "scored":
        raise ConfigError(
            "training.padding: scored is for texts, but data.train holds rows with answers. Use "
            "masked."
        )
    # what an epoch reads: each row once, or of each source of a mixture its share
    shares = _share_epoch(spec.data, corpus, table)
    drawn = table.select(copy_rows(shares)) if shares else table
    epoch = drawn.select(draw_copies(0, 1, shares)) if shares else table
    plan = _plan_steps(spec, epoch.n_rows, shares)
    return TrainingLayout(
        plan=plan,
        schedule=lay_out_schedule(training.schedule, spec.learning_rate or 0.0, plan),
        corpus=corpus,
        table=table,
        drawn=drawn,
        epoch=epoch,
        padding=choose_padding(training, reader, rows.cut, rows.length),
        validation_corpus=validation_corpus,
        validation_table=validation_table,
        validation_protocol=protocol_of_rows(
            scored_padding=training.padding == "scored", has_answers=has_answers
        ),
        items_of_best=reader.items_of_best(spec.data),
        train_slice=choose_slice(epoch, validation_table.n_rows),
    )


def _plan_steps(spec: RunSpec, n_rows: int, shares: tuple[Share, ...]) -> StepPlan:
    """All epochs, or the steps of a budget; one epoch where the budget is not planned yet."""
    training = spec.training
    plan = StepPlan(
        n_rows=n_rows,
        epochs=training.epochs or 1,
        rows_per_step=training.rows_per_step,
        micro_batch=training.micro_batch,
        first_group=training.first_group,
        seed=spec.seed,
        shares=shares,
    )
    steps = training.budget.steps if training.budget is not None else None
    return plan if steps is None else plan.until(steps)


def _share_epoch(data: Data, corpus: Corpus, table: RowTable) -> tuple[Share, ...]:
    """What an epoch draws from each source of a mixture; nothing if there is one source."""
    if data.train.mixture is None:
        return ()
    # rows are in the order of their documents, and documents in that of the sources
    sources = np.searchsorted(np.cumsum(corpus.sizes), table.documents, side="right")
    n_rows = np.bincount(sources, minlength=len(corpus.sizes)).tolist()
    named = zip(data.train.sources, n_rows, strict=True)
    if empty := [source.label for source, n in named if n == 0]:
        raise InputError(
            f"data.train.mixture: {empty[0]} gives no row to train on. Give it more text, or a "
            "weight of 0."
        )
    shares = share_epoch(data.train.weights, n_rows)
    shared = zip(data.train.sources, shares, strict=True)
    if left_out := [source.label for source, share in shared if share.n_drawn == 0]:
        raise ConfigError(
            f"data.train.mixture: the weight of {left_out[0]} is so small that none of the "
            f"{table.n_rows:,} rows of an epoch comes from it. Give it a larger one, or 0."
        )
    return shares


def choose_slice(table: RowTable, n_validation_rows: int) -> RowTable:
    """Training rows to measure without dropout: as many as validation has, at most 512.

    The draw is always the same, so every epoch, arm and seed of a study measures the same rows.
    """
    n_rows = min(table.n_rows, n_validation_rows, MOST_SLICE_ROWS)
    order = open_stream(0, "train-slice").permutation(table.n_rows)
    return table.select(np.sort(order[:n_rows]))


def read_first_rows(layout: TrainingLayout) -> list[Tensor]:
    """Token ids of the rows that training sees first, (T,) each: adapters may start from them."""
    rows = layout.plan.order_of(1)[:N_ROWS, None]
    return [
        make_batch(layout.corpus.tokens, layout.drawn, row, Padding(0)).input_ids[0] for row in rows
    ]


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
