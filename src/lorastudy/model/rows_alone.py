"""Rows computed one by one, for models in which a batch's longest row changes all of its rows.

Some long-context forms of rotary embedding choose their frequencies by the largest position of a
batch, and one of them keeps the choice for the next batch. Whether a model does is found by
running it, and the state it keeps is put back before every row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorastudy.data.batches import Batch
from lorastudy.model.text_part import find_body

_CLOSE = 1e-4  # of the largest hidden value; rounding is about 1e-6
_N_PROBED = 8  # tokens whose hidden states are compared


@dataclass(frozen=True, slots=True)
class KeptState:
    """What modules without parameters hold: buffers, and numbers among their attributes."""

    modules: tuple[tuple[nn.Module, dict[str, Tensor | None], dict[str, object]], ...]

    @classmethod
    def of(cls, network: nn.Module) -> "KeptState":
        """The state as it is now."""
        return cls(
            tuple(
                (module, _copy(module._buffers), _plain_attributes(module))
                for module in network.modules()
                if module._buffers and next(module.parameters(), None) is None
            )
        )

    def put_back(self) -> None:
        """Make the modules hold what they held."""
        for module, buffers, attributes in self.modules:
            module._buffers.update(_copy(buffers))  # some models change them in place
            module.__dict__.update(attributes)


def find_state_of_batches(network: PreTrainedModel) -> KeptState | None:
    """The state to put back before every row; None: rows do not depend on the rest of a batch.

    The same tokens are run beside one token at another position, on both sides of every length
    that the configuration names.
    """
    state = KeptState.of(network)
    if not state.modules:
        return None
    was_training = network.training
    network.eval()
    try:
        alone = _run_beside(network, _N_PROBED)
    except Exception:  # it takes no positions, so it cannot choose anything by them
        network.train(was_training)
        return None
    found = None
    for position in _probed_positions(network):
        differs = _differ(_run_beside(network, position), alone)
        # what the model keeps from that run changes the next one
        if differs or _differ(_run_beside(network, _N_PROBED), alone):
            found = state
            break
    state.put_back()
    network.train(was_training)
    return found


def split_rows(batch: Batch) -> Iterator[Batch]:
    """The batch's rows as batches of their own, without what is read by no scored target."""
    width = batch.input_ids.shape[1]
    for b, n_read in enumerate(batch.n_read.tolist()):
        mask = batch.attention_mask
        places = batch.scored[batch.scored // width == b] - b * width
        yield replace(
            batch,
            input_ids=batch.input_ids[b : b + 1, :n_read],
            attention_mask=None if mask is None else mask[b : b + 1, :n_read],
            targets=batch.targets[b : b + 1, :n_read],
            scored=places,
            n_read=batch.n_read[b : b + 1],
            rows=batch.rows[b : b + 1],
        )


def _copy(buffers: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {name: None if value is None else value.clone() for name, value in buffers.items()}


def _plain_attributes(module: nn.Module) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, (bool, int, float, Tensor)) and name != "training"
    }


@torch.no_grad()
def _run_beside(network: PreTrainedModel, position: int) -> Tensor:
    """Hidden states of tokens 0 to 7 where a further token stands at `position`, (8, H)."""
    body: Any = find_body(network)
    device = next(network.parameters()).device
    ids = torch.arange(1, _N_PROBED + 2, device=device)[None]
    positions = torch.tensor([[*range(_N_PROBED), position]], device=device)
    hidden: Tensor = body(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    return hidden[0, :_N_PROBED]


def _differ(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > _CLOSE * other.abs().max())


def _probed_positions(network: PreTrainedModel) -> list[int]:
    """Positions around every length that the configuration names, within the longest row."""
    config = network.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    named = {n for n in _lengths(config.to_dict()) if n > _N_PROBED}
    around = {n + offset for n in named for offset in (-1, 0, 1)}
    if isinstance(limit, int) and limit > 0:
        around = {n for n in around if n < limit}
    return sorted(around)


def _lengths(values: dict[Any, Any], *, counts: bool = False) -> Iterator[int]:
    """Integers of a configuration whose key, or the key of whose table, speaks of positions."""
    for key, value in values.items():
        about_positions = counts or any(word in str(key) for word in ("position", "rope", "seq"))
        if isinstance(value, dict):
            yield from _lengths(value, counts=about_positions)
        elif about_positions and isinstance(value, int) and not isinstance(value, bool):
            yield value
