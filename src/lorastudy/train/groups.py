"""The micro-batches of an optimizer step's accumulation group, counted before they are computed.

Everything here is a pure function of the number of the step, so a resumed run has no position in
the data to restore.
"""

from dataclasses import dataclass

import numpy as np
import torch

from lorastudy.config.models import Training
from lorastudy.data.batches import Batch, Padding, count_scored, cut_by_budget, make_batch
from lorastudy.data.rows import IntArray, RowTable
from lorastudy.data.steps import StepPlan, share_out
from lorastudy.machine.team import ALONE, Team
from lorastudy.model.adapters import ArmModel
from lorastudy.model.fast.dropout import RowStreams
from lorastudy.model.sharing import AnyScorer
from lorastudy.seeds import derive_seed
from lorastudy.train.schedule import RateSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Rows whose gradients are added to those of their group in one piece."""

    epoch: int  # from 1
    ends_epoch: bool
    rows: IntArray
    n_scored: int  # targets of `rows`
    divisor: float  # of the sum of their nats, before the backward pass
    dropout_seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingInputs:
    """Everything that training reads and never changes."""

    model: ArmModel
    scorer: AnyScorer
    optimizer: torch.optim.Optimizer
    schedule: RateSchedule
    settings: Training
    plan: StepPlan
    table: RowTable
    tokens: IntArray
    padding: Padding
    device: torch.device
    team: Team = ALONE

    @property
    def cuts_by_length(self) -> bool:
        """Whether rows of a step may be exchanged between its micro-batches."""
        return (
            self.settings.accumulation == "token-weighted"
            and self.plan.first_group == "full"
            and self.padding.scored_length is None
        )

    def collect_group(self, step: int) -> tuple[MicroBatch, ...]:
        """The micro-batches of optimizer step `step`, from 1.

        After the last step: those that are not followed by a step, if there are any.
        """
        group = self.plan.group_of(step)
        rows_of_group = self._cut_rows(step, group)
        counts = [count_scored(self.table, rows, self.padding) for rows in rows_of_group]
        return tuple(
            MicroBatch(
                epoch=self.plan.epoch_of(index),
                ends_epoch=self.plan.is_last_of_epoch(index),
                rows=rows,
                n_scored=n_scored,
                divisor=self._divisor(n_scored, counts),
                dropout_seed=self._dropout_seed(step, index - group.start),
            )
            for index, rows, n_scored in zip(group, rows_of_group, counts, strict=True)
        )

    def _cut_rows(self, step: int, group: range) -> list[IntArray]:
        """The rows of every micro-batch.

        Rows that may be exchanged are sorted by length if they will be padded, and otherwise
        divided into equal numbers of tokens.
        """
        if not self.cuts_by_length:
            return [self.plan.rows_of(index) for index in group]
        if self.scorer.packs:
            return self.plan.balanced_rows(step, self.table.lengths)
        return self.plan.sorted_rows(step, self.table.lengths)

    def _divisor(self, n_scored: int, counts: list[int]) -> float:
        """The divisor of a micro-batch's summed nats before the backward pass.

        If losses are token-weighted, it is the number of scored tokens in the whole accumulation
        group, so that the division into micro-batches changes only rounding. Otherwise it is the
        micro-batch's own number of targets times the nominal number of micro-batches in a group,
        even if the group has fewer.
        """
        if self.settings.accumulation == "micro-batch-means":
            return n_scored * self.plan.accumulation
        return sum(counts)

    def _dropout_seed(self, step: int, place: int) -> int:
        """The seed of torch's generator, for masks that are not drawn by row."""
        member = [self.team.member] if self.team.member else []
        return derive_seed(self.plan.seed, "dropout", step, place, *member)

    def open_streams(self, micro_batch: MicroBatch, batch: Batch) -> RowStreams:
        """What the dropout masks of `batch` are drawn from; the rows beside a row do not matter.

        An epoch has each row, or copy of a row, once, so a row has other masks in every epoch.
        """
        names = ((micro_batch.epoch, row) for row in batch.rows.tolist())
        seeds = [derive_seed(self.plan.seed, "dropout", *name) for name in names]
        return RowStreams.of(batch, seeds)

    def batches(self, rows: IntArray) -> list[tuple[Batch, float]]:
        """This member's share of `rows` as one batch, or as several under the token budget.

        Each batch has a weight: 1, or 0 if it is computed only because another member has one
        batch more. All members have the same number of batches.
        """
        cuts = [
            cut_by_budget(self.table, share, self.padding, self.settings.token_budget)
            if len(share)
            else []
            for share in self._share_out(rows)
        ]
        own, filler = cuts[self.team.member], rows[:1]
        surplus = max(map(len, cuts)) - len(own)
        parts = [(part, 1.0) for part in own] + [(filler, 0.0)] * surplus
        return [
            (make_batch(self.tokens, self.table, part, self.padding), weight)
            for part, weight in parts
        ]

    def _share_out(self, rows: IntArray) -> list[IntArray]:
        """The rows of every member."""
        if self.team.size == 1:
            return [rows]
        lengths = self.table.lengths
        by_length = rows[np.argsort(lengths[rows], kind="stable")]
        return share_out(by_length, lengths, self.team.size)
