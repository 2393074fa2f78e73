"""What a run's numbers depend on besides its spec: versions, device, threads."""

import os
import platform
from importlib.metadata import version

import torch

from lorastudy import __version__
from lorastudy.errors import ConfigError
from lorastudy.store.records import Fingerprint

_LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "numpy")


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a device, else the CPU.

    Raises:
        ConfigError: CUDA was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: no CUDA device is visible. Use --device cpu or auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def take_fingerprint(device: torch.device, precision: str, *, micro_batch: int) -> Fingerprint:
    """The environment of a run; a resumed run must find the same."""
    return Fingerprint(
        lorastudy=__version__,
        python=platform.python_version(),
        libraries={name: version(name) for name in _LIBRARIES},
        device=describe_device(device),
        precision=precision,
        threads=torch.get_num_threads() if device.type == "cpu" else 0,
        attention="sdpa",
        micro_batch=micro_batch,
        world_size=int(os.environ.get("WORLD_SIZE", "1")),  # as torchrun sets it
    )


def describe_device(device: torch.device) -> str:
    """`cpu (x86_64, AVX512)` or the name of the CUDA device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
