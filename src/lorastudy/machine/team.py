"""The processes that train one run together: which part each takes, and what they agree on.

A member is one process (torch calls its number a rank; here a rank is the width of an adapter).
All members execute the same code together, and only the first one writes files. Counts, sums and
decisions go through `Team`, gradients and shards through torch's own wrappers
(`model/sharing.py`). A single process is a team of one, for which all of this does nothing.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from lorastudy.errors import ConfigError, LostMemberError
from lorastudy.store.records import Strategy

Numbers = TypeVar("Numbers", npt.NDArray[np.float64], npt.NDArray[np.int64])
Part = TypeVar("Part")
PATIENCE = timedelta(minutes=30)  # wait for a member that is busy writing or loading weights
_OF_OTHERS = re.compile(r"gloo|nccl|processgroup|by peer", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Team:
    """This process's place among the members."""

    member: int = 0
    size: int = 1
    strategy: Strategy | None = None  # how weights and gradients are shared; None: a single process

    @property
    def is_first(self) -> bool:
        """Whether this member writes the run's files."""
        return self.member == 0

    def add(self, numbers: Numbers) -> Numbers:
        """Sums over all members, element by element, the same bits for each of them."""
        return self._reduce(numbers, dist.ReduceOp.SUM)

    def highest(self, numbers: Numbers) -> Numbers:
        """The largest over all members, element by element."""
        return self._reduce(numbers, dist.ReduceOp.MAX)

    def any(self, claim: bool) -> bool:
        """Whether the claim is true for any member."""
        return claim if self.size == 1 else bool(self.highest(np.array([int(claim)]))[0])

    def wait(self) -> None:
        """Return when all members have come here, so that files of the first member exist."""
        if self.size > 1:
            self.any(False)

    def deal(self, parts: Sequence[Part]) -> Iterator[tuple[Part, bool]]:
        """This member's parts, with the same number for each member: (part, whether it counts).

        A member with too few parts repeats its last one, since all have to take every step.
        """
        for begin in range(0, len(parts), self.size):
            index = begin + self.member
            yield parts[min(index, len(parts) - 1)], index < len(parts)

    def _reduce(self, numbers: Numbers, operation: dist.ReduceOp.RedOpType) -> Numbers:
        if self.size == 1:
            return numbers
        tensor = torch.from_numpy(numbers.copy())  # of the CPU, so it goes through gloo
        dist.all_reduce(tensor, operation)
        reduced: Numbers = tensor.numpy()
        return reduced


ALONE = Team()


@contextmanager
def join_team(strategy: Strategy | None) -> Iterator[Team]:
    """The team that torchrun's environment describes, while the block lasts.

    Raises:
        ConfigError: There are several processes, but no strategy for sharing the work.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if strategy is None:
        raise ConfigError(
            f"torchrun started {size} processes for one run. Say how they share it: "
            "--strategy ddp (each holds the whole model) or --strategy fsdp2 (each a part)."
        )
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    yield Team(dist.get_rank(), size, strategy)
    dist.destroy_process_group()  # not after an error, since other members may never answer


@contextmanager
def name_losses() -> Iterator[None]:
    """Turn an error of torch that another member caused into one that says so.

    Raises:
        LostMemberError: Another member ended too early.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_of_others(error):
            raise
        raise LostMemberError(
            "another process of this run ended too early; the run's log.txt has its messages. "
            "Finished work is kept. Run the same command again to continue."
        ) from error


def is_of_others(error: RuntimeError) -> bool:
    """Whether torch failed because another member did not answer."""
    return isinstance(error, dist.DistError) or _OF_OTHERS.search(str(error)) is not None


def device_of_member(team: Team, device: torch.device) -> torch.device:
    """`device`, or on CUDA the one of this member: each has its own."""
    if device.type != "cuda" or team.size == 1:
        return device
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device
