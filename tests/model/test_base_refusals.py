"""What is scored is the base model as its folder names it, or nothing is."""

import json
import re
import shutil
from math import inf, nan
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from lorastudy.errors import InputError, OutOfMemoryError, reading_user_files
from lorastudy.model.base import check_weights, describe_base, load_base
from lorastudy.model.tokenizer import load_tokenizer
from support.families import save_family
from support.tiny_arms import CPU, FULL, attach, logits_of, lora


@pytest.fixture
def copy(tiny_gpt2: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_gpt2, tmp_path / "copy"))


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def add_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    path = folder / "model.safetensors"
    everything = {**load_file(path), **tensors}
    path.unlink()
    save_file(everything, path, metadata={"format": "pt"})


def refusal_of(folder: Path) -> str:
    """The message of whoever looks at the folder first: `check`, `run` or `evaluate`."""
    with pytest.raises(InputError) as refused:
        describe_base(folder)
        load_base(folder, device=CPU)
    assert str(folder) in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"]
)
def test_base_folder_that_holds_an_adapter_is_refused_by_the_file(
    name: str, copy: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    attach(tiny_gpt2, lora("lora-1")).save(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.bin").touch()
    shutil.copy(tmp_path / "adapter" / name, copy)
    assert str(copy / name) in refusal_of(copy)


EDITS: dict[str, dict[str, object]] = {
    "null": {"n_layer": None},
    "other width": {"n_embd": 64},
    "no heads": {"n_head": 0},
    "unknown activation": {"activation_function": "nope"},
    "architectures": {"architectures": [5]},
    "no layers": {"n_layer": 0},
    "negative": {"n_layer": -1},
    "too many layers": {"n_layer": 10**9},
    "too many positions": {"n_positions": 10**9},
    "text": {"n_embd": "32"},
    "list": {"vocab_size": [300]},
    "huge vocabulary": {"vocab_size": 10**15},
    "model type": {"model_type": None},
    "model type list": {"model_type": ["gpt2"]},
    "odd heads": {"n_head": 5},
    "too many labels": {"num_labels": 10**9},
    "too many of a kind": {"attention_types": [[["global"], 10**9]], "model_type": "gpt_neo"},
    "too long": {"n_positions": 10**9, "model_type": "gptj"},
    "too wide": {"head_dim": 10**9, "model_type": "llama"},
    "epsilon": {"layer_norm_epsilon": "small"},
    "not finite": {"layer_norm_epsilon": float("nan")},
    "not finite and not used": {"attn_pdrop": float("nan")},
    "infinite": {"layer_norm_epsilon": float("inf")},
    "not finite inside": {"task_specific_params": {"a": [{"b": float("-inf")}]}},
    "text part": {"text_config": {}},
    "text part by name": {"text_config": "gpt2"},
    "decoder": {"decoder": {"n_layer": 2}},
    "other weights": {"transformers_weights": "other.safetensors"},
    "own code": {"auto_map": {"AutoConfig": "x.Y"}, "model_type": "nova"},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_config_that_is_wrong_is_refused(edit: dict[str, object], copy: Path) -> None:
    edit_config(copy, **edit)
    assert refusal_of(copy)


def test_config_may_name_the_weights_that_are_read_and_no_others(copy: Path) -> None:
    single, index = "model.safetensors", "model.safetensors.index.json"
    of_shards = {"metadata": {}, "weight_map": dict.fromkeys(load_file(copy / single), single)}
    (copy / index).write_text(json.dumps(of_shards))
    config = json.loads((copy / "config.json").read_text())
    for named in (single, index):
        (copy / "config.json").write_text(json.dumps({**config, "transformers_weights": named}))
        if named == single:
            describe_base(copy)
        else:
            with pytest.raises(InputError, match="transformers_weights names"):
                describe_base(copy)


def test_config_that_could_not_be_written_after_training_is_refused_before_it(copy: Path) -> None:
    check_weights(copy)
    edit_config(copy, output_attentions=True)
    load_base(copy, device=CPU)
    with pytest.raises(InputError, match=r"config.json: .*not write it .*output_attentions"):
        check_weights(copy)


def test_a_limit_of_time_steps_alone_may_be_infinite(copy: Path) -> None:
    """As configurations of Mamba 2 have it: from the least step to no end."""
    edit_config(copy, time_step_limit=[0.0, inf])
    assert describe_base(copy).n_layers == 2
    edit_config(copy, time_step_limit=[-inf, nan])
    assert "time_step_limit" in refusal_of(copy)
    edit_config(copy, time_step_limit=[0.0, inf], time_step_floor=inf)
    assert "time_step_floor" in refusal_of(copy)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "\udcff\udcfe", "[" * 5000, "7"])
def test_config_that_is_damaged_is_refused(text: str, copy: Path) -> None:
    (copy / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    assert "config.json" in refusal_of(copy)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "\udcff\udcfe", "[" * 5000, '{"model": 5}']
)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_tokenizer_file_that_is_damaged_is_refused(name: str, text: str, copy: Path) -> None:
    (copy / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as refused:
        load_tokenizer(copy)
    assert str(copy) in str(refused.value)


def test_family_without_sdpa_is_run_with_eager_attention(tmp_path: Path) -> None:
    for family in ("gemma2", "gpt_neo", "bloom"):
        folder = save_family(family, tmp_path / family)
        assert describe_base(folder).attention == "eager"
        plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        assert torch.equal(logits_of(load_base(folder, device=CPU)), logits_of(plain))


def test_family_without_attention_is_described_and_run(tmp_path: Path) -> None:
    folder = save_family("mamba", tmp_path)
    described = describe_base(folder)
    assert described.n_heads == 0
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert torch.equal(logits_of(load_base(folder, device=CPU)), logits_of(plain))


@pytest.mark.parametrize(
    ("family", "scale"), [("bert", 1.0), ("xlnet", 1.0), ("xlnet", 0.1), ("roberta", 1.0)]
)
def test_model_that_reads_ahead_is_refused(family: str, scale: float, tmp_path: Path) -> None:
    narrow = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "d_inner": 32}
    named = {"d_model": 32, "n_layer": 2, "n_head": 2} if family == "xlnet" else {}
    save_family(family, tmp_path, intermediate_size=32, pad_token_id=1, **{**narrow, **named})
    edit_config(tmp_path, architectures=["AnyForCausalLM"])
    weights = load_file(tmp_path / "model.safetensors")
    add_tensors(tmp_path, {name: scale * weight for name, weight in weights.items()})
    assert "depends on the tokens after it" in refusal_of(tmp_path)


