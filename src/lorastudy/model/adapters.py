"""Attach what an arm trains: nothing, every weight, or a PEFT adapter at exact module paths.

PEFT matches target names by suffix, and ignores a name without a match as long as another name
has one. Here PEFT receives the resolved paths, and the modules that it adapted are compared with
them.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, PeftType
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorastudy.config.models import Arm, BaseModelRef
from lorastudy.errors import (
    ConfigError,
    InputError,
    first_line,
    is_out_of_memory,
    reading_user_files,
)
from lorastudy.model.adapter_files import (
    WEIGHTS,
    check_adapter_folder,
    find_half_of_tied,
    refuse_half_of_tied,
    refuse_other_tensors,
    refuse_unused_tensors,
    write_adapter,
)
from lorastudy.model.attach import (
    ADAPTER_NAME,
    attach_adapter,
    hold_rows,
    is_plain_start,
    known_peft_warnings,
    look_at,
    name_kind,
    refuse_unfit,
    start_lora,
    stored_by_peft,
)
from lorastudy.model.base import load_base, save_model
from lorastudy.model.experts import refuse_experts
from lorastudy.model.peft_config import make_peft_config
from lorastudy.model.placement import ResolvedPlacement
from lorastudy.model.selection import select_parameters, untie_head
from lorastudy.model.sharing import cut_like
from lorastudy.model.taken_out import as_plain_lora, first_half, keep_start


@dataclass(frozen=True, slots=True)
class ArmModel:
    """A base model prepared for one arm.

    `network` is always the plain transformers model: PEFT replaces modules inside it, so a
    forward through it runs the adapter.
    """

    network: PreTrainedModel
    adapter: PeftModel | None = None
    # the adapter as it began, by the names in its file, if it was taken out of the base weights
    start: Mapping[str, Tensor] = field(default_factory=dict)
    n_fixed: int = 0  # numbers in trained tensors that always stay zero

    @property
    def n_trained(self) -> int:
        """Numbers that training can change."""
        return sum(p.numel() for p in self.trained_tensors().values()) - self.n_fixed

    def trained_tensors(self) -> dict[str, nn.Parameter]:
        """Parameters that the optimizer changes, by their names in `network`, in model order."""
        return {
            name: parameter
            for name, parameter in self.network.named_parameters()
            if parameter.requires_grad
        }

    def stored_tensors(self) -> dict[str, Tensor]:
        """The tensors that `save` writes, under the names that the libraries expect.

        They are those that are trained, and others without which an adapter means nothing, such as
        projections that were drawn once.
        """
        if self.adapter is None:
            tensors: dict[str, Tensor] = self.network.state_dict(keep_vars=True)
            return tensors
        return stored_by_peft(self.adapter)

    def save(self, folder: Path, tensors: dict[str, Tensor] | None = None) -> None:
        """Write what was trained: a PEFT folder, or a whole model folder if there is no adapter.

        `tensors` are whole `stored_tensors`, for a team whose members have only parts of them.
        """
        tensors = tensors or self.stored_tensors()
        if self.adapter is None:
            save_model(self.network, folder, tensors)
            return
        config = self.adapter.peft_config[ADAPTER_NAME]
        if self.start:
            assert isinstance(config, LoraConfig)
            tensors, config = as_plain_lora(config, tensors, self.start)
        write_adapter(folder, self.adapter, tensors, config)

    def load_best(self, folder: Path) -> None:
        """Load the trained tensors from a folder that `save` wrote.

        Raises:
            InputError: The folder is damaged, or has the tensors of another arm.
        """
        if self.adapter is not None:
            stored = load_file(folder / WEIGHTS)
            _copy(first_half(stored) if self.start else stored, self.stored_tensors())
        else:
            # transformers loads them, since names in its files may differ from those in memory.
            best = load_base(folder, device=torch.device("cpu"))
            named = {name: p.detach() for name, p in best.named_parameters()}
            self.load_trained(
                {name: named[name] for name in self.trained_tensors() if name in named}
            )

    def load_trained(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors into the trained parameters.

        Raises:
            InputError: Names or shapes are not those of this arm.
        """
        _copy(tensors, self.trained_tensors())


