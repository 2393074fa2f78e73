"""Bytes that a run holds are counted from its tensors, each memory once."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lorastudy.machine.memory import Resident
from lorastudy.model.adapters import ArmModel
from lorastudy.run import held
from support.tiny_arms import CPU

LIBRARIES = Resident(own=100, of_files=3)


class Tied(nn.Module):
    """Two names of one weight, two buffers that are views of one memory, and a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5, 7))
        self.head = nn.Linear(7, 5, bias=False)
        self.head.weight = self.weight
        self.frozen = nn.Parameter(torch.ones(3, dtype=torch.bfloat16), requires_grad=False)
        self.table: Tensor
        self.register_buffer("table", torch.zeros(64)[:8])
        self.register_buffer("last", self.table[-1:])

    def trained_tensors(self) -> dict[str, nn.Parameter]:
        return {"weight": self.weight}


def model_of(network: Tied) -> ArmModel:
    return SimpleNamespace(network=network, trained_tensors=network.trained_tensors)  # type: ignore[return-value]


def test_held_bytes_are_those_of_memories_and_not_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "measure_resident", lambda: Resident(own=900, of_files=40))
    network = Tied()
    optimizer = torch.optim.AdamW([network.weight])
    network.head(torch.ones(2, 7)).sum().backward()
    optimizer.step()
    found = held.count_held(model_of(network), optimizer, CPU, LIBRARIES)
    assert found.weights == 4 * 5 * 7 + 2 * 3 + 4 * 64
    assert found.gradients == 4 * 5 * 7
    assert found.optimizer == 2 * 4 * 5 * 7 + 4  # two moments, and the number of steps
    # what the process itself held before, and the code that is read by now
    assert found.libraries == 100 + 40
    cuda = torch.device("cuda")  # a device with its own memory holds no libraries
    assert held.count_held(model_of(network), optimizer, cuda, LIBRARIES).libraries == 0


def test_scales_of_packed_weights_are_held_too() -> None:
    packed = torch.zeros(10, dtype=torch.uint8)
    inner = SimpleNamespace(absmax=torch.zeros(2))
    packed.quant_state = SimpleNamespace(absmax=torch.zeros(3), state2=inner)  # type: ignore[attr-defined]
    in_8_bits = torch.zeros(10, dtype=torch.int8)
    in_8_bits.SCB = torch.zeros(5)  # type: ignore[attr-defined]
    assert held._count_bytes([packed, in_8_bits]) == 10 + 4 * (3 + 2) + 10 + 4 * 5
