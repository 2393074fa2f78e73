"""Frozen weights in 16, 8 and 4 bits: one function with a float32 model of the same numbers.

Tests of packed formats need bitsandbytes and are skipped without it.
"""

import ctypes
import re
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorastudy.config.models import Arm
from lorastudy.data.rows import RowTable
from lorastudy.errors import ConfigError
from lorastudy.model import packing, stored_weights
from lorastudy.model.adapters import ArmModel, attach_arm
from lorastudy.model.base import count_parameters, describe_base, load_base
from lorastudy.model.base_weights import (
    HeldEmbedding,
    copy_numbers,
    refuse_base_weights,
    refuse_optimizer,
)
from lorastudy.model.fast import products
from lorastudy.model.fast.held import count_elements, cut_rows, is_packed, widen
from lorastudy.model.fast.products import multiply, multiply_back
from lorastudy.model.scoring import make_scorer
from lorastudy.model.stored_weights import _list_tensors, _names_of_turned
from support.families import save_family
from support.gradients import (
    LAYOUTS,
    Gradients,
    assert_equal_gradients,
    batch_of,
    gradients_of,
    without_dropout,
)
from support.tiny_arms import BASELINE, CPU, FULL, RANK, adapted, as_if_trained, lora, place

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="the extra `quantized` is not installed"
)
PACKED = [pytest.param(name, marks=needs_bitsandbytes) for name in ("int8", "nf4", "nf4-double")]
FORMATS = ["bfloat16", *PACKED]


@pytest.fixture(params=LAYOUTS)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def held_base(folder: Path, base_weights: str) -> PreTrainedModel:
    return load_base(folder, device=CPU, base_weights=base_weights)


def same_numbers(folder: Path, held: PreTrainedModel) -> PreTrainedModel:
    """The float32 model whose weights are the numbers that `held` stands for."""
    plain = load_base(folder, device=CPU)
    copy_numbers(held, plain)
    return plain


def arm_on(network: PreTrainedModel, folder: Path, arm: Arm) -> ArmModel:
    model = attach_arm(network, arm, place(folder, arm), seed=0)
    return without_dropout(as_if_trained(model))


@pytest.mark.parametrize(
    ("implementation", "precision"),
    [("fast", "float32"), ("fast", "bfloat16"), ("reference", "float32")],
)
@pytest.mark.parametrize("base_weights", FORMATS)
def test_a_held_base_trains_as_the_float32_model_of_its_numbers(
    folder: Path,
    base_weights: str,
    implementation: str,
    precision: str,
    corpus: tuple[np.ndarray, RowTable],
) -> None:
    held = held_base(folder, base_weights)

    def train(network: PreTrainedModel, how: str) -> tuple[float, Gradients]:
        model = arm_on(network, folder, lora("lora-4"))
        nats = make_scorer(model.network, precision, implementation=how).sum_nats(batch_of(corpus))
        return float(nats.detach()), gradients_of(model, nats)

    expected_nats, expected = train(same_numbers(folder, held), implementation)
    nats, got = train(held, implementation)
    is_exact = precision == "float32"
    assert nats == pytest.approx(expected_nats, rel=1e-6 if is_exact else 2e-3)
    assert_equal_gradients(got, expected, 1e-5 if is_exact else 5e-2)


@pytest.mark.parametrize("implementation", ["fast", "reference"])
def test_trained_weights_in_bfloat16_have_the_gradients_of_the_float32_model_of_their_numbers(
    folder: Path,
    implementation: str,
    corpus: tuple[np.ndarray, RowTable],
) -> None:
    batch = batch_of(corpus)
    held = held_base(folder, "bfloat16")
    found: list[Gradients] = []
    for network in (same_numbers(folder, held), held):
        model = without_dropout(attach_arm(network, FULL, place(folder, FULL), seed=0))
        scorer = make_scorer(model.network, "float32", implementation=implementation)
        for _ in range(2):  # as micro-batches, whose gradients are added
            found.append(gradients_of(model, scorer.sum_nats(batch)))
    assert_equal_gradients(found[-1], found[1])
    assert {gradient.dtype for gradient in found[-1].values()} == {torch.float32}


