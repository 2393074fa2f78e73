"""One model shared by a team: torch's DistributedDataParallel, or FSDP2's `fully_shard`.

Both act where the forward pass of a module begins and ends, so the whole work of a scorer becomes
the forward pass of one module. Gradients are summed over the members, not averaged, because the
divisor of the loss is already that of the whole team.

"ddp": every member has the whole model; gradients are summed once per accumulation group.
"fsdp2": every member has a part of each tensor, and gathers a layer while it is computed;
gradients are summed, and divided into parts again, after every micro-batch.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from lorastudy.data.batches import Batch
from lorastudy.machine.team import Team
from lorastudy.model.fast.compiled import find_layers
from lorastudy.model.scoring import Continuation, NextTokens, Scorer


class _Work(nn.Module):
    """Everything that a scorer does, as the forward pass of a module that has its network."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.network = scorer.network
        self._scorer = scorer

    def forward(self, batch: Batch | Continuation, what: str) -> Any:
        return getattr(self._scorer, what)(batch)


@dataclass(frozen=True, slots=True)
class SharedScorer:
    """A `Scorer` for a team; all members have to call the same methods in the same order."""

    alone: Scorer
    work: nn.Module  # trains
    scoring: nn.Module  # evaluates

    @property
    def network(self) -> PreTrainedModel:
        """The model inside."""
        return self.alone.network

    @property
    def packs(self) -> bool:
        """See `Scorer`."""
        return self.alone.packs

    @property
    def precision(self) -> str:
        """See `Scorer`."""
        return self.alone.precision

    def count_positions(self, batch: Batch) -> int:
        """See `Scorer`."""
        return self.alone.count_positions(batch)

    def sum_nats(self, batch: Batch) -> Tensor:
        """See `Scorer`."""
        return cast(Tensor, self.work(batch, "sum_nats"))

    def score(self, batch: Batch) -> Tensor:
        """See `Scorer`."""
        return cast(Tensor, self.scoring(batch, "score"))

    def score_choices(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `Scorer`."""
        return cast(tuple[Tensor, Tensor], self.scoring(batch, "score_choices"))

    def look_ahead(self, step: Continuation) -> NextTokens:
        """See `Scorer`."""
        return cast(NextTokens, self.scoring(step, "look_ahead"))

    @property
    def takes_rows_alone(self) -> bool:
        """See `Scorer`."""
        return self.alone.takes_rows_alone

    def keep_gradients(self) -> AbstractContextManager[object]:
        """See `Scorer`; FSDP2 sums gradients at once, since it would have to keep them whole."""
        if isinstance(self.work, DistributedDataParallel):
            return self.work.no_sync()
        return nullcontext()


AnyScorer = Scorer | SharedScorer


def share_scorer(scorer: Scorer, team: Team, device: torch.device) -> AnyScorer:
    """`scorer` for a team; trainable parameters have to be marked before.

    Under "fsdp2" each parameter is replaced by a part of it (DTensor), on `device`.
    """
    if team.strategy is None:
        return scorer
    work = _Work(scorer)
    if team.strategy == "fsdp2":
        _shard(work, team, device)
        return SharedScorer(scorer, work, work)
    if not any(p.requires_grad for p in scorer.network.parameters()):
        return scorer
    together = DistributedDataParallel(
        work,
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
        # else the buckets are laid out anew after the first step, and after that of a resumed
        # run, and sums over three members and more come out otherwise
        find_unused_parameters=True,
    )
    together.register_comm_hook(None, _sum_bucket)
    return SharedScorer(scorer, together, work)


def _sum_bucket(
    _: None,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    done = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return cast("torch.futures.Future[Tensor]", done.then(lambda sums: sums.value()[0]))


def _shard(work: nn.Module, team: Team, device: torch.device) -> None:
    mesh = init_device_mesh(device.type, (team.size,))
    for layer in find_layers(work):
        fully_shard(layer, mesh=mesh)
    fully_shard(work, mesh=mesh)
    for module in work.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)


def gather(tensors: Mapping[str, Tensor], team: Team) -> dict[str, Tensor]:
    """Whole tensors on the CPU for the first member; the others take part and receive nothing.

    Names that share one tensor (a tied head) still share it.
    """
    whole: dict[int, Tensor] = {}
    for tensor in tensors.values():
        full = tensor.detach()
        full = full.full_tensor() if isinstance(full, DTensor) else full
        if team.is_first:
            whole.setdefault(id(tensor), full.cpu())
    return {name: whole[id(tensor)] for name, tensor in tensors.items()} if team.is_first else {}


def cut_like(whole: Tensor, example: Tensor) -> Tensor:
    """This member's part of `whole` if `example` is a part of a tensor; else `whole` itself."""
    if not isinstance(example, DTensor):
        return whole.to(example.device)
    return distribute_tensor(
        whole.to(example.device), example.device_mesh, example.placements, src_data_rank=None
    )
