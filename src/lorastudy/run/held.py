"""Bytes that a run holds, counted from its tensors: the exact part of its peak memory."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lorastudy.machine.memory import measure_resident
from lorastudy.model.adapters import ArmModel
from lorastudy.store.memory_parts import HeldMemory


def measure_libraries(device: torch.device) -> int:
    """Bytes that this process holds before it loads a model; 0 on a device with its own memory."""
    return 0 if device.type == "cuda" else measure_resident()


def count_held(model: ArmModel, optimizer: torch.optim.Optimizer, *, libraries: int) -> HeldMemory:
    """What a model and its optimizer hold between two steps, and its gradients before a step."""
    network, trained = model.network, model.trained_tensors().values()
    states = (state for parameter in trained for state in optimizer.state[parameter].values())
    return HeldMemory(
        libraries=libraries,
        weights=_count_bytes([*network.parameters(), *network.buffers()]),
        gradients=sum(map(_count_gradient, trained)),
        optimizer=_count_bytes(state for state in states if isinstance(state, Tensor)),
    )


def _count_bytes(tensors: Iterable[Tensor]) -> int:
    """Each memory once, however many tensors are views of it; scales of packed weights too."""
    sizes: dict[int, int] = {}
    for tensor in tensors:
        state = getattr(tensor, "quant_state", None)
        scales = [getattr(state, "absmax", None), getattr(tensor, "SCB", None)]
        inner = getattr(state, "state2", None)
        scales.append(getattr(inner, "absmax", None))
        for part in (tensor, *(scale for scale in scales if isinstance(scale, Tensor))):
            storage = part.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _count_gradient(parameter: nn.Parameter) -> int:
    dtype = getattr(parameter, "grad_dtype", None) or parameter.dtype
    return parameter.numel() * int(dtype.itemsize)
