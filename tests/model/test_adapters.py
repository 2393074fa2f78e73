"""What an arm trains, and that others can read what it saves: PEFT and transformers judge."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from lorastudy.config.models import Arm
from lorastudy.errors import InputError
from lorastudy.model.adapters import load_adapter, merge_adapter
from lorastudy.model.base import load_base
from support.tiny_arms import (
    BASELINE,
    CPU,
    FULL,
    PLACEMENTS,
    RANK,
    adapted,
    as_if_trained,
    attach,
    logits_of,
    lora,
    place,
)

LAYOUTS = ("tiny_gpt2", "tiny_llama")
# Where PEFT and transformers are used as a reader would, their advice is not ours to heed.
as_others_do = pytest.mark.filterwarnings("ignore")


@pytest.fixture(params=LAYOUTS)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=PLACEMENTS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def load_plain(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_peft_adapts_exactly_the_resolved_modules(folder: Path, name: str) -> None:
    model = attach(folder, lora(name))
    assert model.adapter is not None
    assert adapted(model) == place(folder, lora(name)).paths
    assert tuple(model.adapter.targeted_module_names) == adapted(model)


def test_trained_parameters_are_those_that_were_counted(folder: Path, name: str) -> None:
    model = attach(folder, lora(name))
    assert model.adapter is not None
    trained = sum(p.numel() for p in model.trained_tensors().values())
    assert trained == place(folder, lora(name)).adapter_parameters(RANK)
    assert trained == model.adapter.get_nb_trainable_parameters()[0]


@as_others_do
@pytest.mark.parametrize(
    ("name", "suffixes"),
    [("lora-1", ["c_attn"]), ("lora-2", ["c_attn", "c_proj"]), ("lora-3", "all-linear")],
)
def test_placements_of_the_study_are_what_its_suffixes_meant(
    name: str, suffixes: list[str] | str, tiny_gpt2: Path
) -> None:
    config = LoraConfig(r=RANK, target_modules=suffixes, task_type="CAUSAL_LM")
    theirs = get_peft_model(load_plain(tiny_gpt2), config)
    ours = attach(tiny_gpt2, lora(name))
    assert list(adapted(ours)) == list(theirs.targeted_module_names)


def test_lora_trains_nothing_but_its_adapters(folder: Path) -> None:
    model = attach(folder, lora("lora-4"))
    assert all(".lora_" in name for name in model.trained_tensors())


def test_full_trains_every_parameter_and_baseline_none(folder: Path) -> None:
    n_all = sum(p.numel() for p in load_base(folder, device=CPU).parameters())
    assert sum(p.numel() for p in attach(folder, FULL).trained_tensors().values()) == n_all
    assert attach(folder, BASELINE).trained_tensors() == {}


def test_adapter_starts_as_the_base_model(folder: Path, name: str) -> None:
    start = logits_of(attach(folder, lora(name)).network.eval())
    assert torch.equal(start, logits_of(load_plain(folder)))


def test_start_depends_on_seed_and_path_only(folder: Path) -> None:
    few = attach(folder, lora("lora-1"), seed=5).trained_tensors()
    torch.manual_seed(99)
    many = attach(folder, lora("lora-4"), seed=5).trained_tensors()
    assert few.keys() < many.keys()
    assert all(torch.equal(tensor, many[name]) for name, tensor in few.items())


def test_start_differs_by_seed_and_by_path(tiny_gpt2: Path) -> None:
    starts = [
        tensor
        for seed in (0, 1)
        for name, tensor in attach(tiny_gpt2, lora("lora-1"), seed=seed).trained_tensors().items()
        if "lora_A" in name
    ]
    assert len({tuple(tensor.flatten().tolist()) for tensor in starts}) == len(starts) == 4


def test_start_has_the_spread_of_pefts(tiny_gpt2: Path) -> None:
    # kaiming_uniform(a = sqrt 5) is uniform on +-1 / sqrt(fan_in)
    model = attach(tiny_gpt2, lora("lora-3"))
    for name, tensor in model.trained_tensors().items():
        if "lora_A" in name:
            bound = tensor.shape[1] ** -0.5
            assert 0.8 * bound < float(tensor.detach().abs().max()) <= bound, name


def test_scale_is_alpha_over_rank(tiny_gpt2: Path) -> None:
    model = attach(tiny_gpt2, lora("lora-1"))
    module = model.network.get_submodule("transformer.h.0.attn.c_attn")
    assert module.scaling == {"default": 8.0 / RANK}


@as_others_do
def test_saved_adapter_is_read_by_peft(folder: Path, name: str, tmp_path: Path) -> None:
    model = as_if_trained(attach(folder, lora(name)))
    model.save(tmp_path)
    read = PeftModel.from_pretrained(load_plain(folder), str(tmp_path)).eval()
    ours = logits_of(model.network)
    assert torch.allclose(logits_of(read), ours, rtol=0, atol=1e-6)
    assert not torch.allclose(logits_of(load_plain(folder)), ours, rtol=0, atol=1e-2)


def test_saved_adapter_holds_the_adapter_and_nothing_else(
    folder: Path, name: str, tmp_path: Path
) -> None:
    attach(folder, lora(name)).save(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert sorted(stored) == sorted(
        f"base_model.model.{path}.lora_{letter}.weight"
        for path in place(folder, lora(name)).paths
        for letter in "AB"
    )


def test_saved_adapter_is_the_same_in_every_process(tiny_gpt2: Path, tmp_path: Path) -> None:
    attach(tiny_gpt2, lora("lora-2")).save(tmp_path)
    text = (tmp_path / "adapter_config.json").read_text()
    places = [text.index(f'"{path}"') for path in sorted(place(tiny_gpt2, lora("lora-2")).paths)]
    assert places == sorted(places)


def test_saved_adapter_is_scored_as_it_was_trained(folder: Path, name: str, tmp_path: Path) -> None:
    model = as_if_trained(attach(folder, lora(name)))
    model.save(tmp_path)
    read = load_adapter(load_base(folder, device=CPU), tmp_path)
    assert torch.equal(logits_of(read.network), logits_of(model.network))
    assert not read.network.training


def test_an_adapter_whose_feed_forward_modules_peft_chooses_is_read_again(
    folder: Path, name: str, tmp_path: Path
) -> None:
    peft = {"peft_type": "IA3"}
    arm = Arm(
        name="ia3", method="peft", placement=PLACEMENTS[name], peft=peft, learning_rates=(1e-3,)
    )
    model = as_if_trained(attach(folder, arm))
    model.save(tmp_path)
    read = load_adapter(load_base(folder, device=CPU), tmp_path)
    assert torch.equal(logits_of(read.network), logits_of(model.network))


def test_best_adapter_comes_back(folder: Path, name: str, tmp_path: Path) -> None:
    model = as_if_trained(attach(folder, lora(name)))
    model.save(tmp_path)
    best = logits_of(model.network)
    as_if_trained(model)
    assert not torch.equal(logits_of(model.network), best)
    model.load_best(tmp_path)
    assert torch.equal(logits_of(model.network), best)


def test_best_full_model_comes_back(folder: Path, tmp_path: Path) -> None:
    model = as_if_trained(attach(folder, FULL))
    model.save(tmp_path)
    best = logits_of(model.network)
    as_if_trained(model)
    assert not torch.equal(logits_of(model.network), best)
    model.load_best(tmp_path)
    assert torch.equal(logits_of(model.network), best)


def test_saved_full_model_is_read_by_transformers(folder: Path, tmp_path: Path) -> None:
    model = as_if_trained(attach(folder, FULL))
    model.save(tmp_path)
    assert torch.equal(logits_of(load_plain(tmp_path)), logits_of(model.network))


def test_best_full_model_comes_back_where_files_use_other_names(tmp_path: Path) -> None:
    # transformers 5 stores the head of GPT-NeoX as embed_out and calls it lm_head in memory
    config = AutoConfig.for_model(
        "gpt_neox",
        num_hidden_layers=1,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=2,
        vocab_size=100,
        bos_token_id=0,
        eos_token_id=0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    model = as_if_trained(attach(tmp_path / "base", FULL))
    model.save(tmp_path / "best")
    best = logits_of(model.network)
    as_if_trained(model).load_best(tmp_path / "best")
    assert torch.equal(logits_of(model.network), best)


def test_merged_model_computes_what_the_adapter_did(folder: Path, name: str) -> None:
    model = as_if_trained(attach(folder, lora(name)))
    before = logits_of(model.network)
    merged = merge_adapter(model)
    assert not any(".lora_" in n for n, _ in merged.named_parameters())
    assert torch.allclose(logits_of(merged), before, rtol=0, atol=1e-4)


def test_merging_an_adapted_head_leaves_the_embedding_alone(folder: Path) -> None:
    embedding = load_base(folder, device=CPU).get_input_embeddings().weight
    merged = merge_adapter(as_if_trained(attach(folder, lora("lora-4"))))
    assert torch.equal(merged.get_input_embeddings().weight, embedding)
    assert not torch.equal(merged.get_output_embeddings().weight, embedding)


def test_merged_model_is_read_by_transformers(folder: Path, name: str, tmp_path: Path) -> None:
    merged = merge_adapter(as_if_trained(attach(folder, lora(name))))
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits_of(load_plain(tmp_path)), logits_of(merged))


def test_adapter_of_another_model_is_refused(
    tiny_gpt2: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    attach(tiny_gpt2, lora("lora-1")).save(tmp_path)
    with pytest.raises(InputError, match="does not fit this base model"):
        load_adapter(load_base(tiny_llama, device=CPU), tmp_path)


def remove_one_tensor(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors[sorted(tensors)[-1]]
    save_file(tensors, path, metadata={"format": "pt"})


def test_adapter_that_lacks_a_tensor_is_refused(tiny_gpt2: Path, tmp_path: Path) -> None:
    attach(tiny_gpt2, lora("lora-2")).save(tmp_path)
    remove_one_tensor(tmp_path)
    with pytest.raises(InputError, match="does not fit this base model"):
        load_adapter(load_base(tiny_gpt2, device=CPU), tmp_path)


def test_best_that_lacks_a_tensor_is_refused(tiny_gpt2: Path, tmp_path: Path) -> None:
    model = attach(tiny_gpt2, lora("lora-2"))
    model.save(tmp_path)
    remove_one_tensor(tmp_path)
    with pytest.raises(InputError, match="not those of this arm"):
        model.load_best(tmp_path)


def test_best_of_another_arm_is_refused(tiny_gpt2: Path, tmp_path: Path) -> None:
    attach(tiny_gpt2, lora("lora-2")).save(tmp_path)
    with pytest.raises(InputError, match="not those of this arm"):
        attach(tiny_gpt2, lora("lora-1")).load_best(tmp_path)


def test_folder_without_an_adapter_is_refused(tiny_gpt2: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no adapter_config\.json"):
        load_adapter(load_base(tiny_gpt2, device=CPU), tmp_path)
