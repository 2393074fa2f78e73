"""What a run's numbers depend on in addition to its spec: versions, device, threads."""

import ctypes
import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch

from lorastudy.config.training import Training
from lorastudy.errors import ConfigError
from lorastudy.machine.team import ALONE, Team
from lorastudy.store.records import Fingerprint
from lorastudy.threads import share_cores
from lorastudy.units import MIB
from lorastudy.version import __version__

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_INT = 2**31 - 1
_LARGE_BYTES = 64 * MIB  # of tensors of vocabulary size, which would leave holes among the others
_SHAPES_OF_A_STEP = 32  # of matrix products, forward and backward
_BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
_LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "numpy")


def choose_device(name: str) -> torch.device:
    """The torch device; `auto` is CUDA if there is a device, else the CPU.

    Raises:
        ConfigError: There is no such device; or CUDA was asked for, and there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {name}: use auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: no CUDA device is visible. Use --device cpu or auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def refuse_precision(device: torch.device, precision: str) -> None:
    """Check that `device` computes in `precision`.

    Raises:
        ConfigError: The precision is bfloat16, which this CUDA device does not compute in.
    """
    if precision != "bfloat16" or device.type != "cuda":
        return
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(
            f"precision bfloat16: {describe_device(device)} has no bfloat16 arithmetic. "
            "Use float32, or another device."
        )


def note_precision(device: torch.device, precision: str) -> str | None:
    """A sentence if `device` computes in `precision`, but far more slowly than in float32."""
    if precision != "bfloat16" or device.type != "cpu":
        return None
    found = torch.cpu.get_capabilities()
    if any(found.get(name) for name in _BFLOAT16_INSTRUCTIONS):
        return None
    return (
        "precision bfloat16: this processor has no instructions for bfloat16, so it is many times "
        "slower than float32, and its results are rougher. Use precision float32."
    )


def forbid_tf32() -> None:
    """Let float32 be float32 on every device.

    TF32 keeps only 10 bits of a product's factors. Whether it is on depends on the version of torch
    and on the settings of other libraries; here it is always off.
    """
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]


def take_fingerprint(
    device: torch.device,
    training: Training,
    *,
    team: Team = ALONE,
    uses_bitsandbytes: bool = False,
) -> Fingerprint:
    """The environment of a run; a resumed run must have the same one.

    Libraries that only some runs use are named in these alone.
    """
    libraries = (*_LIBRARIES, "bitsandbytes") if uses_bitsandbytes else _LIBRARIES
    return Fingerprint(
        lorastudy=__version__,
        python=platform.python_version(),
        libraries={name: version(name) for name in libraries},
        device=describe_device(device),
        precision=training.precision,
        threads=torch.get_num_threads() if device.type == "cpu" else 0,
        attention="sdpa",
        micro_batch=training.micro_batch,
        world_size=team.size,
        strategy=team.strategy,
        commit=find_commit(),
    )


@lru_cache(maxsize=1)
def find_commit() -> str | None:
    """The git commit of this package's checkout, with "-dirty" if files were changed since.

    None: it was installed, or there is no git.
    """
    ours = ("ls-files", "--error-unmatch", Path(__file__).name)  # not the checkout of a user
    described = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        _, found = (_ask_git(*words) for words in (ours, described))
    except (OSError, subprocess.SubprocessError):
        return None
    return found


def _ask_git(*words: str) -> str:
    done = subprocess.run(
        ("git", *words),
        cwd=Path(__file__).parent,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def describe_device(device: torch.device) -> str:
    """`cpu (x86_64, AVX512)` or the name of the CUDA device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"


def limit_threads() -> None:
    """Let torch use no more threads than this process has cores, whatever OMP_NUM_THREADS says.

    torch itself counts the cores of the machine, which may be more than a container may use.
    """
    torch.set_num_threads(min(torch.get_num_threads(), share_cores(1)))


def set_up_memory() -> None:
    """Let this process use freed memory again, and forget products that it will not repeat.

    glibc maps new memory for every large tensor, and the kernel fills each page with zeros; this
    takes a quarter of a training step on a CPU. oneDNN caches what it prepared for every number of
    tokens, of which there may be more than a thousand. Its two caches are limited to the shapes of
    one step, which must be set before the first product.
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(_SHAPES_OF_A_STEP))
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)


def release_free_memory() -> None:
    """Give the memory that is free in this process back to the system, where glibc can."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
