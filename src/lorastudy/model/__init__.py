"""Base models, their linear modules, placements, adapters, and the score of a batch."""

import logging
from importlib.util import find_spec
from typing import Any

# PEFT imports it wherever it is installed, and it then advises to install kernels not used here
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _import_bitsandbytes() -> None:
    """Import it before PEFT does, and let it compile nothing.

    It asks torch.compile for two functions while it is imported, and importing what that needs
    takes three seconds of every process.
    """
    import torch

    module: Any = torch
    compile_function, module.compile = torch.compile, lambda function, **_: function
    try:
        import bitsandbytes  # noqa: F401
    finally:
        module.compile = compile_function


if find_spec("bitsandbytes") is not None:
    _import_bitsandbytes()
