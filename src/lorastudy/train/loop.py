"""The training loop: a generator of events, with no knowledge of files or of evaluation.

One accumulation group at a time: its micro-batches are collected and counted, their gradients
computed and added, and one optimizer step is taken. The state that a resume needs is the
weights, the optimizer's moments and one small `Progress`; everything random is asked for by
name again (seed, epoch, row).

In a team every member computes its share of every micro-batch's rows. Divisors are those of the
whole team, and gradients and nats are summed over the team, so all members see the same loss and
take the same step.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lorastudy import faults
from lorastudy.data.rows import IntArray
from lorastudy.errors import DivergedError
from lorastudy.loss import LossSums
from lorastudy.machine.team import Team
from lorastudy.model.fast.dropout import draw_by_row
from lorastudy.store.records import StepRecord
from lorastudy.store.training_state import EndedEpoch, Progress
from lorastudy.train.groups import MicroBatch, TrainingInputs


@dataclass(frozen=True, slots=True)
class StepDone:
    """An optimizer step was taken."""

    progress: Progress
    record: StepRecord  # without what is measured about the process
    ends_epoch: bool  # whether the next event is the end of this epoch


@dataclass(frozen=True, slots=True)
class EpochDone:
    """The last micro-batch of an epoch was seen.

    `progress` is that of the last optimizer step before it. If groups span epochs, the
    micro-batches after that step are computed again after a resume.
    """

    progress: Progress
    ended: EndedEpoch


def train(inputs: TrainingInputs, progress: Progress) -> Iterator[StepDone | EpochDone]:
    """Train from `progress` to the end, yielding one event per step and one per epoch.

    The caller may checkpoint at any event and may stop iterating at any event.

    Raises:
        DivergedError: A loss or gradient is not finite; the optimizer did not step.
    """
    plan, parameters = inputs.plan, list(inputs.model.trained_tensors().values())
    inputs.optimizer.zero_grad(set_to_none=True)
    seen = progress  # with the micro-batches since the last step
    for step in range(progress.step + 1, plan.n_groups + 1):
        # Collect and count the group; add the gradients of its micro-batches.
        began = time.perf_counter()
        group = inputs.collect_group(step)
        nats, n_positions = _add_gradients(inputs, group)

        # The device is waited for here, once per step: what it computed becomes numbers.
        norm = _clip(parameters, inputs.settings.optimizer.max_grad_norm)
        sums, n_positions = _read_sums(inputs.team, group, nats, n_positions)
        seconds = time.perf_counter() - began

        # If an epoch ends inside the group, its end comes before the step is taken.
        parts = _cut_by_epoch(group, sums)
        for place, (last, sums_of_part) in enumerate(parts, start=1):
            seen = _see(seen, sums_of_part)
            if place == len(parts) and step <= plan.n_steps:
                began, rate = time.perf_counter(), inputs.schedule.rate(step - 1)
                total = sum(sums, LossSums())
                _refuse_non_finite(step, total.cross_entropy, norm, last.rows)
                _step_optimizer(inputs.optimizer, rate)
                faults.hit("train:after-optimizer")
                seconds += time.perf_counter() - began
                seen = _count_step(seen, step, total.n_tokens, seconds)
                progress = _begin_epoch(seen) if last.ends_epoch else seen
                record = StepRecord(
                    step=step,
                    epoch=last.epoch,
                    loss=total.cross_entropy,
                    n_tokens=total.n_tokens,
                    n_positions=n_positions,
                    learning_rate=rate,
                    gradient_norm=norm,
                    seconds=seconds,
                )
                yield StepDone(progress, record, last.ends_epoch)
            if last.ends_epoch:
                yield EpochDone(progress, _end_epoch(inputs, last.epoch, seen))
                seen = _begin_epoch(seen)


def _add_gradients(inputs: TrainingInputs, group: Sequence[MicroBatch]) -> tuple[list[Tensor], int]:
    """Compute a group; gives the summed nats () of each micro-batch, and all positions.

    Both are those of this member's share.
    """
    nats_of_group, n_positions = [], 0
    inputs.model.network.train()
    for micro_batch in group:
        _seed_masks(micro_batch.dropout_seed, inputs.device)
        sum_nats = torch.zeros((), device=inputs.device)
        batches = inputs.batches(micro_batch.rows)
        for place, (batch, weight) in enumerate(batches, start=1):
            is_last = micro_batch is group[-1] and place == len(batches)
            with nullcontext() if is_last else inputs.scorer.keep_gradients():
                with draw_by_row(inputs.open_streams(micro_batch, batch)):
                    nats = inputs.scorer.sum_nats(batch.to(inputs.device))
                faults.hit("train:after-forward")
                (nats * weight / micro_batch.divisor).backward()
            faults.hit("train:after-backward")
            sum_nats += nats.detach() * weight
            n_positions += inputs.scorer.count_positions(batch)
        nats_of_group.append(sum_nats)
    return nats_of_group, n_positions


def _seed_masks(seed: int, device: torch.device) -> None:
    """Seed the generator that dropout draws from; on a CPU, without the seeds of other devices.

    `torch.manual_seed` keeps the stack of its call for each kind of device that is not in use yet,
    which costs more time than the seed.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _read_sums(
    team: Team, group: Sequence[MicroBatch], nats: list[Tensor], n_positions: int
) -> tuple[list[LossSums], int]:
    """The sums of each micro-batch, and all positions, over the whole team."""
    own = torch.stack(nats).double().cpu().numpy()
    *values, positions = team.add(np.append(own, n_positions)).tolist()
    sums = [LossSums(v, m.n_scored) for v, m in zip(values, group, strict=True)]
    return sums, int(positions)