@pytest.mark.parametrize(
    "rope",
    [{"rope_theta": 0.0}, {"rope_theta": -5.0}, {"rope_type": "linear", "factor": 0}],
    ids=str,
)
def test_frequencies_that_are_not_finite_are_refused(rope: dict, tmp_path: Path) -> None:
    save_family("llama", tmp_path)
    edit_config(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, **rope})
    assert "not finite" in refusal_of(tmp_path)


def causal_mask(size: int, window: int | None = None) -> Tensor:
    seen = torch.ones(1, 1, size, size, dtype=torch.bool).tril()
    return seen if window is None else seen & ~seen.tril(-window)


def frequencies(base: float) -> Tensor:
    return 1.0 / base ** (torch.arange(0, 8, 2) / 8)


@pytest.mark.parametrize(
    ("family", "buffers"),
    [
        ("gpt_neo", {"transformer.h.0.attn.attention.bias": causal_mask(64)}),
        ("gpt_neo", {"transformer.h.1.attn.attention.bias": causal_mask(64, 8).byte()}),
        ("gpt_neo", {"transformer.h.0.attn.attention.masked_bias": torch.tensor(-1e9)}),
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": frequencies(10_000.0)}),
        ("llama", {"model.layers.1.self_attn.rotary_emb.inv_freq": frequencies(10_000.0).half()}),
        (
            "llama",
            {
                "model.layers.0.self_attn.rotary_emb.cos_cached": torch.outer(
                    torch.arange(64.0), frequencies(10_000.0)
                ).repeat(1, 2).cos()[None, None]
            },
        ),
        ("qwen2", {"model.position_ids": torch.arange(64)[None]}),
    ],
)  # fmt: skip
def test_buffer_that_older_versions_saved_is_no_foreign_weight(
    family: str, buffers: dict[str, Tensor], tmp_path: Path
) -> None:
    before = logits_of(load_base(save_family(family, tmp_path), device=CPU))
    add_tensors(tmp_path, buffers)
    check_weights(tmp_path)
    assert torch.equal(logits_of(load_base(tmp_path, device=CPU)), before)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", frequencies(500_000.0)),
        ("model.layers.0.self_attn.bias", causal_mask(64).transpose(2, 3).roll(1)),
        ("model.layers.0.self_attn.bias", torch.randn(1, 1, 8, 8)),
        ("model.layers.0.self_attn.rotary_emb.cos_cached", torch.ones(1, 1, 64, 8)),
        ("model.position_ids", torch.arange(64).flip(0)[None]),
    ],
)
def test_buffer_of_another_value_is_a_foreign_weight(
    name: str, tensor: Tensor, tmp_path: Path
) -> None:
    save_family("llama", tmp_path)
    add_tensors(tmp_path, {name: tensor.contiguous()})
    for read in (check_weights, lambda folder: load_base(folder, device=CPU)):
        with pytest.raises(InputError, match=re.escape(name)):
            read(tmp_path)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "gemma3"])
