"""Tensors of a model file that hold no weight: buffers that older versions of transformers saved.

A causal mask or a table of rotary frequencies follows from the configuration. Such a tensor is
recognised by its value, which has to be the one that the model computes: a table made with
another base frequency, or a mask of another form, is a weight that the model does not have.
"""

import torch
from torch import Tensor, nn

_MASKS = ("bias", "mask", "causal_mask", "attn_mask")
_TABLES = {"cos_cached": torch.cos, "sin_cached": torch.sin}


def is_known_constant(name: str, stored: Tensor, network: nn.Module) -> bool:
    """Whether a stored tensor that `network` has no place for is a constant that it computes."""
    last = name.rpartition(".")[2]
    if last == "masked_bias":
        return stored.numel() == 1
    if last == "position_ids":
        return torch.equal(stored.flatten().long(), torch.arange(stored.numel()))
    if last in _MASKS and _is_causal_mask(stored):
        return True
    if last in _TABLES:
        return any(_is_table(stored, last, owned) for owned in _find_buffers(network, "inv_freq"))
    return any(_are_close(stored, owned) for owned in _find_buffers(network, last))


def _is_causal_mask(stored: Tensor) -> bool:
    """Ones where key j may be seen by query i, or where it may not; perhaps within a window."""
    if stored.ndim < 2 or stored.shape[-1] != stored.shape[-2] or stored.shape[:-2].numel() != 1:
        return False
    seen = stored.reshape(stored.shape[-2:]).bool()
    if not torch.equal(seen.to(stored.dtype), stored.reshape(seen.shape)):
        return False
    causal = torch.ones_like(seen).tril_()
    window = int(seen[-1].sum())  # the last query sees the whole window
    if torch.equal(seen, causal & ~causal.tril(-window)):
        return True
    return torch.equal(seen, ~causal)


def _is_table(stored: Tensor, name: str, frequencies: Tensor) -> bool:
    """Cosines or sines of (position x frequency), each frequency twice: (..., T, D)."""
    if stored.ndim < 2 or stored.shape[-1] != 2 * len(frequencies):
        return False
    angles = torch.outer(torch.arange(stored.shape[-2], dtype=torch.float32), frequencies)
    table = _TABLES[name](torch.cat([angles, angles], dim=-1))
    return _are_close(stored.reshape(-1, stored.shape[-1]), table)


def _find_buffers(network: nn.Module, last: str) -> list[Tensor]:
    """The values of all buffers of `network` with this name, computed where it has none yet."""
    found: list[Tensor] = []
    for module in network.modules():
        buffer = dict(module.named_buffers(recurse=False)).get(last)
        if buffer is not None and buffer.is_meta:
            with torch.device("cpu"):
                made = type(module)(network.config)  # as rotary embeddings are made
            buffer = dict(made.named_buffers(recurse=False)).get(last)
        if buffer is not None:
            found.append(buffer.detach().cpu())
    return found


def _are_close(stored: Tensor, computed: Tensor) -> bool:
    if stored.shape != computed.shape:
        return False
    tolerance = 1e-2 if stored.dtype.itemsize < 4 else 1e-4  # rounded when it was stored
    return torch.allclose(stored.float(), computed.float(), rtol=tolerance, atol=1e-3 * tolerance)
