"""What a run costs: parameters, bytes and seconds, measured here and predicted beforehand."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from lorastudy.config import Training
from lorastudy.model.base import BaseDescription
from lorastudy.model.fast.head import CHUNK as HEAD_CHUNK

MIB = 1024**2
_LIBRARIES_BYTES = 500 * MIB  # resident after importing torch, transformers and peft
_EVALUATION_CHUNK = 512  # scored positions whose logits exist at once in evaluation


def start_memory_meter(device: torch.device) -> None:
    """Forget earlier peaks where the device allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def measure_peak_memory(device: torch.device) -> dict[str, int]:
    """Peak bytes so far: `allocated` and `reserved` on CUDA, `resident` of the process always.

    `resident` is the whole process, libraries included, since it was started.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bytes_by_kind = {"resident": peak if sys.platform == "darwin" else peak * 1024}
    if device.type == "cuda":
        bytes_by_kind["allocated"] = torch.cuda.max_memory_allocated(device)
        bytes_by_kind["reserved"] = torch.cuda.max_memory_reserved(device)
    return bytes_by_kind


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """What the threads of this process have had of the processor, and have waited for it."""

    ran_seconds: float
    waited_seconds: float  # ready to run while something else had the core

    def __sub__(self, earlier: "CpuTimes") -> "CpuTimes":
        """What was added since."""
        return CpuTimes(
            self.ran_seconds - earlier.ran_seconds, self.waited_seconds - earlier.waited_seconds
        )


def read_cpu_times() -> CpuTimes | None:
    """Of all threads so far, as Linux's scheduler counts them; None where it does not.

    Source: Documentation/scheduler/sched-stats.rst of the kernel, /proc/PID/schedstat.
    """
    ran = waited = 0
    try:
        for path in Path("/proc/self/task").glob("*/schedstat"):
            on_core, in_queue, _ = path.read_text().split()
            ran, waited = ran + int(on_core), waited + int(in_queue)
    except (OSError, ValueError):  # another system, or a thread that ended just now
        return None
    return CpuTimes(ran / 1e9, waited / 1e9) if ran else None


def available_bytes(device: torch.device) -> int:
    """Bytes that a new run could use on `device` now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def total_bytes(device: torch.device) -> int:
    """Bytes of memory that `device` has."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return int(psutil.virtual_memory().total)


def describe_shortage(device: torch.device) -> str:
    """Peak of this process, what is free, and what other processes hold, in MiB."""
    import psutil

    resident = psutil.Process().memory_info().rss
    memory = psutil.virtual_memory()
    ours, free, total = resident, int(memory.available), int(memory.total)
    peak = measure_peak_memory(device)["resident"]
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        ours, peak = torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)
    others = max(0, total - free - ours)
    return (
        f"peak {peak / MIB:,.0f} MiB; {free / MIB:,.0f} of {total / MIB:,.0f} MiB are free, "
        f"other processes hold {others / MIB:,.0f} MiB"
    )


@dataclass(frozen=True, slots=True)
class PeakPrediction:
    """Predicted peak bytes of one run by part; a model of the reference path, not a bound."""

    libraries: int
    weights: int
    gradients_and_moments: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All parts together."""
        return (
            self.libraries
            + self.weights
            + self.gradients_and_moments
            + self.activations
            + self.logits
        )


def predict_peak(
    base: BaseDescription,
    training: Training,
    *,
    row_length: int,
    trained_parameters: int,
    adapter_parameters: int,
    adapted_in_features: int,
    dropout: float,
    device: torch.device,
) -> PeakPrediction:
    """Predict the peak of a run from shapes alone, for a micro-batch of the longest rows.

    Float32 weights (4 bytes); a gradient and two moments for each trained parameter (12);
    values that autograd keeps a layer and position, in hidden widths: 30 for full
    fine-tuning, 24 where linear weights are frozen; what LoRA's dropout keeps of its inputs;
    three (heads, T, T) arrays a row and layer where attention has dropout on a CPU; three
    copies of the logits (log-softmax and two gradients). The fast implementation keeps fewer:
    17 widths, or 10 and what adapters read; a byte for every weight and input that dropout
    is on; logits of one chunk twice, and a second gradient of the head where that is trained.
    The counts are those of GPT-2 in float32, so other families and bfloat16 lie some tenths
    away; `check` says "predicted".
    """
    if training.implementation != "reference" and trained_parameters:
        return _predict_fast(
            base,
            training,
            row_length=row_length,
            trained_parameters=trained_parameters,
            adapter_parameters=adapter_parameters,
            adapted_in_features=adapted_in_features,
            dropout=dropout,
            on_cpu=device.type == "cpu",
        )
    positions = training.micro_batch * row_length
    on_cpu = device.type == "cpu"
    activations = positions * base.hidden_size * 16
    if trained_parameters:
        widths = 24 if adapter_parameters else 30
        activations = positions * widths * base.hidden_size * base.n_layers * 4
        if dropout:
            activations += positions * adapted_in_features * (8 if on_cpu else 5)
        if on_cpu and base.attention_dropout:
            activations += 3 * 4 * positions * row_length * base.n_heads * base.n_layers
    n_logits = positions if trained_parameters else min(positions, _EVALUATION_CHUNK)
    return PeakPrediction(
        libraries=_LIBRARIES_BYTES if on_cpu else 0,
        weights=4 * (base.total_parameters + adapter_parameters),
        gradients_and_moments=12 * trained_parameters,
        activations=activations,
        logits=n_logits * base.vocabulary_size * 4 * 3,
    )


def _predict_fast(
    base: BaseDescription,
    training: Training,
    *,
    row_length: int,
    trained_parameters: int,
    adapter_parameters: int,
    adapted_in_features: int,
    dropout: float,
    on_cpu: bool,
) -> PeakPrediction:
    n_rows = training.micro_batch
    if training.token_budget is not None:
        n_rows = max(1, min(n_rows, training.token_budget // row_length))
    positions = n_rows * row_length
    widths = 10 if adapter_parameters else 17
    activations = positions * widths * base.hidden_size * base.n_layers * 4
    if adapter_parameters:
        activations += positions * adapted_in_features * (5 if dropout else 4)
    if on_cpu and base.attention_dropout:
        activations += positions * row_length * base.n_heads * base.n_layers
    logits = 2 * min(positions, HEAD_CHUNK) * base.vocabulary_size * 4
    if not adapter_parameters:
        logits += base.vocabulary_size * base.hidden_size * 4
    return PeakPrediction(
        libraries=_LIBRARIES_BYTES if on_cpu else 0,
        weights=4 * (base.total_parameters + adapter_parameters),
        gradients_and_moments=12 * trained_parameters,
        activations=activations,
        logits=logits,
    )
