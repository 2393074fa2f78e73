"""The training loop: a generator of events, with no knowledge of files or of evaluation.

One micro-batch at a time: forward, sum of nats, backward, in parts where a token budget says
so; at the end of an accumulation
group one optimizer step, at the end of an epoch one event. The state that a resume needs is
the weights, the optimizer's moments and one small `Progress`; everything random is asked
for by name again (seed, step, micro-batch).

In a team every member computes its share of every micro-batch's rows. Divisors are those of
the whole team, gradients and nats are summed over it, so that all members see the same loss
and take the same step.
"""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lorastudy import faults
from lorastudy.config.models import Training
from lorastudy.data.batches import Batch, Padding, count_scored, cut_by_budget, make_batch
from lorastudy.data.rows import IntArray, RowTable
from lorastudy.data.steps import StepPlan, share_out
from lorastudy.errors import DivergedError
from lorastudy.machine.team import ALONE, Team
from lorastudy.model.adapters import ArmModel
from lorastudy.model.sharing import AnyScorer
from lorastudy.seeds import derive_seed
from lorastudy.train.schedule import RateSchedule


@dataclass(frozen=True, slots=True)
class EpochSums:
    """What an epoch has seen so far, dropout on."""

    sum_nats: float = 0.0
    n_tokens: int = 0
    sum_of_means: float = 0.0  # of micro-batch means, which the published study averages
    n_micro_batches: int = 0
    seconds: float = 0.0

    def add(self, sum_nats: float, n_tokens: int) -> "EpochSums":
        """One more micro-batch."""
        return replace(
            self,
            sum_nats=self.sum_nats + sum_nats,
            n_tokens=self.n_tokens + n_tokens,
            sum_of_means=self.sum_of_means + sum_nats / n_tokens,
            n_micro_batches=self.n_micro_batches + 1,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands between two optimizer steps."""

    step: int = 0  # optimizer steps done
    epoch_sums: EpochSums = EpochSums()  # of the epoch that the next micro-batch belongs to
    n_tokens: int = 0  # scored targets trained on, all epochs
    seconds: float = 0.0  # spent in optimizer steps, all epochs


@dataclass(frozen=True, slots=True)
class StepDone:
    """An optimizer step was taken."""

    progress: Progress
    epoch: int
    loss: float  # nats a scored target of the group
    n_tokens: int
    n_positions: int
    learning_rate: float
    gradient_norm: float  # before clipping
    seconds: float
    ends_epoch: bool  # the next event is this epoch's end


@dataclass(frozen=True, slots=True)
class EpochDone:
    """The last micro-batch of an epoch was seen.

    `progress` is that of the last optimizer step before it: where groups span epochs, the
    micro-batches after that step are seen again after a resume.
    """

    progress: Progress
    epoch: int
    train_loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """Everything that training reads and never changes."""

    model: ArmModel
    scorer: AnyScorer
    optimizer: torch.optim.AdamW
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

    def rows(self, index: int) -> IntArray:
        """Rows of the micro-batch `index`, computed directly.

        Where rows may be exchanged, they are sorted by length if they are going to be padded,
        and shared out to equal token counts if not.
        """
        if not self.cuts_by_length:
            return self.plan.rows_of(index)
        if self.scorer.packs:
            return self.plan.rows_of_balanced(index, self.table.lengths)
        return self.plan.rows_of_sorted(index, self.table.lengths)

    def batches(self, rows: IntArray) -> list[tuple[Batch, float]]:
        """This member's share of `rows` as one batch, or as several under the token budget.

        Each with its weight: 1, or 0 for a batch that is computed only because another member
        has one more; all members have equally many.
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

    def divisor(self, index: int, n_scored: int) -> float:
        """What the summed nats of micro-batch `index` are divided by before backward.

        Token-weighted: the scored tokens of the whole accumulation group, so that the cut
        into micro-batches changes rounding only. Otherwise the mean of each micro-batch,
        divided by the nominal accumulation, whatever the group really holds.
        """
        if self.settings.accumulation == "micro-batch-means":
            return n_scored * self.plan.accumulation
        group = self.plan.group_of(self.plan.step_of(index))
        return sum(count_scored(self.table, self.plan.rows_of(i), self.padding) for i in group)


def train(inputs: TrainingInputs, progress: Progress) -> Iterator[StepDone | EpochDone]:
    """Train from `progress` to the end, yielding one event a step and one an epoch.

    The caller may checkpoint at any event and may stop iterating at any event.

    Raises:
        DivergedError: A loss or gradient is not finite; the optimizer did not step.
    """
    plan, parameters = inputs.plan, list(inputs.model.trained_tensors().values())
    start = plan.group_of(progress.step + 1).start if progress.step else 0
    group = _Group(inputs.team)
    sums = progress.epoch_sums
    inputs.optimizer.zero_grad(set_to_none=True)
    for index in range(start, plan.n_micro_batches):
        began = time.perf_counter()
        step, epoch = plan.step_of(index), plan.epoch_of(index)
        rows = inputs.rows(index)
        inputs.model.network.train()
        torch.manual_seed(_dropout_seed(inputs, index))
        group.add(*_accumulate(inputs, index, rows))
        seconds = 0.0
        if plan.completes_step(index):
            rate = inputs.schedule.rate(step - 1)
            norm = _clip(parameters, inputs.settings.optimizer.max_grad_norm)
            sums, pending = group.close(sums), group.n_tokens
            loss = group.sum_nats / group.n_tokens
            _refuse_non_finite(step, loss, norm, rows)
            _step_optimizer(inputs.optimizer, rate)
            faults.hit("train:after-optimizer")
            seconds = group.seconds + time.perf_counter() - began
            sums = replace(sums, seconds=sums.seconds + seconds)
            ended = plan.completes_epoch(index)
            progress = Progress(
                step=step,
                epoch_sums=EpochSums() if ended else sums,
                n_tokens=progress.n_tokens + pending,
                seconds=progress.seconds + seconds,
            )
            yield StepDone(
                progress, epoch, loss, pending, group.n_positions, rate, norm, seconds, ended
            )
            group = _Group(inputs.team)
        else:
            group.seconds += time.perf_counter() - began
        if plan.completes_epoch(index):
            sums = group.close(sums)
            yield EpochDone(
                progress,
                epoch,
                _epoch_loss(sums, inputs.settings),
                inputs.schedule.rate(max(0, progress.step - 1)),
                sums.seconds,
            )
            sums = EpochSums()


def _dropout_seed(inputs: TrainingInputs, index: int) -> int:
    """Of micro-batch `index` on this member; the first member draws as a lone process does."""
    plan, member = inputs.plan, inputs.team.member
    step = plan.step_of(index)
    place = index - plan.group_of(step).start
    return derive_seed(plan.seed, "dropout", step, place, *([member] if member else []))


def _accumulate(inputs: TrainingInputs, index: int, rows: IntArray) -> tuple[Tensor, int, int]:
    """Add the gradient of a micro-batch: its sum of nats (), scored targets, positions.

    Nats and positions are those of this member's share, targets those of all of `rows`.
    """
    n_scored = count_scored(inputs.table, rows, inputs.padding)
    divisor = inputs.divisor(index, n_scored)
    sum_nats = torch.zeros((), device=inputs.device)
    n_positions = 0
    batches = inputs.batches(rows)
    for place, (batch, weight) in enumerate(batches, start=1):
        completes_step = place == len(batches) and inputs.plan.completes_step(index)
        with nullcontext() if completes_step else inputs.scorer.keep_gradients():
            nats = inputs.scorer.sum_nats(batch.to(inputs.device))
            faults.hit("train:after-forward")
            (nats * weight / divisor).backward()
        faults.hit("train:after-backward")
        sum_nats += nats.detach() * weight
        n_positions += inputs.scorer.count_positions(batch)
    return sum_nats, n_scored, n_positions


class _Group:
    """The meter of one accumulation group; reads the device once, when it is closed."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._pending: list[tuple[Tensor, int]] = []
        self._pending_positions = 0
        self.sum_nats = 0.0
        self.n_tokens = 0
        self.n_positions = 0
        self.seconds = 0.0

    def add(self, nats: Tensor, n_scored: int, n_positions: int) -> None:
        self._pending.append((nats, n_scored))
        self._pending_positions += n_positions

    def close(self, sums: EpochSums) -> EpochSums:
        """Read what is pending, of all members, and add it to the epoch; may be called again."""
        if not self._pending:
            return sums
        nats = torch.stack([nats for nats, _ in self._pending]).double().cpu().numpy()
        *values, n_positions = self._team.add(np.append(nats, self._pending_positions)).tolist()
        for value, (_, n_tokens) in zip(values, self._pending, strict=True):
            self.sum_nats += value
            self.n_tokens += n_tokens
            sums = sums.add(value, n_tokens)
        self.n_positions += int(n_positions)
        self._pending.clear()
        self._pending_positions = 0
        return sums


def _epoch_loss(sums: EpochSums, settings: Training) -> float:
    if settings.accumulation == "micro-batch-means":
        return sums.sum_of_means / sums.n_micro_batches
    return sums.sum_nats / sums.n_tokens


def _clip(parameters: list[torch.nn.Parameter], max_norm: float | None) -> float:
    """Norm of the gradient before clipping; None clips nothing."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if max_norm is None else max_norm)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _refuse_non_finite(step: int, loss: float, norm: float, rows: IntArray) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    raise DivergedError(
        f"step {step}: loss {loss:g}, gradient norm {norm:g}; no step was taken with it "
        f"(rows of its last micro-batch: {', '.join(map(str, rows[:8]))}). "
        "Lower this arm's learning rate."
    )


def _step_optimizer(optimizer: torch.optim.AdamW, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
