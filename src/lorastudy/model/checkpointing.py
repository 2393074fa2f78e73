"""Activation checkpointing: a layer keeps its input, and is computed again in backward.

transformers' layers do it themselves, through `torch.utils.checkpoint`. What a layer depends on
besides its arguments has to be the same the second time: torch keeps its own random numbers and
autocast; the masks of rows, the form of attention and dropout as a function are set again here.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from transformers import PreTrainedModel

from lorastudy.errors import ConfigError
from lorastudy.model.fast.dropout import FastFunctionalDropout, draw_by_row, remember_draws
from lorastudy.model.fast.remade import keep_no_recipes
from lorastudy.model.text_part import find_body


def checkpoint_layers(network: PreTrainedModel, *, drops_by_function: bool) -> None:
    """Let the layers of `network` keep only their inputs while they train, in place.

    `drops_by_function`: see `Scorer`.

    Raises:
        ConfigError: transformers cannot do this for the model's family.
    """
    make_contexts = partial(_make_contexts, network, drops_by_function)
    try:
        network.activation_checkpointing_enable(
            activation_checkpointing_kwargs={"use_reentrant": False, "context_fn": make_contexts}
        )
    except ValueError as error:
        raise ConfigError(
            f"training.activation_checkpointing: transformers has none for "
            f"{type(network).__name__}. Leave it out, or lower training.micro_batch."
        ) from error


def _make_contexts(
    network: PreTrainedModel, drops_by_function: bool
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds a layer in forward, and again in backward; made when forward begins."""
    config = find_body(network).config
    attention = config._attn_implementation
    streams = remember_draws()

    @contextmanager
    def compute_again() -> Iterator[None]:
        before = config._attn_implementation
        config._attn_implementation = attention
        dropout = FastFunctionalDropout() if drops_by_function else nullcontext()
        try:
            with keep_no_recipes(), draw_by_row(streams), dropout:
                yield
        finally:
            config._attn_implementation = before

    return keep_no_recipes(), compute_again()
