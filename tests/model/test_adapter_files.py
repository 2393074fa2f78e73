"""An adapter is scored whole, as PEFT computes it, or its folder is refused."""

import json
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lorastudy.config.models import BaseModelRef
from lorastudy.errors import InputError
from lorastudy.model.adapter_files import check_adapter_folder, note_other_base
from lorastudy.model.adapters import load_adapter
from lorastudy.model.base import load_base
from lorastudy.model.elsewhere import describe_weights
from lorastudy.model.scoring import make_scorer
from support.tiny_arms import CPU, RANK, as_if_trained, attach, logits_of, lora

# Where PEFT and transformers are used as a reader would, their advice is not ours to heed.
as_others_do = pytest.mark.filterwarnings("ignore")


def load_plain(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refusal_of(base: Path, adapter: Path) -> str:
    with pytest.raises(InputError) as refused:
        load_adapter(load_base(base, device=CPU), adapter)
    assert str(adapter) in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "values",
    [
        {"target_modules": ["c_attn"]},
        {"target_modules": "all-linear"},
        {"exclude_modules": ["lm_head"]},
        {"layers_to_transform": [0], "target_modules": ["c_attn", "c_proj"]},
        {"layers_to_transform": 1, "target_modules": ["c_attn"], "exclude_modules": ["c_proj"]},
    ],
    ids=lambda values: "-".join(values),
)
def test_config_that_leaves_stored_tensors_unused_is_refused(
    values: dict[str, object], tiny_gpt2: Path, tmp_path: Path
) -> None:
    as_if_trained(attach(tiny_gpt2, lora("lora-4"))).save(tmp_path)
    edit_config(tmp_path, **values)
    assert re.search(r"\d+ of \d+ tensors .*lora_A", refusal_of(tiny_gpt2, tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.transformer.h.9.attn.c_attn.lora_A.weight",
        "base_model.model.transformer.h.0.attn.c_attn.lora_magnitude_vector",
        "something.else",
    ],
)
def test_surplus_tensor_of_an_adapter_is_named(name: str, tiny_gpt2: Path, tmp_path: Path) -> None:
    as_if_trained(attach(tiny_gpt2, lora("lora-1"))).save(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    save_file({**load_file(path), name: torch.zeros(4, 32)}, path, metadata={"format": "pt"})
    said = refusal_of(tiny_gpt2, tmp_path)
    assert name.removesuffix(".weight").removesuffix("_vector") in said


def test_adapter_whose_trained_biases_are_missing_is_refused(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    as_if_trained(attach(tiny_gpt2, lora("lora-1"))).save(tmp_path)
    edit_config(tmp_path, bias="all")
    assert re.search(r"lacks .*bias", refusal_of(tiny_gpt2, tmp_path))


@as_others_do
@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_adapter_with_trained_biases_is_scored_with_them(
    bias: str, tiny_gpt2: Path, tmp_path: Path
) -> None:
    config = LoraConfig(r=2, target_modules=["c_attn"], bias=bias, fan_in_fan_out=True)
    adapter = get_peft_model(load_plain(tiny_gpt2), config)
    for name, parameter in adapter.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    adapter.eval().save_pretrained(tmp_path)
    scored = load_adapter(load_base(tiny_gpt2, device=CPU), tmp_path).network.eval()
    assert torch.allclose(logits_of(scored), logits_of(adapter), atol=1e-4)


@as_others_do
def test_a_part_of_a_tied_weight_is_replaced_only_where_the_config_says_so(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    config = LoraConfig(r=2, target_modules=["c_attn"], modules_to_save=["lm_head"])
    theirs = get_peft_model(load_plain(tiny_gpt2), config).eval()
    with torch.no_grad():
        theirs.get_output_embeddings().modules_to_save["default"].weight.mul_(1.5)
    theirs.save_pretrained(tmp_path)
    ours = load_adapter(load_base(tiny_gpt2, device=CPU), tmp_path).network
    assert torch.allclose(logits_of(ours), logits_of(theirs), atol=1e-4)
    edit_config(tmp_path, modules_to_save=None)
    assert re.search(r"replaces lm_head.weight .*share", refusal_of(tiny_gpt2, tmp_path))


@as_others_do
def test_copy_of_a_tied_weight_in_the_file_changes_nothing(tiny_gpt2: Path, tmp_path: Path) -> None:
    theirs = get_peft_model(load_plain(tiny_gpt2), LoraConfig(r=2, target_modules=["c_attn"]))
    theirs.save_pretrained(tmp_path, save_embedding_layers=True)
    assert any("wte" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    ours = load_adapter(load_base(tiny_gpt2, device=CPU), tmp_path).network
    assert torch.allclose(logits_of(ours), logits_of(theirs.eval()), atol=1e-4)


@pytest.mark.parametrize("kind", [torch.int8, torch.complex64])
def test_numbers_that_are_not_weights_are_refused(
    kind: torch.dtype, tiny_gpt2: Path, tmp_path: Path
) -> None:
    as_if_trained(attach(tiny_gpt2, lora("lora-1"))).save(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    save_file({name: t.to(kind) for name, t in load_file(path).items()}, path)
    with pytest.warns() if kind.is_complex else nullcontext():
        assert re.search(r"lora_A.weight holds numbers of type", refusal_of(tiny_gpt2, tmp_path))


@pytest.mark.parametrize(
    "values", [{"use_rslora": "no"}, {"use_rslora": 0}, {"lora_alpha": True}], ids=str
)
def test_setting_of_another_kind_than_pefts_is_refused(
    values: dict[str, object], tiny_gpt2: Path, tmp_path: Path
) -> None:
    attach(tiny_gpt2, lora("lora-1")).save(tmp_path)
    edit_config(tmp_path, **values)
    ((key, value),) = values.items()
    assert f"{key} is {value!r}, which is not" in refusal_of(tiny_gpt2, tmp_path)


def test_setting_that_the_installed_peft_does_not_know_is_refused_if_it_is_set(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    attach(tiny_gpt2, lora("lora-1")).save(tmp_path)
    edit_config(tmp_path, later_config=None, use_earlier=False)
    check_adapter_folder(tmp_path)
    edit_config(tmp_path, use_later={"rank": 2})
    assert "PEFT does not know use_later" in refusal_of(tiny_gpt2, tmp_path)


@pytest.mark.parametrize(
    ("trained_on", "given", "differs"),
    [
        ("owner/small", {"id": "owner/small"}, False),
        ("/models/Small/", {"id": "owner/small"}, False),
        ("/hub/models--owner--small/snapshots/0f0f", {"path": "/elsewhere/small"}, False),
        ("/old/place/demo/base", {"builtin": "demo"}, False),
        (None, {"id": "owner/small"}, False),
        ("owner/small-chat", {"id": "owner/small"}, True),
        ("/hub/models--owner--small/snapshots/0f0f", {"path": "/elsewhere/other"}, True),
    ],
)
def test_adapter_that_was_trained_on_a_base_of_another_name_is_noted(
    trained_on: str | None, given: dict[str, str], differs: bool, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": trained_on})
    )
    note = note_other_base(tmp_path, BaseModelRef.model_validate(given))
    assert bool(note) == differs and (str(trained_on) in note) == differs


@pytest.mark.parametrize("start", ["pissa_niter_4", "corda", "lora_ga"])
def test_start_that_cannot_be_taken_out_again_is_refused(
    start: str, tiny_gpt2: Path, tmp_path: Path
) -> None:
    attach(tiny_gpt2, lora("lora-1")).save(tmp_path)
    edit_config(tmp_path, init_lora_weights=start)
    assert f"init_lora_weights is '{start}'" in refusal_of(tiny_gpt2, tmp_path)


def test_adapter_that_was_trained_with_everything_dropped_is_scored(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    as_if_trained(attach(tiny_gpt2, lora("lora-1"))).save(tmp_path)
    network = load_adapter(load_base(tiny_gpt2, device=CPU), tmp_path).network
    logits = logits_of(network)
    edit_config(tmp_path, lora_dropout=1.0)
    dropped = load_adapter(load_base(tiny_gpt2, device=CPU), tmp_path).network
    make_scorer(dropped, "float32")  # which runs the model as in training, too
    assert torch.allclose(logits_of(dropped), logits, atol=1e-4)


def test_adapters_that_lie_in_folders_of_their_own_are_named(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    for name in ("second", "first"):
        attach(tiny_gpt2, lora("lora-1")).save(tmp_path / name)
    said = "It holds adapters in folders of their own: first, second. Name one."
    assert said in refusal_of(tiny_gpt2, tmp_path)
    with pytest.raises(InputError, match=re.escape(said)):
        describe_weights(tmp_path)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT", "CARTRIDGE"])
def test_adapter_that_changes_no_module_is_refused_by_its_type(
    kind: str, tiny_gpt2: Path, tmp_path: Path
) -> None:
    attach(tiny_gpt2, lora("lora-1")).save(tmp_path)
    edit_config(tmp_path, peft_type=kind, num_virtual_tokens=4)
    assert f"peft_type {kind} changes no module" in refusal_of(tiny_gpt2, tmp_path)


@as_others_do
def test_adapter_of_another_kind_that_changes_modules_is_scored(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    config = IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"])
    theirs = get_peft_model(load_plain(tiny_gpt2), config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "ia3" in name:
                parameter.mul_(1.5)
    theirs.save_pretrained(tmp_path)
    ours = load_adapter(load_base(tiny_gpt2, device=CPU), tmp_path).network
    assert torch.equal(logits_of(ours), logits_of(theirs))
    assert not torch.equal(logits_of(ours), logits_of(load_plain(tiny_gpt2)))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400"])
@pytest.mark.parametrize("key", ["lora_alpha", "lora_dropout"])
def test_number_that_is_not_finite_is_refused_with_its_key(
    key: str, text: str, tiny_gpt2: Path, tmp_path: Path
) -> None:
    attach(tiny_gpt2, lora("lora-1")).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(re.sub(rf'("{key}": )[0-9.]+', rf"\g<1>{text}", path.read_text()))
    assert re.search(rf"{key} is (nan|-?inf)", refusal_of(tiny_gpt2, tmp_path))


@pytest.mark.parametrize(
    "values",
    [
        {"r": "4"},
        {"r": 10**9},
        {"r": None},
        {"lora_alpha": None},
        {"lora_alpha": [8]},
        {"lora_alpha": 1e308},
        {"lora_alpha": 10**39},
        {"target_modules": "["},
        {"target_modules": 5},
        {"alora_invocation_tokens": [1, 2]},
        {"rank_pattern": 5},
        {"rank_pattern": {"c_attn": 10**12}},
        {"peft_type": "NOVA"},
        {"peft_type": ["LORA"]},
        {"task_type": 7},
        {"bias": "nope"},
        {"use_dora": "yes"},
        {"loftq_config": 3},
    ],
    ids=str,
)
def test_adapter_config_that_is_wrong_is_refused(
    values: dict[str, object], tiny_gpt2: Path, tmp_path: Path
) -> None:
    as_if_trained(attach(tiny_gpt2, lora("lora-1"))).save(tmp_path)
    edit_config(tmp_path, **values)
    assert refusal_of(tiny_gpt2, tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"peft_type": "LORA"', "\udcff", "[" * 5000])
def test_adapter_config_that_is_damaged_is_refused(
    text: str, tiny_gpt2: Path, tmp_path: Path
) -> None:
    attach(tiny_gpt2, lora("lora-1")).save(tmp_path)
    (tmp_path / "adapter_config.json").write_bytes(text.encode(errors="surrogateescape"))
    assert "not a PEFT configuration" in refusal_of(tiny_gpt2, tmp_path)


def test_pickled_adapter_is_never_opened(tiny_gpt2: Path, tmp_path: Path) -> None:
    attach(tiny_gpt2, lora("lora-1")).save(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    torch.save(load_file(path), tmp_path / "adapter_model.bin")
    load_adapter(load_base(tiny_gpt2, device=CPU), tmp_path)  # beside a safetensors file
    path.unlink()
    assert "only adapter_model.bin" in refusal_of(tiny_gpt2, tmp_path)


def test_library_message_is_shown_whole(tiny_gpt2: Path, tmp_path: Path) -> None:
    attach(tiny_gpt2, lora("lora-1")).save(tmp_path)
    edit_config(tmp_path, r=RANK - 1)
    said = refusal_of(tiny_gpt2, tmp_path)
    assert "size mismatch" in said and "[4, 32]" in said and "[3, 32]" in said
