"""Attach a PEFT adapter, and find out what it is: what it trains, stores, and does to the model.

Nothing here lists the methods of PEFT. A method can be an arm if a trial shows that it acts in the
modules of the model alone, and that everything it trains is in its files. Otherwise it is refused
with what was seen.

Initial values are drawn under torch's generator on the CPU with a seed of their own, so they are
the same on every device. Plain LoRA has a stream for each module.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorastudy.errors import ConfigError, first_line, is_out_of_memory, show_names
from lorastudy.model import loftq
from lorastudy.model.placement import ResolvedPlacement
from lorastudy.model.starts import attach_by_rows, needs_rows
from lorastudy.seeds import derive_seed

ADAPTER_NAME = "default"
_CLOSE = 1e-3  # of the largest logit; rounding is about 1e-6, another model about 1


def attach_adapter(
    network: PreTrainedModel,
    config: PeftConfig,
    arm: str,
    *,
    seed: int,
    rows: Sequence[Tensor] = (),
) -> PeftModel:
    """`network` with an adapter as PEFT makes it; everything random follows from `seed`.

    `rows` of token ids, (T,) each, are for starts that are computed from them.

    Raises:
        ConfigError: PEFT cannot adapt these modules, or lacks a package that this needs.
    """
    kind = name_kind(config)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on settings; what matters is found out
            torch.manual_seed(derive_seed(seed, "adapter"))
            if needs_rows(config):
                adapter = attach_by_rows(network, config, ADAPTER_NAME, rows)
            elif isinstance(config, LoraConfig) and config.init_lora_weights == loftq.START:
                adapter = loftq.attach_corrected(network, config, ADAPTER_NAME)
            else:
                adapter = get_peft_model(network, config, adapter_name=ADAPTER_NAME)
    except ImportError as error:
        raise ConfigError(
            f"arm {arm!r}: PEFT's {kind} needs a package that is missing: {first_line(error)}"
        ) from error
    except Exception as error:  # methods are many, and raise what they like
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            f"arm {arm!r}: PEFT's {kind} cannot adapt these modules: "
            f"{first_line(error).rstrip('.')}. Choose other modules, other keys or another method."
        ) from error
    assert isinstance(adapter, PeftModel)
    return adapter


def name_kind(config: PeftConfig) -> str:
    """The method by PEFT's name, with how it begins where this is not the usual way."""
    start = getattr(config, "init_lora_weights", True)
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    return kind if start is True else f"{kind} with init_lora_weights: {start}"


def is_plain_start(config: PeftConfig) -> bool:
    """Whether the adapter begins with LoRA's usual values."""
    return type(config) is LoraConfig and config.init_lora_weights is True


def start_lora(network: PreTrainedModel, seed: int) -> None:
    """Give every linear LoRA module of `network` its initial values, from (seed, module path).

    Those of embeddings keep what PEFT has drawn.
    """
    for path, module in network.named_modules():
        if isinstance(module, LoraLayer) and ADAPTER_NAME in module.lora_A:
            start_module(module, derive_seed(seed, "adapter", path))


def start_module(module: LoraLayer, seed: int) -> None:
    """LoRA's initial values: A ~ kaiming_uniform(a = sqrt 5), B = 0, as PEFT's default.

    They come from a stream of their own and are drawn on the CPU, so they are the same on every
    device.
    """
    a, b = module.lora_A[ADAPTER_NAME].weight, module.lora_B[ADAPTER_NAME].weight
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(a.shape, dtype=torch.float32)
    nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
    with torch.no_grad():
        a.copy_(drawn)
        b.zero_()


def stored_by_peft(adapter: PeftModel) -> dict[str, Tensor]:
    """The tensors of an adapter's file by their names in it; trained ones are the model's own."""
    whole = adapter.state_dict(keep_vars=True)
    stored: dict[str, Tensor] = get_peft_model_state_dict(
        adapter,
        state_dict=whole,
        adapter_name=ADAPTER_NAME,
        # The base head stays out of the file even where the head is adapted (peft#2092).
        save_embedding_layers=False,
    )
    return stored