@pytest.mark.parametrize("arm", [BASELINE, lora("lora-1")], ids=lambda arm: arm.name)
@pytest.mark.parametrize("base_weights", FORMATS)
def test_held_modules_without_an_adapter_are_packed_and_computed_in_bfloat16(
    folder: Path,
    base_weights: str,
    arm: Arm,
    corpus: tuple[np.ndarray, RowTable],
) -> None:
    batch = batch_of(corpus)
    held = held_base(folder, base_weights)
    plain = same_numbers(folder, held)
    scorers = [make_scorer(arm_on(n, folder, arm).network, "bfloat16") for n in (held, plain)]
    assert all(scorer.packs for scorer in scorers)
    with torch.no_grad():
        nats, expected = (float(scorer.score(batch).sum()) for scorer in scorers)
    assert nats == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("implementation", ["fast", "reference"])
@pytest.mark.parametrize("base_weights", FORMATS)
def test_autograd_keeps_no_wide_copy_of_a_held_weight(
    base_weights: str, implementation: str, tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable]
) -> None:
    model = arm_on(held_base(tiny_gpt2, base_weights), tiny_gpt2, lora("lora-2"))
    scorer = make_scorer(model.network, "float32", implementation=implementation)
    shapes = {(t.out_features, t.in_features) for t in describe_base(tiny_gpt2).linear_modules}
    shapes |= {shape[::-1] for shape in shapes}
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        scorer.sum_nats(batch_of(corpus))
    held = [t for t in kept if t.dtype == torch.bfloat16 and tuple(t.shape) in shapes]
    assert held or base_weights != "bfloat16"
    assert not [t.shape for t in kept if t.dtype == torch.float32 and tuple(t.shape) in shapes]


def test_bfloat16_halves_the_bytes_of_weights_and_rounds_nothing_else(folder: Path) -> None:
    described = describe_base(folder)
    whole, held = load_base(folder, device=CPU), held_base(folder, "bfloat16")
    matrices = described.linear_parameters + described.embedding_parameters
    others = described.total_parameters - matrices
    assert sum(p.untyped_storage().nbytes() for p in held.parameters()) == 2 * matrices + 4 * others
    for name, parameter in whole.named_parameters():
        rounded = parameter.bfloat16() if parameter.ndim > 1 else parameter
        assert torch.equal(held.get_parameter(name), rounded), name


@pytest.mark.parametrize("base_weights", PACKED)
def test_packed_weights_are_counted_as_what_they_stand_for(folder: Path, base_weights: str) -> None:
    held = held_base(folder, base_weights)
    assert count_parameters(held) == describe_base(folder).total_parameters
    packed = [p for p in held.parameters() if is_packed(p)]
    assert sum(map(count_elements, packed)) == describe_base(folder).linear_parameters
    n_bytes = sum(p.nbytes for p in packed)
    factor = 1 if base_weights == "int8" else 2
    assert n_bytes * factor == describe_base(folder).linear_parameters


