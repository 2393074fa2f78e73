"""How much memory a device has, as `--device-memory 12GB` or `--gpu "RTX 3060"` says it."""

import re
from dataclasses import dataclass

from lorastudy.config.mistakes import nearest
from lorastudy.errors import ConfigError
from lorastudy.units import GPU_CONTEXT_BYTES, MIB, read_bytes

# GiB of memory, as the vendor's data sheet of each card says (nvidia.com, 2026-11).
_GIB = {
    **{"RTX 2060": 6, "RTX 2070": 8, "RTX 2080": 8, "RTX 2080 Ti": 11},
    **{"RTX 3050": 8, "RTX 3060": 12, "RTX 3060 Ti": 8, "RTX 3070": 8, "RTX 3070 Ti": 8},
    **{"RTX 3080": 10, "RTX 3080 Ti": 12, "RTX 3090": 24, "RTX 3090 Ti": 24},
    **{"RTX 4060": 8, "RTX 4060 Ti": 8, "RTX 4060 Ti 16GB": 16, "RTX 4070": 12},
    **{"RTX 4070 Ti": 12, "RTX 4070 Ti SUPER": 16, "RTX 4080": 16, "RTX 4090": 24},
    **{"RTX 5060": 8, "RTX 5060 Ti": 8, "RTX 5060 Ti 16GB": 16, "RTX 5070": 12},
    **{"RTX 5070 Ti": 16, "RTX 5080": 16, "RTX 5090": 32},
    **{"RTX A4000": 16, "RTX A5000": 24, "RTX A6000": 48, "RTX 6000 Ada": 48},
    **{"T4": 16, "P100": 16, "V100": 16, "V100 32GB": 32, "A10": 24, "A10G": 24, "L4": 24},
    **{"L40": 48, "L40S": 48, "A40": 48, "A100": 40, "A100 80GB": 80, "H100": 80, "H200": 141},
}


@dataclass(frozen=True, slots=True)
class Card:
    """A device by its memory."""

    name: str
    bytes: int

    def usable_bytes(self, device_type: str) -> int:
        """What tensors may take; on a GPU, its driver needs some of it."""
        return max(0, self.bytes - (GPU_CONTEXT_BYTES if device_type == "cuda" else 0))


def read_card(memory: str | None, gpu: str | None) -> Card | None:
    """The device of `--device-memory` or `--gpu`; None if neither is given.

    GB is 10^9 bytes and GiB is 2^30, as everywhere.

    Raises:
        ConfigError: Both are given, or one of them cannot be read.
    """
    if memory is not None and gpu is not None:
        raise ConfigError("--device-memory and --gpu say the same thing. Give one of them.")
    if memory is not None:
        return Card(memory.strip(), _read_bytes(memory))
    return None if gpu is None else _find_gpu(gpu)


def _read_bytes(text: str) -> int:
    if (found := read_bytes(text)) is None:
        raise ConfigError(
            f"--device-memory {text[:40]!r} is not an amount of memory with its unit. Write it as "
            "12GB, 11.5GiB or 12288MiB."
        )
    return found


def _find_gpu(text: str) -> Card:
    by_key = {_key_of(name): name for name in _GIB}
    name = by_key.get(_key_of(text))
    if name is None:
        hint = nearest(_key_of(text), by_key)
        near = next(
            (f" (did you mean {n!r}?)" for key, n in by_key.items() if repr(key) in hint), ""
        )
        raise ConfigError(
            f"--gpu {text[:40]!r} is not a card whose memory is known{near}. Known: "
            f"{', '.join(_GIB)}. For another card, give its memory, as --device-memory 12GB."
        )
    return Card(name, _GIB[name] * 1024 * MIB)


def _key_of(name: str) -> str:
    """A name without the vendor, spaces and case: "NVIDIA GeForce RTX 3060" is "rtx3060"."""
    return re.sub(r"nvidia|geforce|tesla|[\s_-]", "", name.lower())
