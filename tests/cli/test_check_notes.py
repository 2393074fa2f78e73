"""`check` says what is lost of a text and what else is allowed and may not be meant."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from support.command_line import call
from support.families import load_plain, save_family

run_command = sys.modules["lorastudy.cli.run"]  # the function of this name hides it
STUDY = """
name: noted
base_model: {{path: base}}
data:
  train: {{path: train.txt}}
  validation: {{path: train.txt}}
  rows: {{cut: {cut}, length: {length}}}
training: {{epochs: 1, rows_per_step: 2, micro_batch: 2}}
seeds: [0]
arms:
  - {{name: lora, method: lora, placement: [attention], rank: {rank}, alpha: 8,
     learning_rates: [1e-3]}}
benchmarks:
  - {{name: same, path: train.txt, protocols: [rows-text]}}
"""


def check(
    folder: Path, *, family: str = "llama", cut: str = "lines", length: int = 40, rank: int = 4
) -> dict[str, Any]:
    save_family(family, folder / "base")
    (folder / "train.txt").write_text("short line\n" * 6 + "x" * 100 + "\n")
    (folder / "study.yaml").write_text(STUDY.format(cut=cut, length=length, rank=rank))
    answer = call("check", folder / "study.yaml", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    printed = " ".join(call("check", folder / "study.yaml").out.split())
    assert all(note in printed for note in found["notes"])
    return found


@pytest.mark.parametrize(
    ("cut", "length", "n_dropped"), [("lines", 40, 61), ("lines", 64, 37), ("stream", 60, 52)]
)
def test_text_that_no_row_reads_is_counted_and_noted(
    cut: str, length: int, n_dropped: int, tmp_path: Path
) -> None:
    found = check(tmp_path, cut=cut, length=length)
    text = found["train_text"]
    assert text["n_dropped"] == n_dropped
    note, _, cut = found["notes"]  # of train, of validation and of the benchmark
    assert "tokens of same are in no row under rows-text" in cut and "protocol document" in cut
    assert f"of the {text['n_tokens']:,} tokens of train are in no row" in note
    assert f"{100 * n_dropped / text['n_tokens']:.0f} %" in note


def test_code_and_tokenizers_that_are_not_used_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any("code" in note for note in check(tmp_path)["notes"])
    path = tmp_path / "base/config.json"
    own = {"AutoConfig": "configuration.C", "AutoModelForCausalLM": "modeling.Other"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": own}))
    path = tmp_path / "base/tokenizer_config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "tokenizer_class": "Qwen2Tokenizer"})
    )
    notes = json.loads(call("check", tmp_path / "study.yaml", "--json").out)["notes"]
    assert sum("transformers' Qwen2Tokenizer, which" in note for note in notes) == 1
    assert sum("(modeling.Other), which is not run" in note for note in notes) == 1
    monkeypatch.setattr(run_command, "finish", lambda *_, **options: None)
    monkeypatch.setattr("lorastudy.study.conduct.execute", lambda *_: iter(()))
    printed = call("run", tmp_path / "study.yaml", "--out", tmp_path / "study").out
    assert all(f"Note: {note}\n" in printed for note in notes)  # also what is said of the texts


def test_a_run_whose_output_nobody_reads_is_interrupted_and_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BrokenPipeError

    check(tmp_path)
    monkeypatch.setattr("lorastudy.cli.live.show_progress", refuse)
    answer = call("run", tmp_path / "study.yaml", "--out", tmp_path / "study")
    assert answer.code == 75 and "nobody reads the output" in answer.err


def test_letters_that_the_tokenizer_changes_are_noted(tmp_path: Path) -> None:
    check(tmp_path)
    path = tmp_path / "base/tokenizer.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "normalizer": {"type": "Lowercase"}})
    )
    (tmp_path / "train.txt").write_text("Short LINE\n" * 6)
    notes = json.loads(call("check", tmp_path / "study.yaml", "--json").out)["notes"]
    said = [note for note in notes if "the tokenizer changes 55.6 % of the letters of" in note]
    assert [note.split()[9] for note in said] == ["train,", "validation,", "same,"]


def test_composite_model_is_noted_as_one_of_which_the_text_part_is_taken(tmp_path: Path) -> None:
    found = check(tmp_path, family="mistral3", cut="lines", length=64)
    note = next(note for note in found["notes"] if "text part" in note)
    assert note.startswith("The base model is a Mistral3ForConditionalGeneration. Only its text")
    (arm,) = found["arms"]
    assert {path.partition(".layers.")[0] for path in arm["modules"]} == {"model.language_model"}


@pytest.mark.parametrize(("rank", "is_noted"), [(16, False), (17, True), (32, True)])
def test_rank_above_the_width_of_a_layer_is_noted(
    rank: int, is_noted: bool, tmp_path: Path
) -> None:
    notes = check(tmp_path, length=64, rank=rank)["notes"]
    assert any(f"rank {rank} is above the width 16" in note for note in notes) == is_noted


@pytest.mark.parametrize(("family", "is_noted"), [("llama", False), ("gemma2", True)])
def test_family_that_runs_with_eager_attention_is_noted(
    family: str, is_noted: bool, tmp_path: Path
) -> None:
    notes = check(tmp_path, family=family)["notes"]
    assert any("eager" in note for note in notes) == is_noted


def test_packed_base_most_of_which_stays_in_16_bits_is_noted(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    assert not any("packs" in note for note in check(tmp_path, family="gpt_oss")["notes"])
    answer = call("check", tmp_path / "study.yaml", "--json", "--set", "arms.lora.base_weights=nf4")
    notes = json.loads(answer.out)["notes"]
    network = load_plain(tmp_path / "base")
    n_packed = sum(m.weight.numel() for m in network.modules() if type(m) is nn.Linear)
    n_packed -= network.lm_head.weight.numel()
    share = 100 * n_packed / sum(p.numel() for p in network.parameters())
    expected = f"base_weights: nf4 packs {share:.0f} % of the base model's weights"
    assert any(expected in note for note in notes) and share < 50
    shutil.rmtree(tmp_path / "base")
    save_family("gpt2", tmp_path / "base")  # most of it is in linear modules
    answer = call("check", tmp_path / "study.yaml", "--json", "--set", "arms.lora.base_weights=nf4")
    assert not any("packs" in note for note in json.loads(answer.out)["notes"])


def test_weights_that_are_not_read_are_noted_and_missing_ones_are_refused(
    tmp_path: Path,
) -> None:
    assert not any("weights" in note for note in check(tmp_path)["notes"])
    weights = tmp_path / "base" / "model.safetensors"
    shutil.copy(weights, tmp_path / "base" / "old.safetensors")
    answer = call("check", tmp_path / "study.yaml")
    assert answer.code == 0 and "old.safetensors, which is not read" in " ".join(answer.out.split())
    (tmp_path / "base" / "old.safetensors").unlink()
    weights.unlink()
    for other in (None, "pytorch_model.bin"):
        if other is not None:
            (tmp_path / "base" / other).write_bytes(b"")
        answer = call("check", tmp_path / "study.yaml")
        assert answer.code == 3 and "no .safetensors file" in answer.err


def test_long_names_of_arms_cut_no_number(tmp_path: Path) -> None:
    trained = check(tmp_path)["arms"][0]["trainable_parameters"]
    long = "n" * 64
    answer = call("check", tmp_path / "study.yaml", "--set", f"arms.lora.name={long}")
    assert answer.code == 0, answer.err
    assert "…" not in answer.out and f" {trained:,} " in answer.out


def test_every_wrong_path_is_named_at_once_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.format(cut="lines", length=40, rank=4))
    answer = call("check", tmp_path / "study.yaml")
    assert answer.code == 3 and "4 inputs are not there" in answer.err
    for key in ("base_model", "data.train", "data.validation", "benchmarks.same"):
        assert f"  {key}: " in answer.err


def test_arms_that_cannot_be_are_all_named_before_weights_are_read(tmp_path: Path) -> None:
    save_family("llama", tmp_path / "base")
    (tmp_path / "train.txt").write_text("short line\n" * 6)
    wrong = """
  - {name: vera, method: peft, peft: {peft_type: VERA, r: 4}, placement: [attention],
     base_weights: int8, learning_rates: [1e-3]}
  - {name: slip, method: lora, placement: [model.layers.*.q_prj], rank: 4, alpha: 8,
     learning_rates: [1e-3]}
benchmarks:"""
    text = STUDY.format(cut="lines", length=40, rank=4).replace("\nbenchmarks:", wrong)
    (tmp_path / "study.yaml").write_text(text)
    (tmp_path / "base" / "model.safetensors").write_bytes(b"damaged")
    answer = call("check", tmp_path / "study.yaml")
    assert answer.code == 2 and "2 arms cannot be carried out:\n" in answer.err, answer.err
    assert answer.err.index("no form for base_weights: int8") < answer.err.index("q_prj")
    (tmp_path / "study.yaml").write_text(text.replace(wrong, "\nbenchmarks:"))
    assert call("check", tmp_path / "study.yaml").code == 3