def refuse_unfit(adapter: PeftModel, arm: str, paths: Sequence[str]) -> None:
    """Check that an adapter adapts what it should, and that its files hold what it trains.

    Raises:
        ConfigError: It cannot; the message says why.
    """
    config = adapter.peft_config[ADAPTER_NAME]
    network = adapter.get_base_model()
    adapted = [p for p, module in network.named_modules() if isinstance(module, BaseTunerLayer)]
    kept = {id(tensor) for tensor in stored_by_peft(adapter).values()}
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    lost = [name for name, parameter in trained.items() if id(parameter) not in kept]

    if set(adapted) != set(paths):
        others = sorted(set(adapted) ^ set(paths))
        why = f"it adapts other modules than the placement says: {show_names(others, most=3)}"
    elif not trained:
        why = "it trains nothing"
    elif lost:
        why = f"it trains what its files do not hold: {show_names(lost, most=3)}"
    else:
        return
    raise ConfigError(
        f"arm {arm!r}: PEFT's {name_kind(config)} cannot be an arm, since {why}. "
        "Choose another method or other modules."
    )


@dataclass(frozen=True, slots=True)
class BaseLook:
    """A base model before an adapter is attached, to see what that changes in it."""

    sums: tuple[tuple[float, float], ...]  # two of each weight
    logits: Tensor  # on fixed tokens, (1, 8, V)

    def finds_other_weights(self, network: PreTrainedModel, paths: Sequence[str]) -> bool:
        """Whether the base weights at `paths` are not what they were."""
        return _sum_weights(network, paths) != self.sums

    def refuse_other_model(self, network: PreTrainedModel, arm: str) -> None:
        """Check that weights that an adapter took out are in it, so that the model is the same.

        Raises:
            ConfigError: It computes something else. So it is where PEFT takes a Conv1D for a
                Linear, or where the weight is shared with the embedding.
        """
        try:
            difference = float((_run(network) - self.logits).abs().max())
        except RuntimeError:  # factors of another shape
            difference = math.inf
        if not difference <= _CLOSE * float(self.logits.abs().max()):
            raise ConfigError(
                f"arm {arm!r}: PEFT's start of this adapter takes a part out of the base weights, "
                "and the model with it is not the base model any more. PEFT does not know such "
                "modules (Conv1D, or a weight shared with the embedding) there. "
                "Choose another init_lora_weights or other modules."
            )


def look_at(network: PreTrainedModel, paths: Sequence[str]) -> BaseLook:
    """What is remembered of a base model while an adapter is attached."""
    return BaseLook(_sum_weights(network, paths), _run(network))


@torch.no_grad()
def _run(network: PreTrainedModel) -> Tensor:
    was_training = network.training
    ids = torch.arange(1, 9, device=network.device)[None]
    logits: Tensor = network.eval()(input_ids=ids, use_cache=False).logits
    network.train(was_training)
    return logits.float()


@torch.no_grad()
def _sum_weights(network: PreTrainedModel, paths: Sequence[str]) -> tuple[tuple[float, float], ...]:
    found = []
    for path in paths:
        module = network.get_submodule(path)
        base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        weight = base.weight
        assert isinstance(weight, Tensor)
        found.append((float(weight.float().sum()), float(torch.linalg.vector_norm(weight.float()))))
    return tuple(found)


def hold_rows(network: PreTrainedModel, placement: ResolvedPlacement) -> int:
    """Keep B at zero in the rows of fused modules that are not adapted; says how many numbers.

    B begins with zeros, and a number without a gradient stays zero under AdamW. Every part has
    columns of its own, so it has the adapter that it would have as a module.
    """
    n_fixed = 0
    for path, parts in placement.parts.items():
        module = network.get_submodule(path)
        assert isinstance(module, LoraLayer)
        b = module.lora_B[ADAPTER_NAME].weight  # (out, parts x rank)
        assert isinstance(b, Tensor)
        moves = torch.zeros_like(b, requires_grad=False)
        width = b.shape[1] // len(parts)
        for place, part in enumerate(parts):
            for begin, end in part.spans:
                moves[begin:end, place * width : (place + 1) * width] = 1
        module.register_buffer("moves", moves, persistent=False)
        b.register_hook(partial(_keep_rows, module))
        n_fixed += int(moves.numel() - sum(part.n_rows for part in parts) * width)
    return n_fixed


def _keep_rows(module: nn.Module, gradient: Tensor) -> Tensor:
    assert isinstance(module.moves, Tensor)
    return gradient * module.moves


# About things that are handled here, and about PEFT's use of transformers.
_KNOWN_WARNINGS = (
    *("fan_in_fan_out is set to", "tie_word_embeddings", "tied", "is_gradient_checkpointing"),
    *("proceed at your own risk", "has no bias term", "load the CUDA extension"),
    *("boft_n_butterfly_factor to 1", "merging LoRA weights won.t be possible"),
)


@contextmanager
def known_peft_warnings() -> Iterator[None]:
    """Silence what PEFT warns of although nothing is wrong."""
    with warnings.catch_warnings():
        for about in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=f".*{about}.*")
        yield