@needs_bitsandbytes
@pytest.mark.parametrize("is_double", [False, True])
def test_a_weight_that_is_packed_part_by_part_has_the_same_bits(
    is_double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitsandbytes import functional

    weight = torch.randn(97, 51)  # its last block of 64 numbers is not full
    how = {"quant_type": "nf4", "compress_statistics": is_double, "blocksize": 64}

    def pack() -> list[Tensor]:
        packed, state = functional.quantize_4bit(weight, **how)
        others = [state.offset, state.state2.absmax] if is_double else []
        in_8_bits, scales, _ = functional.int8_vectorwise_quant(weight.half())
        wide = functional.dequantize_4bit(packed, state)
        return [packed, state.absmax, wide, in_8_bits, scales, *others]

    monkeypatch.setattr(packing, "_PART", 1 << 10)
    whole = pack()
    with packing.packing_by_parts():
        by_parts = pack()
    for one, other in zip(whole, by_parts, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("base_weights", PACKED)
def test_packed_weights_stand_for_the_stored_numbers_up_to_quantisation(
    folder: Path, base_weights: str
) -> None:
    held = held_base(folder, base_weights)
    stored, numbers = load_base(folder, device=CPU), same_numbers(folder, held)
    packed = [name for name, parameter in held.named_parameters() if is_packed(parameter)]
    assert len(packed) == len(describe_base(folder).linear_modules) - 1  # the output layer is not
    for name in packed:
        exact, found = (network.get_parameter(name).detach() for network in (stored, numbers))
        error = float((found - exact).norm() / exact.norm())
        assert 0 < error < (0.008 if base_weights == "int8" else 0.12), name


@pytest.mark.parametrize("base_weights", PACKED)
def test_loftq_begins_as_the_best_correction_of_what_packing_lost(
    folder: Path, base_weights: str
) -> None:
    keys = {"init_lora_weights": "loftq", "base_weights": base_weights, "dropout": 0.0}
    arm = lora("lora-3").model_copy(update=keys)
    held, stored = held_base(folder, base_weights), load_base(folder, device=CPU)
    model = attach_arm(held, arm, place(folder, arm), seed=0)
    for path in adapted(model):
        module, exact = model.network.get_submodule(path), stored.get_submodule(path)
        a, b = (factors["default"].weight for factors in (module.lora_A, module.lora_B))
        wide = exact.weight.t() if isinstance(exact, Conv1D) else exact.weight
        lost = (wide - widen(module.get_base_layer().weight, torch.float32)).detach()
        left = lost - arm.alpha_at(RANK) / RANK * (b @ a).detach()
        least = torch.linalg.svdvals(lost)[RANK:].norm()
        assert float(left.norm()) == pytest.approx(float(least), rel=1e-4)


@pytest.mark.parametrize("is_turned", [False, True])
def test_large_weights_are_widened_part_by_part(
    is_turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "WIDENED", 30)
    weight = (torch.randn(12, 10).t() if is_turned else torch.randn(10, 12)).bfloat16()
    x, dy, bias = torch.randn(7, 12), torch.randn(7, 10), torch.randn(10)
    assert torch.allclose(
        multiply(x, weight, bias), nn.functional.linear(x, weight.float(), bias), atol=1e-5
    )
    assert torch.allclose(multiply_back(dy, weight), dy @ weight.float(), atol=1e-5)


@pytest.mark.parametrize("base_weights", PACKED)
def test_packed_weights_are_widened_part_by_part(
    base_weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 96 inputs: two rows are three blocks, and nf4-double packs the scales in blocks as well
    held = held_base(save_family("gpt2", tmp_path, n_embd=96), base_weights)
    monkeypatch.setattr(products, "WIDENED", 1_000)
    for weight in filter(is_packed, held.parameters()):
        whole = widen(weight, torch.float32)
        parts = [widen(weight, torch.float32, rows) for rows in cut_rows(weight, 100)]
        assert len(parts) > 1 and torch.equal(torch.cat(parts), whole)
        x, dy = torch.randn(7, whole.shape[1]), torch.randn(7, len(whole))
        assert torch.allclose(multiply(x, weight), x @ whole.t(), atol=1e-4)
        assert torch.allclose(multiply_back(dy, weight), dy @ whole, atol=1e-4)


# one scales its embedding, one has a linear module of its own, and three have experts
@pytest.mark.parametrize("family", ["gemma3_text", "opt", "falcon", "gpt_oss", "mixtral", "llama4"])
def test_other_families_compute_in_float32_from_half_the_bytes(family: str, tmp_path: Path) -> None:
    folder = save_family(family, tmp_path)
    held = held_base(folder, "bfloat16")
    same = same_numbers(folder, held)
    sizes = [sum(p.nbytes for p in network.parameters()) for network in (held, same)]
    assert sizes[0] < 0.56 * sizes[1]  # norms and OPT's positions stay as they are
    assert any(isinstance(module, HeldEmbedding) for module in held.modules())
    ids = torch.arange(40, 80).reshape(2, 20)
    found: list[Gradients] = []
    kept: list[Tensor] = []
    for network in (same, held):
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.ndim == 1)  # norms and biases, never held
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            logits = network(input_ids=ids).logits
        assert logits.dtype == torch.float32
        logits.square().mean().backward()
        grads = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        found.append(grads | {"logits": logits.detach()})
    assert_equal_gradients(found[1], found[0], 1e-5)
    sides = [sorted(p.shape[-2:]) for p in held.parameters() if p.dtype == torch.bfloat16]
    wide = [t for t in kept if t.dtype == torch.float32]
    assert not [t.shape for t in wide if sorted(t.shape[-2:]) in sides]  # products keep them turned


def test_trained_experts_in_bfloat16_have_gradients_in_float32(tmp_path: Path) -> None:
    held = held_base(save_family("gpt_oss", tmp_path), "bfloat16")
    found: list[Gradients] = []
    for network in (same_numbers(tmp_path, held), held):
        model = attach_arm(network, FULL, place(tmp_path, FULL), seed=0)
        found.append(gradients_of(model, model.network(torch.arange(40)[None]).logits.sum()))
    assert_equal_gradients(found[1], found[0], 1e-5)
    assert {gradient.dtype for gradient in found[1].values()} == {torch.float32}


@pytest.mark.parametrize("base_weights", PACKED)
def test_linear_modules_of_a_familys_own_class_are_packed(
    base_weights: str, tmp_path: Path
) -> None:
    held = held_base(save_family("falcon", tmp_path), base_weights)
    numbers = [count_elements(weight) for weight in held.parameters() if is_packed(weight)]
    assert sum(numbers) == describe_base(tmp_path).linear_parameters


@pytest.mark.skipif(sys.platform != "linux", reason="measured by /proc and glibc")
@pytest.mark.parametrize("base_weights", ["bfloat16", PACKED[-1]])
def test_no_more_than_the_held_weights_is_resident_while_they_are_read(
    base_weights: str, tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A float32 file held in fewer bits, by a model that is small beside the usual parts."""
    folder = save_family("gpt2", tmp_path, n_embd=768, vocab_size=50_000)
    monkeypatch.setattr(packing, "_PART", 1 << 16)
    monkeypatch.setattr(stored_weights, "_PART", 1 << 16)
    held_base(tiny_gpt2, base_weights)  # whatever is imported and set up once
    ctypes.CDLL(None).malloc_trim(0)  # memory that is free here would hide what is taken
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    network = held_base(folder, base_weights)
    held, peak = resident("VmRSS") - before, resident("VmHWM") - before
    n_bytes = sum(parameter.nbytes for parameter in network.parameters())
    # memory that earlier tests left free takes a part of what is held, so it is seen as less
    assert 0.5 * n_bytes < held < 1.2 * n_bytes and peak - held < 0.2 * n_bytes


@pytest.mark.parametrize("is_turned", [False, True])
def test_a_weight_is_read_in_the_layout_in_which_it_is_packed(
    is_turned: bool, tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_weights, "_PART", 100)
    weight = torch.randn(31, 17)
    save_file({"first": torch.ones(3), "w": weight}, tmp_path / "w.safetensors")
    (stored,) = (t for t in _list_tensors(tmp_path / "w.safetensors", []) if t.name == "w")
    read = replace(stored, is_turned=is_turned).to("cpu", torch.bfloat16)
    assert torch.equal(read, weight.bfloat16())
    assert (read.t() if is_turned else read).is_contiguous()
    network = load_base(tiny_gpt2, device=CPU)
    assert not _names_of_turned(network)
    network.transformer.h[1].mlp.c_fc.source_cls = Conv1D  # as transformers marks what it replaced
    name = "h.1.mlp.c_fc.weight"
    assert _names_of_turned(network) == {name, f"transformer.{name}"}


def resident(kind: str) -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{kind}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def test_weights_in_bfloat16_files_are_the_same_numbers_in_every_wide_format(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    AutoModelForCausalLM.from_pretrained(tiny_gpt2, dtype=torch.bfloat16).save_pretrained(tmp_path)
    wide, held = load_base(tmp_path, device=CPU), held_base(tmp_path, "bfloat16")
    for name, parameter in wide.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(held.get_parameter(name).float(), parameter), name


def test_packed_formats_without_bitsandbytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorastudy.model.base_weights.find_spec", lambda name: None)
    refuse_base_weights("bfloat16")
    with pytest.raises(ConfigError, match=r"nf4 needs bitsandbytes.*lorastudy\[quantized\]"):
        refuse_base_weights("nf4")
    with pytest.raises(ConfigError, match=r"adamw-8bit needs bitsandbytes.*or use adamw\."):
        refuse_optimizer("adamw-8bit")
