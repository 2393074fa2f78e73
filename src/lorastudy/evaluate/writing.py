"""What a model writes after prompts, as text: greedily, until an end, a stop or a limit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lorastudy.model.generating import Ending, Ids, generate_greedily
from lorastudy.model.sharing import AnyScorer
from lorastudy.model.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class WrittenText:
    """What a model wrote after one prompt."""

    text: str  # without what ended it
    n_tokens: int
    is_cut: bool  # it ended only at `max_new_tokens`


def write_continuations(
    scorer: AnyScorer,
    tokenizer: Tokenizer,
    prompts: Sequence[Ids],
    *,
    max_new_tokens: int,
    stops: Sequence[str],
    end_ids: frozenset[int],
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
    penalty: float = 1.0,
) -> tuple[WrittenText, ...]:
    """What the model writes after each prompt, in their order.

    Args:
        scorer: The model and its precision.
        tokenizer: The model's.
        prompts: Token ids.
        max_new_tokens: At most as many tokens per prompt.
        stops: Texts before which the written text ends; also those of special tokens.
        end_ids: Tokens that end it as well.
        device: Where the model is.
        poll: Called before every token; may raise to stop.
        penalty: For tokens that occurred before; see `generate_greedily`.
    """

    def is_over(ids: Ids) -> bool:
        text = tokenizer.decode(ids, with_special=True) if stops else ""
        return any(stop in text for stop in stops)

    ending = Ending(max_new_tokens, end_ids, is_over)
    found = generate_greedily(scorer, prompts, ending, device=device, poll=poll, penalty=penalty)
    return tuple(
        WrittenText(cut_at_stop(tokenizer.decode(each.ids), stops), len(each.ids), each.is_cut)
        for each in found
    )


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """The text before the first of `stops`."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