def _cut_by_epoch(
    group: Sequence[MicroBatch], sums: Sequence[LossSums]
) -> list[tuple[MicroBatch, list[LossSums]]]:
    """For each epoch with micro-batches in the group: the last of these, and their sums."""
    parts = groupby(zip(group, sums, strict=True), key=lambda pair: pair[0].epoch)
    pairs_of_parts = [list(pairs) for _, pairs in parts]
    return [(pairs[-1][0], [sums for _, sums in pairs]) for pairs in pairs_of_parts]


def _see(seen: Progress, sums: Sequence[LossSums]) -> Progress:
    """With more micro-batches of the same epoch."""
    for one in sums:
        seen = seen.model_copy(
            update={
                "epoch_sum_nats": seen.epoch_sum_nats + one.sum_nats,
                "epoch_n_tokens": seen.epoch_n_tokens + one.n_tokens,
                "epoch_sum_of_means": seen.epoch_sum_of_means + one.cross_entropy,
                "epoch_n_micro_batches": seen.epoch_n_micro_batches + 1,
            }
        )
    return seen


def _count_step(seen: Progress, step: int, n_tokens: int, seconds: float) -> Progress:
    return seen.model_copy(
        update={
            "step": step,
            "epoch_seconds": seen.epoch_seconds + seconds,
            "train_tokens": seen.train_tokens + n_tokens,
            "train_seconds": seen.train_seconds + seconds,
        }
    )


def _begin_epoch(seen: Progress) -> Progress:
    return Progress(
        step=seen.step, train_tokens=seen.train_tokens, train_seconds=seen.train_seconds
    )


def _end_epoch(inputs: TrainingInputs, epoch: int, seen: Progress) -> EndedEpoch:
    if inputs.settings.accumulation == "micro-batch-means":
        train_loss = seen.epoch_sum_of_means / seen.epoch_n_micro_batches
    else:
        train_loss = seen.epoch_sum_nats / seen.epoch_n_tokens
    return EndedEpoch(
        epoch=epoch,
        train_loss=train_loss,
        learning_rate=inputs.schedule.rate(max(0, seen.step - 1)),
        train_seconds=seen.epoch_seconds,
    )


def _clip(parameters: list[torch.nn.Parameter], max_norm: float | None) -> float:
    """Norm of the gradient before clipping; with None nothing is clipped."""
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


def _step_optimizer(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
