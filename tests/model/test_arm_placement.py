"""Where arms train beyond layer types: all-linear, layers, parts of fused modules, budgets."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from lorastudy.config.models import Arm
from lorastudy.errors import ConfigError
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.arm_size import measure_arm
from lorastudy.model.base import build_without_weights, describe_base
from lorastudy.model.layer_types import QKV, rows_of_part
from lorastudy.model.placement import ResolvedPlacement
from support.families import make_config, save_family

LAYOUTS = ("tiny_gpt2", "tiny_llama")
FUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("gpt2", {}),
    "GPT-BigCode": ("gpt_bigcode", {}),
    "GPT-BigCode with heads of keys": ("gpt_bigcode", {"multi_query": False}),
    "GPT-NeoX": ("gpt_neox", {}),
    "Phi-3": ("phi3", {}),
    "BLOOM": ("bloom", {}),
    "Falcon 7B": ("falcon", {"alibi": False}),
    "Falcon RW": ("falcon", {"multi_query": False}),
    "Falcon 40B": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
}


EXPERTS = {
    **{"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
    "mlp_only_layers": [0],
}


def lora_at(*placement: str, **keys: Any) -> Arm:
    usual: dict[str, Any] = {"rank": 4, "alpha": 8.0, "learning_rates": (1e-3,)}
    return Arm(name="x", method="lora", placement=placement, **{**usual, **keys})


def resolve(folder: Path, *placement: str, **keys: Any) -> ResolvedPlacement:
    return resolve_arm(lora_at(*placement, **keys), describe_base(folder))


@pytest.fixture(params=LAYOUTS)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.filterwarnings("ignore")
def test_all_linear_is_what_peft_means_by_it(folder: Path) -> None:
    config = LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    assert resolve(folder, "all-linear").paths == tuple(theirs.targeted_module_names)


@pytest.mark.parametrize(
    ("layers", "kept"), [("0", {"0"}), ("last-1", {"1"}), ("0-1", {"0", "1"}), (None, {"0", "1"})]
)
def test_layers_are_counted_from_the_first_or_from_the_end(
    layers: str | None, kept: set[str], folder: Path
) -> None:
    paths = resolve(folder, "projection", layers=layers).paths
    assert {path.split(".")[2] for path in paths} == kept
    assert len(paths) == 2 * len(kept)


def test_all_linear_within_layers_leaves_out_what_is_in_none(tmp_path: Path) -> None:
    make_config("gemma4_text").save_pretrained(tmp_path)
    assert "model.per_layer_model_projection" in resolve(tmp_path, "all-linear").paths
    paths = resolve(tmp_path, "all-linear", layers="last-1").paths
    assert paths and all(path.startswith("model.layers.3.") for path in paths)


def test_all_linear_leaves_out_routers_that_are_no_linear_map(tmp_path: Path) -> None:
    keys = {"num_local_experts": 2, "num_hidden_layers": 1}
    make_config("phimoe", **keys).save_pretrained(tmp_path)
    names = {path.rpartition(".")[2] for path in resolve(tmp_path, "all-linear").paths}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("placement", ["all-linear", "model.layers.*.mlp.down_proj"])
def test_what_means_tensors_of_experts_to_peft_is_refused(placement: str, tmp_path: Path) -> None:
    # one layer with an MLP, one with experts
    make_config("qwen3_moe", **EXPERTS).save_pretrained(tmp_path)
    base = describe_base(tmp_path)
    targets = placement if placement == "all-linear" else ["down_proj"]
    config = LoraConfig(target_modules=targets, task_type="CAUSAL_LM")
    assert get_peft_model(build_without_weights(tmp_path), config).targeted_parameter_names
    arm = lora_at(placement)
    with pytest.raises(
        ConfigError, match=r"also means tensors of experts.*self_attn\.q_proj \(2\)"
    ):
        measure_arm(arm, base, resolve_arm(arm, base))
    arm = lora_at("model.layers.*.self_attn.q_proj")
    assert measure_arm(arm, base, resolve_arm(arm, base)).trained


def test_query_key_and_value_of_separate_modules_are_these_modules(tiny_llama: Path) -> None:
    names = [p.rpartition(".")[2] for p in resolve(tiny_llama, "query", "value", layers="0").paths]
    assert names == ["q_proj", "v_proj"]


def test_rows_of_parts_on_paper() -> None:
    # two heads of queries share one of keys; heads are two wide
    of_four = {"n_rows": 16, "n_heads": 4, "n_key_heads": 2}
    assert rows_of_part("query", "blocks", **of_four) == ((0, 8),)
    assert rows_of_part("key", "blocks", **of_four) == ((8, 12),)
    assert rows_of_part("value", "blocks", **of_four) == ((12, 16),)
    assert rows_of_part("query", "heads", **of_four) == ((0, 4), (8, 12))
    assert rows_of_part("key", "heads", **of_four) == ((4, 6), (12, 14))
    assert rows_of_part("value", "heads", **of_four) == ((6, 8), (14, 16))
    assert rows_of_part("value", "heads", n_rows=15, n_heads=4, n_key_heads=2) == ()


def rows_that_move(numbers: Tensor, fused: Tensor, position: int) -> set[int]:
    """Rows of a fused module that change `numbers` at `position`; `fused` is its output."""
    weights = torch.randn(numbers.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((numbers * weights).sum(), fused, retain_graph=True)
    return set(gradient[0, position].nonzero().flatten().tolist())


@pytest.mark.parametrize("case", FUSED)
def test_parts_of_fused_modules_are_the_rows_that_attention_reads_them_from(
    case: str, tmp_path: Path
) -> None:
    family, keys = FUSED[case]
    folder = save_family(family, tmp_path, **keys)
    placed = {part: resolve(folder, part) for part in QKV}
    parts = {part: next(iter(p.parts.items())) for part, p in placed.items()}
    adapted = {
        part: {row for span in found[0].spans for row in range(*span)}
        for part, (_, found) in parts.items()
    }
    network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    outputs: list[Tensor] = []
    module = network.get_submodule(parts["query"][0])
    module.register_forward_hook(lambda _, __, output: outputs.append(output))
    ids = torch.arange(40, 52)[None]
    found = network(input_ids=ids, output_attentions=True, use_cache=False)
    last = found.attentions[0][0, :, -1]
    # the last query attends to the keys before it, and takes its values from there
    assert rows_that_move(last, outputs[0], 3) == adapted["key"]
    assert rows_that_move(last, outputs[0], 11) == adapted["key"] | adapted["query"]
    logits = found.logits[0, -1]
    assert rows_that_move(logits, outputs[0], 3) == set.union(*adapted.values())
    assert sum(map(len, adapted.values())) == outputs[0].shape[-1]


@pytest.mark.parametrize("keys", [{}, {"use_dora": True}])
@pytest.mark.parametrize("placement", [("attention",), ("all-linear",), ("query", "value")])
def test_a_budget_chooses_the_largest_rank_within_it(
    placement: tuple[str, ...], keys: dict[str, bool], folder: Path, tiny_gpt2: Path
) -> None:
    if keys and placement == ("query", "value") and folder == tiny_gpt2:
        with pytest.raises(ConfigError, match="adapted only by method: lora without use_dora"):
            resolve(folder, *placement, rank=None, budget=5000, **keys)
        return
    arm = Arm(
        name="x",
        method="lora",
        placement=placement,
        budget=5000,
        alpha="2r",
        learning_rates=(1e-3,),
        **keys,
    )
    base = describe_base(folder)
    placed = resolve_arm(arm, base)
    assert placed.rank is not None
    trained = measure_arm(arm, base, placed).trained
    per_rank = placed.adapter_parameters(1)
    assert 5000 - per_rank < trained <= 5000
    assert arm.alpha_at(placed.rank) == 2.0 * placed.rank
