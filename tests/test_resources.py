"""Costs of a run: what is measured, and what is predicted from shapes."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from lorastudy.config.models import Training
from lorastudy.machine.memory import (
    available_bytes,
    measure_peak_memory,
    start_memory_meter,
)
from lorastudy.model.base import BaseDescription
from lorastudy.study.predicted_peak import (
    LongestRow,
    PeakPrediction,
    TrainedShape,
    predict_peak,
)
from lorastudy.units import MIB
from support.scripts import load_script

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
GPT2 = BaseDescription(
    folder=Path(),
    model_type="gpt2",
    total_parameters=124_439_808,
    linear_parameters=84_934_656,
    embedding_parameters=39_383_808,
    vocabulary_size=50_257,
    max_positions=1024,
    hidden_size=768,
    n_layers=12,
    n_heads=12,
    n_key_heads=12,
    attention="sdpa",
    attention_dropout=0.1,
    linear_modules=(),
    body="transformer",
)
PAPER = Training(epochs=8, rows_per_step=70, micro_batch=14, implementation="reference")
FAST = PAPER.model_copy(update={"implementation": "fast"})


def predict(
    *,
    training: Training = PAPER,
    base: BaseDescription = GPT2,
    trained: int = 589_824,
    in_features: int = 12 * 768,
    dropout: float = 0.1,
    device: str = "cuda",
) -> PeakPrediction:
    shape = TrainedShape(
        n_parameters=trained,
        n_added=trained,
        adapted_in_features=in_features,
        kept_in_features=in_features,
        has_dropout=dropout > 0,
        base_weights="float32",
    )
    row = LongestRow(350, 350)
    return predict_peak(base, training, shape, row=row, device=torch.device(device))


def test_memory_of_the_process_is_measured_in_bytes() -> None:
    peak = measure_peak_memory(CPU)
    assert peak.keys() == {"resident"}
    assert 50 * MIB < peak["resident"] < 1024 * 1024 * MIB


def test_peak_grows_with_what_is_allocated() -> None:
    start_memory_meter(CPU)
    before = measure_peak_memory(CPU)["resident"]
    block = bytearray(before)  # more than the process has ever held
    block[::4096] = b"x" * len(block[::4096])
    assert measure_peak_memory(CPU)["resident"] >= before + len(block) // 2


def test_available_memory_is_less_than_the_machine_has() -> None:
    import psutil

    assert 0 < available_bytes(CPU) < psutil.virtual_memory().total


def test_logits_of_the_paper_are_939_mib_a_copy() -> None:
    assert 14 * 350 * 50_257 * 4 // MIB == 939
    assert predict().logits == 3 * 14 * 350 * 50_257 * 4


def test_dropout_of_the_adapter_keeps_five_bytes_of_every_input() -> None:
    # STUDY.md section 5: B x T x in_features x (4 + 1) bytes for every adapted matrix
    with_dropout, without = predict(), predict(dropout=0.0)
    assert with_dropout.activations - without.activations == 14 * 350 * 12 * 768 * 5


def test_steps_between_lora_arms_are_those_of_figure_3() -> None:
    # worked out on paper: 5 bytes of every input more, and 16 bytes of every trained parameter
    inputs = (768, 768 + 3_072, 768, 768 / 12)  # per layer; the output layer is there once
    trained = (589_824, 1_622_016, 2_359_296, 3_175_696)
    peaks = [
        predict(trained=n, in_features=round(12 * sum(inputs[: i + 1]))).total
        for i, n in enumerate(trained)
    ]
    steps = [(after - before) / MIB for before, after in pairwise(peaks)]
    assert steps == pytest.approx([1_092, 227, 30], abs=1)


def test_trained_parameter_costs_sixteen_bytes() -> None:
    more = predict(trained=589_824 + 1_000)
    assert more.total - predict().total == 16_000


def test_baseline_needs_no_gradients_and_keeps_no_activations() -> None:
    baseline = predict(trained=0, in_features=0)
    assert baseline.gradients == baseline.optimizer == 0
    assert baseline.weights == 4 * 124_439_808
    assert baseline.activations < predict().activations / 10
    assert baseline.logits < predict().logits


def test_activations_grow_with_micro_batch_and_depth() -> None:
    double = PAPER.model_copy(update={"micro_batch": 28})
    assert predict(training=double).activations == 2 * predict().activations
    deeper = predict(base=replace(GPT2, n_layers=24), dropout=0.0)
    assert deeper.activations == 2 * predict(dropout=0.0).activations


def test_attention_weights_are_kept_on_a_cpu_where_attention_has_dropout() -> None:
    fused = replace(GPT2, attention_dropout=0.0)
    kept = [predict(device="cpu", base=base).base_activations for base in (GPT2, fused)]
    more = kept[0] - kept[1]
    assert more == 3 * 4 * 14 * 350 * 350 * 12 * 12
    assert predict().total == predict(base=fused).total


def test_libraries_are_counted_where_the_process_is_measured() -> None:
    assert predict(device="cuda").libraries == 0
    assert predict(device="cpu").libraries > 0


def test_total_is_the_sum_of_its_parts() -> None:
    parts = [10**place for place in range(9)]
    assert PeakPrediction(*parts).total == 111_111_111


def test_fast_implementation_needs_a_fraction_of_the_reference() -> None:
    for device in ("cuda", "cpu"):
        fast, reference = predict(training=FAST, device=device), predict(device=device)
        assert fast.activations < 0.6 * reference.activations
        assert fast.logits < 0.1 * reference.logits


def test_logits_of_the_fast_implementation_do_not_grow_with_the_micro_batch() -> None:
    double = FAST.model_copy(update={"micro_batch": 28})
    assert predict(training=double).logits == predict(training=FAST).logits
    assert predict(training=double).activations == 2 * predict(training=FAST).activations


def test_token_budget_bounds_the_rows_computed_at_once() -> None:
    two_rows = FAST.model_copy(update={"micro_batch": 2})
    budget = FAST.model_copy(update={"token_budget": 2 * 350})
    assert predict(training=budget) == predict(training=two_rows)


def test_predicted_peaks_of_families_are_near_those_that_were_measured(
    tmp_path: Path,
) -> None:
    # committed: highest resident memory above that of the libraries, of random models
    path = ROOT / "benchmarks" / "prediction_2cores_202611" / "memory.py"
    script = load_script(path)
    for name, config in script.make_configs().items():
        config.save_pretrained(tmp_path / name)
    n_looked_at = 0
    for line in json.loads(script.STORED.read_text()):
        measured, cell = line.pop("bytes"), script.Cell(**line)
        if cell.length != script.LENGTHS[0] or cell.base_weights != "float32":
            continue
        peak = script.predict(tmp_path, cell)
        assert peak.total - peak.libraries == pytest.approx(measured, rel=0.15), cell
        n_looked_at += 1
    assert n_looked_at == 2 * 4 * 3
