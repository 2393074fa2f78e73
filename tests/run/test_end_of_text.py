"""`data.rows.end: scored`: the end of each text that fits into its row is a target."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorastudy.config.study_file import load_study, preset_text
from lorastudy.errors import ConfigError
from lorastudy.store.lines import read_records
from lorastudy.store.records import EpochRecord, Manifest
from support.tiny_runs import OTHER, SOUND, TRAIN, Case, make_study, write_texts

LENGTH = 48


@torch.no_grad()
def nats_of_rows(model: Path, tokenizer: Path, texts: list[str]) -> float:
    """Mean nats of the tokens of each text and of its end, one text at a time."""
    network, known = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained
    encode, end = known(tokenizer).encode, known(tokenizer).eos_token_id
    total, n = 0.0, 0
    for text in texts:
        ids = torch.tensor([[end, *encode(text), end][:LENGTH]])
        logits = network.eval()(ids).logits.double()[0, :-1]
        total -= float(logits.log_softmax(-1).gather(1, ids[0, 1:, None]).sum())
        n += ids.shape[1] - 1
    return total / n


@pytest.mark.parametrize("implementation", ["fast", "reference"])
def test_ends_are_trained_and_validated_as_a_loop_over_texts_computes_them(
    implementation: str, tiny_gpt2: Path, tmp_path: Path
) -> None:
    texts = write_texts(tmp_path / "texts")
    data = {
        "train": {"path": "train.txt"},
        "validation": {"path": "validation.txt"},
        "rows": {"cut": "lines", "length": LENGTH, "end": "scored"},
    }
    training = {**SOUND, "epochs": 1, "implementation": implementation}
    case = Case(make_study(tiny_gpt2, training, "full", data=data), texts, tmp_path / "cache")
    folder = case.folder(tmp_path, implementation)
    result = case.execute(folder)
    (epoch,) = read_records(folder.epochs, EpochRecord)
    assert epoch.validation_loss == pytest.approx(
        nats_of_rows(folder.best, tiny_gpt2, OTHER), abs=1e-5
    )
    # every text and its end, where both fit into a row behind its first token
    n_targets = sum(min(len(text) + 1, LENGTH - 1) for text in TRAIN)
    assert result.train_tokens == n_targets
    manifest = Manifest.model_validate_json(folder.manifest.read_bytes())
    assert manifest.train_targets_per_epoch == n_targets
    # benchmarks are scored as without ends
    assert result.evaluations[0].n_tokens == sum(map(len, OTHER))


def test_training_on_ends_lowers_their_loss(tiny_gpt2: Path, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts")
    losses = {}
    for end in ("masked", "scored"):
        rows = {"cut": "lines", "length": LENGTH, "end": end}
        data = {"train": {"path": "train.txt"}, "validation": {"path": "train.txt"}, "rows": rows}
        case = Case(make_study(tiny_gpt2, SOUND, "full", data=data), texts, tmp_path / "cache")
        folder = case.folder(tmp_path, end)
        case.execute(folder)
        losses[end] = loss_of_end(folder.best, "Nobody.")
    assert losses["scored"] < losses["masked"] - 0.1


@torch.no_grad()
def loss_of_end(model: Path, text: str) -> float:
    ids = torch.tensor([[256, *text.encode()]])
    logits = AutoModelForCausalLM.from_pretrained(model).eval()(ids).logits[0, -1]
    return math.log(1 / float(logits.softmax(-1)[256]))


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("demo", ["data.rows.cut=stream", "data.rows.end=scored"]),
        ("paper", ["data.rows.end=scored"]),
        ("demo", ["data.rows.end=trained"]),
    ],
)
def test_ends_are_refused_where_rows_have_none_or_score_them_already(
    preset: str, changes: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"data\.rows\.end: "):
        load_study(preset_text(preset), preset, changes)
