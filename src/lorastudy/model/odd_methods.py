"""What a method of PEFT does with the user's keys, tried on a small model before training.

A method is an arm if it can learn, and if its answer for a token follows from tensors in its files
and from this token and those before it. Otherwise scores would depend on the rows that are computed
together, a resumed run would become another one, or nobody could load what was trained.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lorastudy.config.models import Arm
from lorastudy.errors import ConfigError, InputError, first_line
from lorastudy.model.adapters import ArmModel, load_adapter
from lorastudy.model.attach import look_at, name_kind
from lorastudy.model.peft_config import make_peft_config
from lorastudy.model.placement import ResolvedPlacement
from lorastudy.model.taken_out import keep_start
from lorastudy.model.trials import PLACE, WIDER, attach_trial, make_small

_N_DRAWS = 64  # passes in training, since a method may leave out its modules at random
_ROUNDING = 1e-6  # relative; about what float32 rounds
_SEEN = 1e-3  # of the largest logit: more than rounding becomes in a model


def refuse_odd_method(arm: Arm, placement: ResolvedPlacement) -> None:
    """Check on a small model that an adapter learns, answers from its own tensors, and is stored.

    Raises:
        ConfigError: It does not; the message says what was seen.
    """
    if arm.method == "lora":
        return
    config = make_peft_config(arm, placement, revision="main")
    network = make_small(WIDER)
    before = look_at(network, [PLACE])
    try:
        with _marking_unset_memory():
            adapter = attach_trial(network, config)
        look_at(network, [])
        is_changed = before.finds_other_weights(network, [PLACE])
        start = keep_start(adapter, arm.name) if is_changed else {}
        why = next(_Trial(ArmModel(network, adapter, start)).find_oddities(), None)
    except (ConfigError, RuntimeError):
        return  # the keys are for wider modules
    if why is not None:
        raise ConfigError(
            f"arm {arm.name!r}: PEFT's {name_kind(config)} cannot be an arm, since {why}. "
            "Choose another method, or leave out a key that does this."
        )


@contextmanager
def _marking_unset_memory() -> Iterator[None]:
    """Let tensors that nothing has set hold NaN in place of what was in memory."""
    was, only_warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=only_warned)


@dataclass(frozen=True, slots=True)
class _Trial:
    """A small model with the adapter as it begins."""

    model: ArmModel

    @property
    def network(self) -> PreTrainedModel:
        return self.model.network

    @property
    def trained(self) -> Mapping[str, Tensor]:
        return self.model.trained_tensors()

    def find_oddities(self) -> Iterator[str]:
        """Why the method cannot be an arm, as it begins and with other trained tensors."""
        yield from self._look_at_start()
        self._move(0.1)
        moved = self._copy()
        yield from self._look_at_answers()
        yield from self._look_at_training()
        if not all(map(torch.equal, moved, self.trained.values())):
            yield "it changes what is trained while it answers"
        yield from self._look_at_files()

    def _look_at_start(self) -> Iterator[str]:
        for name, tensor in self.trained.items():
            if not torch.isfinite(tensor).all():
                yield f"nothing sets {name.removeprefix(PLACE + '.')} at the start"
        if not self._has_gradient():
            yield "nothing that it trains has a gradient at the start, so it would stay as it is"
        answer = self._answer(_IDS)
        self._move(_ROUNDING, of_itself=True)
        difference = (self._answer(_IDS) - answer).abs().max()
        if not difference <= _SEEN * answer.abs().max():
            yield "its answers at the start follow from rounding"

    def _has_gradient(self) -> bool:
        tensors = list(self.trained.values())
        self.network.train()
        for seed in range(_N_DRAWS):
            answer = self._draw(seed)
            if not answer.requires_grad:
                continue
            found = torch.autograd.grad(answer.square().sum(), tensors, allow_unused=True)
            if any(gradient is not None and gradient.any() for gradient in found):
                return True
        return False

    def _look_at_answers(self) -> Iterator[str]:
        answer = self._answer(_IDS)
        if not torch.equal(answer, self._answer(_IDS)):
            yield "it answers by chance"
        together = self._answer(torch.cat([_IDS, _OTHERS]))
        if not _are_close(answer, together[:1]):
            yield "its answer for a row depends on the rows that are computed beside it"
        if not _are_close(answer[:, :4], self._answer(_OTHERS)[:, :4]):
            yield "its answer for a token depends on the tokens after it"

    def _look_at_training(self) -> Iterator[str]:
        """It may draw random numbers there."""
        self.network.train()
        if not torch.equal(self._draw(0), self._draw(0)):
            yield "it draws random numbers of its own, so a resumed run would become another one"

    def _look_at_files(self) -> Iterator[str]:
        answer = self._answer(_IDS)
        with TemporaryDirectory() as scratch:
            self.model.save(Path(scratch))
            try:
                with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # advice on settings, as in attach_adapter
                    read = load_adapter(make_small(WIDER), Path(scratch))
            except InputError as error:
                why = first_line(error.__cause__ or error).replace(f"{scratch}/", "")
                yield f"its files cannot be read back: {why.rstrip('.')}"
                return
        if not _are_close(answer, _Trial(read)._answer(_IDS)):
            yield "it answers otherwise once its files are read back"

    @torch.no_grad()
    def _answer(self, ids: Tensor) -> Tensor:
        """Logits in evaluation, (rows, T, V)."""
        logits: Tensor = self.network.eval()(input_ids=ids, use_cache=False).logits
        return logits

    def _draw(self, seed: int) -> Tensor:
        """Logits in training, (1, T, V)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            logits: Tensor = self.network(input_ids=_IDS, use_cache=False).logits
            return logits

    def _copy(self) -> list[Tensor]:
        return [tensor.detach().clone() for tensor in self.trained.values()]

    @torch.no_grad()
    def _move(self, far: float, *, of_itself: bool = False) -> None:
        """Add random numbers to what is trained, or to each number a part of it."""
        generator = torch.Generator().manual_seed(0)
        for tensor in self.trained.values():
            random = torch.randn(tensor.shape, generator=generator)
            tensor.add_(random * tensor if of_itself else random, alpha=far)


def _are_close(one: Tensor, other: Tensor) -> bool:
    """Whether logits are the same but for the order of sums."""
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4)


_IDS = torch.arange(1, 9)[None]
_OTHERS = torch.cat([_IDS[:, :4], _IDS[:, 4:] + 4], dim=1)  # differ in the last tokens
