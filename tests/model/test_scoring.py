"""The nats of a batch against the loss that transformers computes from labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lorastudy.data.batches import Batch, Padding, make_batch
from lorastudy.data.rows import RowTable, cut_lines, cut_windows
from lorastudy.loss import IGNORE_INDEX
from lorastudy.model import scoring
from lorastudy.model.base import load_base
from lorastudy.model.scoring import Scorer, make_scorer
from support.tiny_arms import CPU, as_if_trained, attach, lora

PAD, LENGTH = 256, 24
LAYOUTS = ("tiny_gpt2", "tiny_llama")


@pytest.fixture(scope="module")
def corpus() -> tuple[np.ndarray, RowTable]:
    """6 documents of 3 to 40 tokens as rows of at most 24."""
    rng = np.random.default_rng(2)
    offsets = np.concatenate([[0], np.cumsum([40, 3, 17, 9, 23, 30])])
    return rng.integers(0, 256, size=offsets[-1]), cut_lines(offsets, LENGTH, PAD)


@pytest.fixture(params=LAYOUTS)
def network(request: pytest.FixtureRequest) -> PreTrainedModel:
    return load_base(request.getfixturevalue(request.param), device=CPU)


@pytest.fixture
def capped_gemma2() -> PreTrainedModel:
    """Gemma 2 bends its logits with tanh after the output layer."""
    config = AutoConfig.for_model(
        "gemma2",
        num_hidden_layers=2,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        vocab_size=300,
        initializer_range=0.3,
        final_logit_softcapping=2.0,
        bos_token_id=PAD,
        eos_token_id=PAD,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).float().eval()


def whole_rows(corpus: tuple[np.ndarray, RowTable]) -> tuple[Tensor, Tensor]:
    """All rows padded to the full length, and a mask that is 1 on text: both (B, LENGTH)."""
    tokens, table = corpus
    ids = torch.full((table.n_rows, LENGTH), PAD)
    for b in range(table.n_rows):
        text = tokens[table.begins[b] : table.ends[b]]
        ids[b, 1 : 1 + len(text)] = torch.from_numpy(text)
    return ids, torch.arange(LENGTH) < torch.from_numpy(table.lengths)[:, None]


@torch.no_grad()
def loss_of_transformers(network: PreTrainedModel, corpus: tuple[np.ndarray, RowTable]) -> float:
    ids, is_text = whole_rows(corpus)
    labels = ids.masked_fill(~is_text, IGNORE_INDEX)
    return float(network(input_ids=ids, attention_mask=is_text.long(), labels=labels).loss)


@torch.no_grad()
def score(scorer: Scorer, corpus: tuple[np.ndarray, RowTable]) -> Tensor:
    tokens, table = corpus
    return scorer.score(make_batch(tokens, table, np.arange(table.n_rows), Padding(PAD)))


def test_masked_rows_have_the_loss_of_transformers(
    network: PreTrainedModel, corpus: tuple[np.ndarray, RowTable]
) -> None:
    nats = score(make_scorer(network, "float32"), corpus)
    assert float(nats.mean()) == pytest.approx(loss_of_transformers(network, corpus), rel=1e-6)


@torch.no_grad()
def test_scored_rows_have_the_loss_of_transformers(
    network: PreTrainedModel, corpus: tuple[np.ndarray, RowTable]
) -> None:
    tokens, table = corpus
    batch = make_batch(tokens, table, np.arange(table.n_rows), Padding(PAD, LENGTH))
    nats = make_scorer(network, "float32").score(batch)
    ids, _ = whole_rows(corpus)
    theirs = network(input_ids=ids, attention_mask=(ids != PAD).long(), labels=ids).loss
    assert float(nats.mean()) == pytest.approx(float(theirs), rel=1e-6)


@torch.no_grad()
def test_window_is_scored_with_its_context(network: PreTrainedModel) -> None:
    tokens = np.arange(40)
    batch = make_batch(
        tokens, cut_windows([0, 40], length=24, stride=16), np.array([1]), Padding(PAD)
    )
    ids = torch.arange(16, 40)[None]
    labels = ids.clone()
    labels[:, :8] = IGNORE_INDEX  # scored in the window before
    theirs = network(input_ids=ids, labels=labels).loss
    nats = make_scorer(network, "float32").score(batch)
    assert len(nats) == 16
    assert float(nats.mean()) == pytest.approx(float(theirs), rel=1e-6)


def test_padding_changes_no_nats(
    network: PreTrainedModel, corpus: tuple[np.ndarray, RowTable]
) -> None:
    tokens, table = corpus
    scorer = make_scorer(network, "float32")
    with torch.no_grad():
        alone = [
            scorer.score(make_batch(tokens, table, np.array([row]), Padding(PAD)))
            for row in range(table.n_rows)
        ]
    assert torch.allclose(score(scorer, corpus), torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_plain_models_run_the_output_layer_apart(network: PreTrainedModel) -> None:
    assert make_scorer(network, "float32").splits_head


@pytest.mark.parametrize("layout", LAYOUTS)
def test_adapted_head_is_run_apart_and_counts(
    layout: str, corpus: tuple[np.ndarray, RowTable], request: pytest.FixtureRequest
) -> None:
    model = as_if_trained(attach(request.getfixturevalue(layout), lora("lora-4")))
    scorer = make_scorer(model.network, "float32")
    assert scorer.splits_head
    expected = loss_of_transformers(model.network, corpus)
    assert float(score(scorer, corpus).mean()) == pytest.approx(expected, rel=1e-6)
    assert model.adapter is not None
    with model.adapter.disable_adapter():
        assert abs(loss_of_transformers(model.network, corpus) - expected) > 1e-3


def test_capped_logits_are_those_of_the_model(
    capped_gemma2: PreTrainedModel, corpus: tuple[np.ndarray, RowTable]
) -> None:
    scorer = make_scorer(capped_gemma2, "float32")
    assert not scorer.splits_head
    expected = loss_of_transformers(capped_gemma2, corpus)
    assert float(score(scorer, corpus).mean()) == pytest.approx(expected, rel=1e-6)
    # the cap does matter here: run apart, the output layer says something else
    apart = score(Scorer(capped_gemma2, "float32", splits_head=True), corpus)
    assert abs(float(apart.mean()) - expected) > 0.01


def test_trying_the_head_leaves_the_mode_alone(tiny_gpt2: Path) -> None:
    network = load_base(tiny_gpt2, device=CPU).train()
    make_scorer(network, "float32")
    assert network.training and network.transformer.drop.training


def test_chunks_of_the_output_layer_change_no_nats(
    network: PreTrainedModel,
    corpus: tuple[np.ndarray, RowTable],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = make_scorer(network, "float32")
    whole = score(scorer, corpus)
    monkeypatch.setattr(scoring, "SCORE_CHUNK", 7)
    assert torch.allclose(score(scorer, corpus), whole, rtol=1e-5, atol=1e-6)


def gradient_of(network: PreTrainedModel, loss: Tensor) -> Tensor:
    loss.backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_is_that_of_transformers(
    layout: str, corpus: tuple[np.ndarray, RowTable], request: pytest.FixtureRequest
) -> None:
    tokens, table = corpus
    folder = request.getfixturevalue(layout)
    batch = make_batch(tokens, table, np.arange(table.n_rows), Padding(PAD))
    ours = load_base(folder, device=CPU)
    theirs = load_base(folder, device=CPU)
    ids, is_text = whole_rows(corpus)
    labels = ids.masked_fill(~is_text, IGNORE_INDEX)
    got = gradient_of(ours, make_scorer(ours, "float32").score(batch).mean())
    expected = gradient_of(theirs, theirs(input_ids=ids, labels=labels).loss)
    assert float((got - expected).norm() / expected.norm()) < 1e-5


def test_bfloat16_is_near_float32_and_not_the_same(
    network: PreTrainedModel, corpus: tuple[np.ndarray, RowTable]
) -> None:
    exact = score(make_scorer(network, "float32"), corpus)
    rough = score(make_scorer(network, "bfloat16"), corpus)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert float(rough.mean()) == pytest.approx(float(exact.mean()), rel=0.01)


def test_nats_come_row_by_row(
    network: PreTrainedModel, corpus: tuple[np.ndarray, RowTable]
) -> None:
    tokens, table = corpus
    batch: Batch = make_batch(tokens, table, np.array([1, 3]), Padding(PAD))
    with torch.no_grad():
        nats = make_scorer(network, "float32").score(batch)
        first = network(input_ids=batch.input_ids[:1]).logits[0, :3].log_softmax(-1)
    expected = -first[torch.arange(3), torch.from_numpy(tokens[40:43])]
    assert torch.allclose(nats[:3], expected, rtol=1e-5, atol=1e-5)
