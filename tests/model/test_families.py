"""Every family of models: its adapters are trained and stored whole, and its scores are right.

A score is that of the document alone, by every implementation and protocol.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from lorastudy.data.batches import Padding, make_batch
from lorastudy.data.rows import RowTable, cut_lines, cut_windows
from lorastudy.model.adapters import attach_arm, merge_adapter
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.base import check_weights, describe_base, load_base, save_model
from lorastudy.model.scoring import make_scorer
from lorastudy.store.training_state import Progress
from lorastudy.train.loop import StepDone, train
from support.families import FAMILIES, MAPPED, layer_types_of, load_plain, save_family
from support.methods import assert_everybody_reads, prepare
from support.tiny_arms import (
    CPU,
    FULL,
    RANK,
    adapted,
    as_if_trained,
    attach,
    logits_of,
    lora,
)

PAD = 256
LENGTHS = (40, 3, 17, 9, 30, 2)  # tokens of the documents; rows have one more


@pytest.fixture(scope="module")
def corpus() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.integers(0, 256, size=sum(LENGTHS)), np.concatenate([[0], np.cumsum(LENGTHS)])


@torch.no_grad()
def score(
    network: PreTrainedModel, tokens: np.ndarray, table: RowTable, padding: Padding, how: str
) -> Tensor:
    scorer = make_scorer(network, "float32", implementation=how)
    return scorer.score(make_batch(tokens, table, np.arange(table.n_rows), padding))


@torch.no_grad()
def score_by_transformers(network: PreTrainedModel, tokens: np.ndarray, table: RowTable) -> Tensor:
    """Each row alone, by nothing but the model's own logits and torch's log-softmax."""
    nats = []
    for row in range(table.n_rows):
        text = tokens[table.begins[row] : table.ends[row]].tolist()
        ids = torch.tensor([[PAD] * (int(table.lengths[row]) - len(text)) + text])
        logits = network(input_ids=ids[:, :-1], use_cache=False).logits[0].double()
        own = -logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        nats.append(own[len(own) - int(table.n_scored[row]) :].float())
    return torch.cat(nats)


@pytest.mark.parametrize("family", [*FAMILIES, "gemma3", "qwen2_5_vl"])  # and composite ones
def test_every_implementation_scores_what_transformers_does(
    family: str, corpus: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    tokens, offsets = corpus
    network = load_base(save_family(family, tmp_path), device=CPU)
    lines = cut_lines(offsets, 42, PAD)
    windows = cut_windows(offsets, length=16, stride=8, prefix=None)
    expected = [score_by_transformers(network, tokens, table) for table in (lines, windows)]
    padded = score(network, tokens, lines, Padding(PAD, 42), "reference")
    for how in ("reference", "fast"):
        for table, alone in zip((lines, windows), expected, strict=True):
            nats = score(network, tokens, table, Padding(PAD), how)
            torch.testing.assert_close(nats, alone, rtol=1e-6, atol=1e-5)
    fast = score(network, tokens, lines, Padding(PAD, 42), "fast")
    torch.testing.assert_close(fast, padded, rtol=1e-6, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # PEFT's advice to readers
@pytest.mark.parametrize("family", MAPPED)
def test_adapters_of_every_layer_type_are_counted_trained_and_read_by_peft(
    family: str, tmp_path: Path
) -> None:
    folder = save_family(family, tmp_path / "base")
    arm = lora("lora-4").model_copy(update={"placement": layer_types_of(family)})
    base, plain = describe_base(folder), load_plain(folder)
    placed = resolve_arm(arm, base)
    model = attach_arm(load_base(folder, device=CPU), arm, placed, seed=0)
    assert adapted(model) == placed.paths
    assert model.n_trained == placed.adapter_parameters(RANK)
    start = logits_of(model.network)
    assert torch.equal(start, logits_of(plain))

    assert len([e for e in train(prepare(model, arm), Progress()) if isinstance(e, StepDone)]) == 3
    trained = logits_of(model.network.eval())
    assert not torch.allclose(trained, start, rtol=1e-3)
    model.save(tmp_path / "best")
    read = PeftModel.from_pretrained(plain, str(tmp_path / "best")).eval()
    torch.testing.assert_close(logits_of(read), trained, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("family", ["gemma3", "gemma4", "mistral3", "qwen3_5", "llama4"])
def test_what_is_trained_in_a_text_part_is_read_in_the_composite_model(
    family: str, tmp_path: Path
) -> None:
    folder = save_family(family, tmp_path / "base")
    stored = load_file(folder / "model.safetensors")
    others = [name for name in stored if re.search("vision|visual|projector", name)]
    adapter = lora("lora-4").model_copy(update={"placement": ("all-linear", "output")})
    check_weights(folder)
    for arm in (FULL, adapter):
        model = as_if_trained(attach(folder, arm))
        assert not any(re.search("vision|visual|projector", n) for n in model.stored_tensors())
        assert_everybody_reads(model, arm, folder, tmp_path / arm.name)
        if model.adapter is not None:
            expected, whole = logits_of(model.network), tmp_path / "merged"
            save_model(merge_adapter(model), whole)
            merged = logits_of(load_plain(whole))
            torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-4)
        else:
            whole = tmp_path / arm.name
        written = load_file(whole / "model.safetensors")
        assert others and all(torch.equal(written[name], stored[name]) for name in others)


def rope(form: str, **values: object) -> dict[str, object]:
    switch = {"rope_type": form, "rope_theta": 1e4, "original_max_position_embeddings": 20}
    return {
        "rope_parameters": {**switch, **values},
        "original_max_position_embeddings": 20,  # where Phi-3 looks for it
        "sliding_window": None,
    }


FACTORS = {"short_factor": [1.0] * 4, "long_factor": [4.0, 8.0, 16.0, 32.0]}
LONG_CONTEXT = {  # family, its configuration, whether a long row changes the others of its batch
    "phi3-longrope": ("phi3", rope("longrope", **FACTORS), True),
    "llama-longrope": ("llama", rope("longrope", factor=3.2, **FACTORS), True),
    "qwen2-longrope": ("qwen2", rope("longrope", factor=3.2, **FACTORS), True),
    "llama-dynamic": ("llama", rope("dynamic", factor=4.0), False),  # switches after the context
    "qwen2-yarn": ("qwen2", rope("yarn", factor=3.2), False),
}


@pytest.mark.parametrize("form", LONG_CONTEXT)
@pytest.mark.parametrize("how", ["reference", "fast"])
def test_document_is_scored_as_alone_on_both_sides_of_every_switch(
    form: str, how: str, tmp_path: Path
) -> None:
    family, values, switches = LONG_CONTEXT[form]
    folder = save_family(family, tmp_path, **values)
    rng = np.random.default_rng(3)
    lengths = (60, 5, 19, 20, 21, 22, 40, 62, 18)  # around the switch at 20 positions
    tokens = rng.integers(0, 256, size=sum(lengths))
    table = cut_lines(np.concatenate([[0], np.cumsum(lengths)]), 63, PAD)
    alone = torch.cat(
        [
            score_by_transformers(load_base(folder, device=CPU), tokens, table.select([row]))
            for row in range(table.n_rows)
        ]
    )
    network = load_base(folder, device=CPU)
    scorer = make_scorer(network, "float32", implementation=how)
    assert (scorer.kept is not None) == switches
    rows = np.arange(table.n_rows)
    with torch.no_grad():
        for order in (rows, rows[::-1].copy()):
            nats = scorer.score(make_batch(tokens, table, order, Padding(PAD)))
            expected = torch.cat([alone.split(table.n_scored.tolist())[row] for row in order])
            torch.testing.assert_close(nats, expected, rtol=1e-6, atol=1e-5)


def test_training_sums_what_each_row_gives_alone(tmp_path: Path) -> None:
    family, values, _ = LONG_CONTEXT["phi3-longrope"]
    network = load_base(save_family(family, tmp_path, **values), device=CPU)
    scorer = make_scorer(network, "float32")
    tokens = np.random.default_rng(4).integers(0, 256, size=58)
    table = cut_lines([0, 50, 58], 52, PAD)
    together = scorer.sum_nats(make_batch(tokens, table, np.arange(2), Padding(PAD)))
    one_by_one = sum(
        scorer.sum_nats(make_batch(tokens, table, np.array([row]), Padding(PAD)))
        for row in range(2)
    )
    torch.testing.assert_close(together, one_by_one, rtol=1e-6, atol=0)
