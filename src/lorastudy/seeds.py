"""Named random streams: every random decision is a pure function of one seed and a name.

No generator state is ever stored. Data order comes from (seed, "data-order", epoch),
dropout from (seed, "dropout", epoch, row), an adapter's initial values from (seed, "adapter",
module path). A resumed run asks for the same names again.
"""

import hashlib

import numpy as np


def derive_seed(seed: int, *path: str | int) -> int:
    """The 63-bit seed of the stream called `path` under `seed`.

    It is a SHA-256 hash of an unambiguous text of both, so that similar seeds and similar
    names give unrelated streams.
    """
    text = repr((seed, *path)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def open_stream(seed: int, *path: str | int) -> np.random.Generator:
    """The numbers of the stream called `path` under `seed`, from their beginning.

    Philox counts instead of mixing a state, so the numbers are the same on every machine.
    """
    return np.random.Generator(np.random.Philox(derive_seed(seed, *path)))
