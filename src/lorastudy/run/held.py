"""Bytes that a run holds, counted from its tensors: the exact part of its peak memory."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lorastudy.machine.memory import Resident, measure_resident
from lorastudy.model.adapters import ArmModel
from lorastudy.store.memory_parts import HeldMemory


def count_held(
    model: ArmModel, optimizer: torch.optim.Optimizer, device: torch.device, before: Resident
) -> HeldMemory:
    """What a model and its optimizer hold between two steps, and its gradients before a step.

    `before` is what the process held before it loaded the model. The code of libraries counts as
    it is now, since it is read as it is used.
    """
    has_own = device.type == "cuda"
    libraries = 0 if has_own else before.own + measure_resident().of_files
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
