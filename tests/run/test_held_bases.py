"""Runs on a base that is held in 16 or 4 bits: what they record, and that they resume exactly."""

import json
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lorastudy import faults
from lorastudy.config.spec import expand_study
from lorastudy.errors import ConfigError, InputError, InterruptedRunError
from lorastudy.interrupts import StopFlag
from lorastudy.run.commit import MOMENTS, WEIGHTS
from lorastudy.run.export import export_run
from lorastudy.store.checkpoints import list_checkpoints
from lorastudy.store.files import read_record
from lorastudy.store.folders import RunFolder
from lorastudy.store.places import Places
from lorastudy.store.records import Manifest
from lorastudy.study.check import check_study
from support.families import save_family
from support.tiny_runs import (
    ARMS,
    CPU,
    SOUND,
    Case,
    best_tensors,
    make_study,
    stop_at,
    write_texts,
)


def case_on(base_weights: str, folder: Path, tmp_path: Path, start: str | bool = True) -> Case:
    if base_weights.startswith(("int8", "nf4")) and find_spec("bitsandbytes") is None:
        pytest.skip("the extra `quantized` is not installed")
    arm = {**ARMS["lora"], "base_weights": base_weights, "init_lora_weights": start}
    study = make_study(folder, SOUND, arms=(arm,))
    return Case(study, write_texts(tmp_path / "texts"), tmp_path / "cache")