@torch.no_grad()
def _copy(tensors: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    if into.keys() != tensors.keys():
        raise InputError(
            "the stored weights are not those of this arm: "
            f"{len(into.keys() ^ tensors.keys())} names differ. "
            "Delete the run's folder to start it again."
        )
    for name, tensor in into.items():
        tensor.copy_(cut_like(tensors[name], tensor))


def attach_arm(
    network: PreTrainedModel,
    arm: Arm,
    placement: ResolvedPlacement,
    *,
    seed: int,
    base: BaseModelRef | None = None,
    rows: Sequence[Tensor] = (),
    has_weights: bool = True,
) -> ArmModel:
    """Make `network` train exactly what `arm` says; all initial values follow from `seed`.

    `base` is written into the adapter, so that others load it on the same hub model. `rows` of
    token ids, (T,) each, are for starts that are computed from training rows. Without weights,
    nothing is seen of how an adapter changes the model.

    Raises:
        ConfigError: The arm's method cannot train these modules in this program.
    """
    if not arm.trains_adapter:
        select_parameters(network, arm)
        for parameter in network.parameters():
            if parameter.requires_grad and parameter.dtype == torch.bfloat16:
                parameter.grad_dtype = torch.float32  # where those of many micro-batches are added
        return ArmModel(network)
    if base is not None and base.id is not None:
        network.name_or_path = base.id
    config = make_peft_config(arm, placement, revision=base.revision if base else "main")
    refuse_experts(network, config, arm, placement.paths)
    looks = has_weights and not arm.has_plain_start
    before = look_at(network, placement.paths) if looks else None
    adapter = attach_adapter(network, config, arm.name, seed=seed, rows=rows)
    refuse_unfit(adapter, arm.name, placement.paths)
    if is_plain_start(config):
        start_lora(network, seed)
    n_fixed = hold_rows(network, placement)
    start: dict[str, Tensor] = {}
    if before is not None and before.finds_other_weights(network, placement.paths):
        before.refuse_other_model(network, arm.name)
        start = keep_start(adapter, arm.name)
    return ArmModel(network, adapter, start, n_fixed)


def load_adapter(network: PreTrainedModel, folder: Path) -> ArmModel:
    """`network` with the PEFT adapter of `folder`, for scoring only.

    Raises:
        InputError: The folder is not a PEFT adapter, belongs to another model, is of a kind that
            cannot be scored, or has tensors that would not be used.
    """
    check_adapter_folder(folder)
    advice = "Give the model it was trained on, or correct its adapter_config.json."
    with (
        reading_user_files(f"{folder}: the adapter does not fit this base model", advice),
        known_peft_warnings(),
    ):
        # PEFT only warns, and uses random values for what the file lacks
        warnings.filterwarnings("error", message="Found missing adapter keys")
        half = find_half_of_tied(network, folder)
        adapter = PeftModel.from_pretrained(network, str(folder), use_safetensors=True)
        refuse_half_of_tied(adapter, folder, half)
        refuse_unused_tensors(adapter, folder)
        refuse_other_tensors(folder, stored_by_peft(adapter))
        _refuse_outside_parts(network, adapter.eval())
    return ArmModel(network, adapter)


@torch.no_grad()
def _refuse_outside_parts(network: PreTrainedModel, adapter: PeftModel) -> None:
    """Check that the adapter acts only in modules of `network`, since these are scored."""
    if adapter.peft_config[ADAPTER_NAME].peft_type == PeftType.LORA:
        return
    ids = torch.arange(1, 9, device=network.device)[None]
    whole = adapter(input_ids=ids, use_cache=False).logits
    if not torch.equal(whole, network(input_ids=ids, use_cache=False).logits):
        raise ValueError("it computes something outside the modules of the model")


def merge_adapter(model: ArmModel) -> PreTrainedModel:
    """The base model with the adapter added into its weights; this unties a tied head.

    The head then has its own weight, with the adapter, and the embedding does not change, as
    during training.

    Raises:
        ConfigError: PEFT cannot merge adapters of this method.
    """
    assert model.adapter is not None
    network = model.network
    untie_head(network)
    try:
        merged = model.adapter.merge_and_unload()
    except (RuntimeError, ValueError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        kind = name_kind(model.adapter.peft_config[ADAPTER_NAME])
        raise ConfigError(
            f"PEFT cannot merge {kind} into the base model: {first_line(error).rstrip('.')}. "
            "Export the adapter without --merge."
        ) from error
    assert isinstance(merged, PreTrainedModel)
    return merged