@pytest.mark.parametrize("is_equal", [True, False])
def test_head_is_counted_as_it_is_trained(family: str, is_equal: bool, tmp_path: Path) -> None:
    save_family(family, tmp_path, tie_word_embeddings=True)
    tensors = load_file(tmp_path / "model.safetensors")
    (embedding,) = (t for n, t in tensors.items() if n.endswith(("wte.weight", "tokens.weight")))
    head = "language_model.lm_head.weight" if family == "gemma3" else "lm_head.weight"
    add_tensors(tmp_path, {head: embedding.clone() + (not is_equal)})
    described = describe_base(tmp_path)
    trained = sum(p.numel() for p in attach(tmp_path, FULL).trained_tensors().values())
    assert described.total_parameters == trained
    output = next(module for module in described.linear_modules if module.path == "lm_head")
    assert (output.tied_to is not None) == is_equal
    other = {"lm_head.weight": embedding + 7}  # of a file that transformers does not read
    save_file(other, tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert describe_base(tmp_path).total_parameters == trained


def test_other_parts_of_a_composite_model_are_checked_before_they_are_written_again(
    tmp_path: Path,
) -> None:
    folder = save_family("mistral3", tmp_path)
    (name, *_) = sorted(n for n in load_file(folder / "model.safetensors") if "vision" in n)
    add_tensors(folder, {name: torch.full_like(load_file(folder / "model.safetensors")[name], nan)})
    with pytest.raises(InputError, match=r"vision_tower.* holds numbers that are not finite"):
        check_weights(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weight_that_is_not_finite_is_named(
    value: float, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy / "model.safetensors"
    tensors = load_file(path)
    tensors["transformer.h.1.ln_1.bias"][3] = value
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    assert "transformer.h.1.ln_1.bias holds numbers that are not finite" in refusal_of(copy)
    monkeypatch.setattr("lorastudy.model.base._TRIED_OUT_BYTES", 0)  # as if it were a large model
    with pytest.raises(InputError, match=r"transformer\.h\.1\.ln_1\.bias holds numbers"):
        check_weights(copy)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (MemoryError(), OutOfMemoryError),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            OutOfMemoryError,
        ),
        (RecursionError("maximum recursion depth exceeded"), InputError),
        (type("PanicException", (BaseException,), {})("index out of bounds"), InputError),
        (ZeroDivisionError("division by zero"), InputError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_whatever_a_library_raises_becomes_an_error_for_people(
    raised: BaseException, expected: type[Exception]
) -> None:
    with pytest.raises(expected, match="file x"), reading_user_files("file x is bad", "Mend it."):
        raise raised


def test_interruption_passes_the_boundary() -> None:
    with pytest.raises(KeyboardInterrupt), reading_user_files("file x is bad", "Mend it."):
        raise KeyboardInterrupt