@pytest.mark.parametrize(("base_weights", "start"), [("bfloat16", True), ("nf4-double", "loftq")])
def test_a_run_on_a_held_base_resumes_exactly_and_says_what_it_held(
    base_weights: str,
    start: str | bool,
    tiny_gpt2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = case_on(base_weights, tiny_gpt2, tmp_path, start)
    straight, resumed = (case.folder(tmp_path, name) for name in ("straight", "resumed"))
    result = case.execute(straight)
    stop = StopFlag()
    handler = stop_at("run:after-epoch-line", 0)
    monkeypatch.setattr(faults, "handler", lambda point: handler(point, stop))
    with pytest.raises(InterruptedRunError):
        case.execute(resumed, stop)
    monkeypatch.setattr(faults, "handler", None)
    assert case.execute(resumed).evaluations[0].sum_nats == result.evaluations[0].sum_nats
    first, second = (
        load_file(folder.best / "adapter_model.safetensors") for folder in (straight, resumed)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses = [epoch.validation_loss for epoch in result.epochs]
    assert losses[-1] < losses[0], "an evaluation in between cut the gradients off"
    assert result.served == case.execute(straight).served
    forms = ["bfloat16"] if base_weights == "bfloat16" else ["bfloat16", base_weights]
    n_scores = len(result.evaluations)
    assert [s.merged for s in result.served] == [f for f in forms for _ in range(n_scores)]
    own = result.evaluations[0].cross_entropy
    costs = [abs(s.evaluation.cross_entropy - own) for s in result.served[::n_scores]]
    assert 0 < costs[0] < 0.02  # rounded to 16 bits
    assert costs[-1] == costs[0] or costs[-1] > 3 * costs[0]  # packed again
    exported = export_run(
        case.spec, straight, case.reader, tmp_path / "merged", is_merged=True, card=""
    )
    assert list(exported.costs) == forms
    assert abs(exported.reloaded.cross_entropy_difference) < 1e-4
    manifest = read_manifest(straight)
    assert manifest.base_weights == base_weights
    assert manifest.total_parameters == result.total_parameters
    assert ("bitsandbytes" in manifest.environment.libraries) is base_weights.startswith("nf4")


def read_manifest(folder: RunFolder) -> Manifest:
    return read_record(folder.manifest, Manifest)


def test_the_default_is_written_nowhere(tiny_gpt2: Path) -> None:
    plain = make_study(tiny_gpt2)
    said = make_study(tiny_gpt2, arms=({**ARMS["lora"], "base_weights": "float32"},))
    other = make_study(tiny_gpt2, arms=({**ARMS["lora"], "base_weights": "bfloat16"},))
    ids = [expand_study(study)[0].run_id for study in (plain, said, other)]
    assert ids[0] == ids[1] != ids[2]
    assert "base_weights" not in json.dumps(said.model_dump(mode="json"))


def test_predicted_peak_follows_the_bytes_of_the_base(tiny_gpt2: Path, tmp_path: Path) -> None:
    arms = tuple(
        {**ARMS[arm], "name": f"{arm}-{held}", "base_weights": held}
        for arm in ("lora", "baseline")
        for held in ("float32", "bfloat16")
    )
    rounded = {**ARMS["full"], "name": "rounded", "trained_weights": "bfloat16-stochastic"}
    texts = write_texts(tmp_path / "texts")
    study = make_study(tiny_gpt2, arms=(*arms, ARMS["full"], rounded))
    checked = check_study(study, Places(texts, offline=True, cache=tmp_path / "cache"), CPU)
    base = checked.reader.base
    saved = 2 * (base.linear_parameters + base.embedding_parameters)
    lora, held_lora, baseline, held_baseline, full, rounded_full = (
        arm.peak.weights for arm in checked.arms
    )
    assert lora - held_lora == baseline - held_baseline == full - rounded_full == saved
    assert baseline == 4 * base.total_parameters


@pytest.mark.parametrize("base_weights", ["bfloat16", "nf4"])
def test_full_fine_tuning_of_held_weights_is_refused_with_what_to_do(
    base_weights: str, tiny_gpt2: Path
) -> None:
    arm = {**ARMS["full"], "base_weights": base_weights}
    with pytest.raises(ValueError, match=r"not trained.*Leave the key out;.*trained_weights: bf"):
        make_study(tiny_gpt2, arms=(arm,))


def test_weights_are_not_rounded_by_an_optimizer_that_takes_the_nearest(tiny_gpt2: Path) -> None:
    arm = {**ARMS["full"], "trained_weights": "bfloat16-stochastic"}
    training = {**SOUND, "optimizer": {"name": "adamw-8bit"}}
    with pytest.raises(ValueError, match=r"arms\.0\.trained_weights.*optimizer\.name: adamw"):
        make_study(tiny_gpt2, training, arms=(arm,))


def arm_of_peft(kind: str, base_weights: str, **keys: object) -> dict[str, object]:
    return {
        **{"name": kind.lower(), "method": "peft", "peft": {"peft_type": kind, "r": 2, **keys}},
        **{"placement": ("attention",), "base_weights": base_weights, "learning_rates": (1e-3,)},
    }


@pytest.mark.filterwarnings("ignore:Sparse invariant")  # of torch, inside SHiRA
@pytest.mark.parametrize(
    ("kind", "base_weights", "says"),
    [
        ("LOHA", "nf4", r"LOHA cannot be an arm.*nf4 \(it can be bfloat16\)"),
        ("SHIRA", "bfloat16", "SHIRA does not compute from base_weights: bfloat16"),
    ],
)
def test_a_method_without_a_form_for_held_weights_is_refused_before_training(
    kind: str, base_weights: str, says: str, tiny_llama: Path, tmp_path: Path
) -> None:
    if base_weights == "nf4" and find_spec("bitsandbytes") is None:
        pytest.skip("the extra `quantized` is not installed")
    texts = write_texts(tmp_path / "texts")
    study = make_study(tiny_llama, SOUND, arms=(arm_of_peft(kind, base_weights),))
    with pytest.raises(ConfigError, match=says):
        Case(study, texts, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["TRAINABLE_TOKENS", "LORA"])
def test_an_embedding_in_16_bits_is_adapted_only_where_the_model_stays_in_float32(
    kind: str, tmp_path: Path
) -> None:
    folder = save_family("llama", tmp_path / "base", tie_word_embeddings=False)
    own = {"token_indices": [65]} if kind == "TRAINABLE_TOKENS" else {"r": 2}
    keys = {"peft": {"peft_type": kind, **own}, "placement": ("model.embed_tokens",)}
    study = make_study(folder, SOUND, arms=({**arm_of_peft(kind, "bfloat16"), **keys},))
    refused = pytest.raises(ConfigError, match="does not compute float32 from an embedding")
    with refused if kind == "TRAINABLE_TOKENS" else nullcontext():
        Case(study, write_texts(tmp_path / "texts"), tmp_path / "cache")


def test_a_family_that_does_not_compute_from_held_weights_is_refused_before_training(
    tmp_path: Path,
) -> None:
    arm = {"name": "base", "method": "baseline", "base_weights": "bfloat16"}
    study = make_study(save_family("mamba", tmp_path / "base"), SOUND, arms=(arm,))
    with pytest.raises(InputError, match=r"run with base_weights: bfloat16 .*Leave base_weights"):
        Case(study, write_texts(tmp_path / "texts"), tmp_path / "cache")


@pytest.mark.parametrize("keys", [{"peft_type": "BEFT"}, {"peft_type": "LORA", "lora_bias": True}])
def test_a_method_that_peft_cannot_merge_has_no_merged_scores(
    keys: dict[str, object], tiny_llama: Path, tmp_path: Path
) -> None:
    arm = {**arm_of_peft("BEFT", "bfloat16"), "peft": keys}
    study = make_study(tiny_llama, {**SOUND, "epochs": 1}, arms=(arm,))
    case = Case(study, write_texts(tmp_path / "texts"), tmp_path / "cache")
    result = case.execute(case.folder(tmp_path, "run"))
    assert result.evaluations and result.served == ()


def test_a_start_that_changes_held_weights_is_refused(tiny_gpt2: Path) -> None:
    arm = {**ARMS["lora"], "base_weights": "bfloat16", "init_lora_weights": "pissa"}
    said = "pissa may change base weights, which are held as they are"
    with pytest.raises(ValueError, match=said):
        make_study(tiny_gpt2, arms=(arm,))


def run_twice(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunFolder, ...]:
    """One run straight on, and one that was stopped after its first epoch."""
    straight, resumed = (case.folder(tmp_path, name) for name in ("straight", "resumed"))
    losses = [epoch.validation_loss for epoch in case.execute(straight).epochs]
    assert losses[-1] < losses[0]
    stop = StopFlag()
    handler = stop_at("run:after-epoch-line", 0)
    monkeypatch.setattr(faults, "handler", lambda point: handler(point, stop))
    with pytest.raises(InterruptedRunError):
        case.execute(resumed, stop)
    monkeypatch.setattr(faults, "handler", None)
    case.execute(resumed)
    one, other = (best_tensors(folder) for folder in (straight, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    return straight, resumed


def test_moments_in_8_bits_resume_exactly(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("bitsandbytes") is None:
        pytest.skip("the extra `quantized` is not installed")
    training = {**SOUND, "epochs": 2, "optimizer": {"name": "adamw-8bit"}}
    study = make_study(tiny_gpt2, training, "full", benchmarks=())
    case = Case(study, write_texts(tmp_path / "texts"), tmp_path / "cache")
    straight, resumed = run_twice(case, tmp_path, monkeypatch)
    assert "bitsandbytes" in read_manifest(straight).environment.libraries
    newest = list_checkpoints(resumed.checkpoints)[-1]
    kinds = {str(tensor.dtype) for tensor in load_file(newest / MOMENTS).values()}
    assert "torch.uint8" in kinds


def test_weights_that_are_rounded_stochastically_are_stored_in_bfloat16_and_resume_exactly(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = {**ARMS["full"], "trained_weights": "bfloat16-stochastic"}
    study = make_study(tiny_gpt2, {**SOUND, "epochs": 2}, arms=(arm,), benchmarks=())
    case = Case(study, write_texts(tmp_path / "texts"), tmp_path / "cache")
    _, resumed = run_twice(case, tmp_path, monkeypatch)
    newest = list_checkpoints(resumed.checkpoints)[-1]
    kinds = {str(tensor.dtype) for tensor in load_file(newest / WEIGHTS).values()}
    assert kinds == {"torch.bfloat16", "torch.float32"}  # norms and biases are float32
    assert {t.dtype for t in load_file(newest / MOMENTS).values()} == {torch.float32}


def test_a_start_from_training_rows_is_computed_again_on_resume(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("attr")
    arm = {**ARMS["lora"], "init_lora_weights": "corda"}
    study = make_study(tiny_gpt2, {**SOUND, "epochs": 2}, arms=(arm,), benchmarks=())
    case = Case(study, write_texts(tmp_path / "texts"), tmp_path / "cache")
    run_twice(case, tmp_path, monkeypatch)
