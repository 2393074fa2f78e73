"""Attach what an arm trains: nothing, every weight, or a PEFT adapter at exact module paths.

PEFT matches target names by suffix, and ignores a name without a match as long as another name
has one. Here PEFT receives the resolved paths, and the modules that it adapted are compared with
them.
"""

import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, PeftType, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorastudy.config.models import Arm, BaseModelRef
from lorastudy.errors import InputError, reading_user_files
from lorastudy.model.adapter_files import check_adapter_folder, refuse_unused_tensors
from lorastudy.model.base import load_base, save_model
from lorastudy.model.placement import ResolvedPlacement
from lorastudy.model.sharing import cut_like
from lorastudy.seeds import derive_seed

ADAPTER_NAME = "default"
_PEFT_ROOT = "base_model.model."  # where a PeftModel keeps the network


@dataclass(frozen=True, slots=True)
class ArmModel:
    """A base model prepared for one arm.

    `network` is always the plain transformers model: PEFT replaces modules inside it, so a
    forward through it runs the adapter.
    """

    network: PreTrainedModel
    adapter: PeftModel | None = None

    def trained_tensors(self) -> dict[str, nn.Parameter]:
        """Parameters that the optimizer changes, by their names in `network`, in model order."""
        return {
            name: parameter
            for name, parameter in self.network.named_parameters()
            if parameter.requires_grad
        }

    def stored_tensors(self) -> dict[str, Tensor]:
        """The tensors that `save` writes, under the names that the libraries expect."""
        if self.adapter is None:
            tensors: dict[str, Tensor] = self.network.state_dict(keep_vars=True)
            return tensors
        return {f"{_PEFT_ROOT}{name}": tensor for name, tensor in self.trained_tensors().items()}

    def save(self, folder: Path, tensors: dict[str, Tensor] | None = None) -> None:
        """Write what was trained: a PEFT folder, or a whole model folder for full fine-tuning.

        `tensors` are whole `stored_tensors`, for a team whose members have only parts of them.
        """
        tensors = tensors or self.stored_tensors()
        if self.adapter is not None:
            # The base head stays out of the file even where the head is adapted (peft#2092).
            self.adapter.save_pretrained(
                str(folder), save_embedding_layers=False, state_dict=tensors
            )
            _sort_targets(folder / "adapter_config.json")
        else:
            save_model(self.network, folder, tensors)

    def load_best(self, folder: Path) -> None:
        """Load the trained tensors from a folder that `save` wrote.

        Raises:
            InputError: The folder is damaged, or has the tensors of another arm.
        """
        if self.adapter is not None:
            stored = load_file(folder / "adapter_model.safetensors")
            self.load_trained({_name_in_network(key): value for key, value in stored.items()})
        else:
            # transformers loads them, since names in its files may differ from those in memory.
            best = load_base(folder, device=torch.device("cpu"))
            self.load_trained({name: p.detach() for name, p in best.named_parameters()})

    def load_trained(self, tensors: dict[str, Tensor]) -> None:
        """Copy tensors into the trained parameters.

        Raises:
            InputError: Names or shapes are not those of this arm.
        """
        parameters = self.trained_tensors()
        if parameters.keys() != tensors.keys():
            raise InputError(
                "the stored weights are not those of this arm: "
                f"{len(parameters.keys() ^ tensors.keys())} names differ. "
                "Delete the run's folder to start it again."
            )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(cut_like(tensors[name], parameter))


def attach_arm(
    network: PreTrainedModel,
    arm: Arm,
    placement: ResolvedPlacement,
    *,
    seed: int,
    base: BaseModelRef | None = None,
) -> ArmModel:
    """Make `network` train exactly what `arm` says; adapters start from (seed, module path).

    `base` is written into the adapter, so that others load it on the same hub model.
    """
    if arm.method == "lora":
        if base is not None and base.id is not None:
            network.name_or_path = base.id
        return _attach_lora(network, arm, placement, seed, base.revision if base else "main")
    network.requires_grad_(arm.method == "full")
    return ArmModel(network)


def _attach_lora(
    network: PreTrainedModel, arm: Arm, placement: ResolvedPlacement, seed: int, revision: str
) -> ArmModel:
    assert arm.rank is not None and arm.alpha is not None
    config = LoraConfig(
        r=arm.rank,
        lora_alpha=int(arm.alpha) if arm.alpha == int(arm.alpha) else arm.alpha,  # type: ignore[arg-type]
        lora_dropout=arm.dropout or 0.0,
        target_modules=list(placement.paths),
        task_type="CAUSAL_LM",
        revision=revision,
    )
    with _known_peft_warnings():
        adapter = get_peft_model(network, config, adapter_name=ADAPTER_NAME)
    adapted = {
        path: module for path, module in network.named_modules() if isinstance(module, LoraLayer)
    }
    assert tuple(adapted) == placement.paths, "PEFT adapted modules that differ from the placement"
    for path, module in adapted.items():
        start_adapter(module, derive_seed(seed, "adapter", path))
    assert isinstance(adapter, PeftModel)
    return ArmModel(network, adapter)


def start_adapter(module: LoraLayer, seed: int) -> None:
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


def load_adapter(network: PreTrainedModel, folder: Path) -> ArmModel:
    """`network` with the PEFT adapter of `folder`, for scoring only.

    Raises:
        InputError: The folder is not a PEFT adapter, belongs to another model, is of a kind that
            cannot be scored, or has tensors that would not be used.
    """
    check_adapter_folder(folder)
    advice = "Give the model it was trained on."
    with (
        reading_user_files(f"{folder}: the adapter does not fit this base model", advice),
        _known_peft_warnings(),
    ):
        # PEFT warns, and goes on with random values for what the file lacks
        warnings.filterwarnings("error", message="Found missing adapter keys")
        adapter = PeftModel.from_pretrained(network, str(folder), use_safetensors=True)
        refuse_unused_tensors(adapter, folder)
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


def _name_in_network(key: str) -> str:
    """The name in PEFT's files, without the adapter's: `base_model.model.PATH.lora_A.weight`."""
    path, _, tensor = key.removeprefix(_PEFT_ROOT).rpartition(".lora_")
    letter, _, what = tensor.partition(".")
    return f"{path}.lora_{letter}.{ADAPTER_NAME}.{what}"


def _sort_targets(path: Path) -> None:
    """Sort the target modules; PEFT writes them in an order that differs between processes."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merge_adapter(model: ArmModel) -> PreTrainedModel:
    """The base model with the adapter added into its weights; this unties a tied head.

    The head then has its own weight, with the adapter, and the embedding does not change, as
    during training.
    """
    assert model.adapter is not None
    network = model.network
    head, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    base = head.get_base_layer() if isinstance(head, LoraLayer) else None
    if isinstance(base, nn.Linear) and base.weight is embedding.weight:
        base.weight = nn.Parameter(base.weight.detach().clone())
        network.config.tie_word_embeddings = False
    merged = model.adapter.merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    return merged


@contextmanager
def _known_peft_warnings() -> Iterator[None]:
    """Silence PEFT's warnings about things handled here and about its use of transformers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out is set to.*")
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        warnings.filterwarnings("ignore", message=".*tied.*")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        yield
