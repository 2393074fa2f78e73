"""Scores against direct loops over transformers' own loss, one row at a time."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from lorastudy.data.corpus import Corpus, prepare_corpus
from lorastudy.data.rows import cut_lines
from lorastudy.data.sources import Documents
from lorastudy.errors import InputError
from lorastudy.evaluate.protocols import (
    SpecialTokens,
    lay_out_rows,
    size_protocol,
)
from lorastudy.evaluate.score import RowScores, average_nats, score_rows
from lorastudy.loss import LossSums
from lorastudy.model.base import load_base
from lorastudy.model.scoring import make_scorer
from lorastudy.model.tokenizer import Tokenizer, load_tokenizer
from lorastudy.protocols import Protocol, find_protocol

CPU, PAD, LENGTH, CONTEXT = torch.device("cpu"), 256, 40, 64
LAYOUTS = ("tiny_gpt2", "tiny_llama")
PROTOCOLS = ("rows-text", "paper-padded", "document", "blocks-32", "sliding-32-10")


@pytest.fixture(params=LAYOUTS)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture
def network(folder: Path) -> PreTrainedModel:
    return load_base(folder, device=CPU)


@pytest.fixture(scope="module")
def texts(english: list[str]) -> list[str]:
    """20 documents, so that the published batches of 14 leave a short one; one is blank."""
    return [*english, *(f"{n} geese and {'very ' * (n % 4)}old {n}." for n in range(12))]


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


class Benchmark:
    """The texts as `evaluate` gets them."""

    def __init__(self, texts: list[str], tokenizer: Tokenizer, cache: Path) -> None:
        documents = Documents(tuple(texts), "made here", None)
        self._corpora: dict[bool, Corpus] = {
            joins: prepare_corpus(documents, tokenizer, cache, form="stream" if joins else "texts")
            for joins in (False, True)
        }

    def score(
        self, network: PreTrainedModel, name: str, *, max_positions: int = 4900
    ) -> tuple[Protocol, RowScores]:
        protocol = size_protocol(name, row_length=LENGTH, context=CONTEXT)
        corpus = self._corpora[protocol.kind.joins_documents]
        table, padding = lay_out_rows(protocol, corpus, SpecialTokens(PAD, PAD))
        scores = score_rows(
            make_scorer(network, "float32"),
            corpus.tokens,
            table,
            padding,
            device=CPU,
            max_positions=max_positions,
        )
        return protocol.kind, scores


@pytest.fixture
def benchmark_texts(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> Benchmark:
    return Benchmark(texts, tokenizer, tmp_path)


def rows_of(texts: list[str], length: int) -> list[list[int]]:
    """Start token and bytes of every text that is not blank, cut at `length`."""
    return [[PAD, *text.strip().encode()][:length] for text in texts if text.strip()]


@torch.no_grad()
def loss_of(network: PreTrainedModel, row: list[int], n_context: int = 1) -> LossSums:
    """Loss by transformers of what follows the first `n_context` tokens."""
    ids = torch.tensor([row])
    labels = ids.clone()
    labels[:, :n_context] = -100
    n_targets = len(row) - n_context
    return LossSums(float(network(input_ids=ids, labels=labels).loss) * n_targets, n_targets)


def total(sums: list[LossSums]) -> LossSums:
    return sum(sums, LossSums())


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("max_positions", [1, 64])
def test_score_does_not_depend_on_batching(
    name: str, max_positions: int, network: PreTrainedModel, benchmark_texts: Benchmark
) -> None:
    protocol, whole = benchmark_texts.score(network, name)
    _, cut = benchmark_texts.score(network, name, max_positions=max_positions)
    assert np.array_equal(cut.n_scored, whole.n_scored)
    assert np.allclose(cut.sum_nats, whole.sum_nats, rtol=1e-5, atol=1e-5)
    assert average_nats(protocol, cut) == pytest.approx(average_nats(protocol, whole), rel=1e-6)


def test_rows_text_is_the_mean_over_the_tokens_of_single_rows(
    network: PreTrainedModel, benchmark_texts: Benchmark, texts: list[str]
) -> None:
    expected = [loss_of(network, row) for row in rows_of(texts, LENGTH)]
    protocol, scores = benchmark_texts.score(network, "rows-text")
    assert scores.n_scored.tolist() == [sums.n_tokens for sums in expected]
    assert np.allclose(scores.sum_nats, [sums.sum_nats for sums in expected], rtol=1e-5)
    mean = total(expected).cross_entropy
    assert average_nats(protocol, scores) == pytest.approx(mean, rel=1e-6)


@torch.no_grad()
def paper_batch_means(network: PreTrainedModel, texts: list[str]) -> list[float]:
    """Batches of 14 in order, every row padded to the length, padding masked and scored."""
    ids = torch.full((len(rows := rows_of(texts, LENGTH)), LENGTH), PAD)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return [
        float(network(input_ids=b, attention_mask=(b != PAD).long(), labels=b).loss)
        for b in ids.split(14)
    ]


def test_paper_padded_is_the_published_mean_of_batch_means(
    network: PreTrainedModel, benchmark_texts: Benchmark, texts: list[str]
) -> None:
    means = paper_batch_means(network, texts)
    protocol, scores = benchmark_texts.score(network, "paper-padded")
    assert len(means) == 2  # 14 rows and 5
    assert average_nats(protocol, scores) == pytest.approx(sum(means) / 2, rel=1e-6)
    assert average_nats(protocol, scores) != pytest.approx(scores.sums.cross_entropy, rel=1e-6)


def test_classes_of_paper_padded_are_counted_by_position(
    network: PreTrainedModel, benchmark_texts: Benchmark, texts: list[str]
) -> None:
    lengths = [len(row) for row in rows_of(texts, LENGTH)]
    _, scores = benchmark_texts.score(network, "paper-padded")
    n_rows, n_text = len(lengths), sum(length - 2 for length in lengths)
    n_padded = sum(length < LENGTH for length in lengths)
    n_targets = n_rows * (LENGTH - 1)
    assert 0 < n_padded < n_rows
    assert scores.class_counts.tolist() == [
        n_rows,
        n_text,
        n_padded,
        n_targets - n_rows - n_text - n_padded,
    ]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_classes_add_up_to_the_score(
    name: str, network: PreTrainedModel, benchmark_texts: Benchmark
) -> None:
    _, scores = benchmark_texts.score(network, name)
    assert int(scores.class_counts.sum()) == scores.sums.n_tokens
    assert float(scores.class_nats.sum()) == pytest.approx(scores.sums.sum_nats, rel=1e-12)


@torch.no_grad()
def test_nats_of_a_class_are_those_of_its_positions(tiny_gpt2: Path, tmp_path: Path) -> None:
    network = load_base(tiny_gpt2, device=CPU)
    only = Benchmark(["Yes."], load_tokenizer(tiny_gpt2), tmp_path)
    ids = torch.tensor([[PAD, *b"Yes.", *[PAD] * (LENGTH - 5)]])
    logits = network(input_ids=ids, attention_mask=(ids != PAD).long()).logits[0, :-1]
    nats = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").double()
    expected = [part.sum() for part in (nats[:1], nats[1:4], nats[4:5], nats[5:])]
    _, scores = only.score(network, "paper-padded")
    assert scores.class_counts.tolist() == [1, 3, 1, LENGTH - 6]
    assert np.allclose(scores.class_nats, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["rows-text", "document", "blocks-32"])
def test_padding_is_scored_by_paper_padded_only(
    name: str, network: PreTrainedModel, benchmark_texts: Benchmark
) -> None:
    _, scores = benchmark_texts.score(network, name)
    assert scores.class_counts[2:].tolist() == [0, 0]


def test_blocks_are_scored_as_disjoint_windows_of_the_joined_text(
    network: PreTrainedModel, benchmark_texts: Benchmark, texts: list[str]
) -> None:
    stream = list("\n\n".join(texts).encode())
    windows = [stream[i : i + 32] for i in range(0, len(stream), 32)]
    expected = total([loss_of(network, window) for window in windows if len(window) > 1])
    protocol, scores = benchmark_texts.score(network, "blocks-32")
    assert scores.sums.n_tokens == expected.n_tokens
    assert average_nats(protocol, scores) == pytest.approx(expected.cross_entropy, rel=1e-6)


def sliding_loss(network: PreTrainedModel, stream: list[int], length: int, stride: int) -> LossSums:
    """The loop of transformers' perplexity guide, with sums in place of means."""
    sums, previous_end = LossSums(), 0
    for begin in range(0, len(stream), stride):
        end = min(begin + length, len(stream))
        n_new = end - previous_end
        n_context = max(1, end - begin - n_new)
        sums += loss_of(network, stream[begin:end], n_context)
        previous_end = end
        if end == len(stream):
            break
    return sums


def test_sliding_windows_are_scored_as_in_the_guide_of_transformers(
    network: PreTrainedModel, benchmark_texts: Benchmark, texts: list[str]
) -> None:
    expected = sliding_loss(network, list("\n\n".join(texts).encode()), 32, 10)
    protocol, scores = benchmark_texts.score(network, "sliding-32-10")
    assert scores.sums.n_tokens == expected.n_tokens == len("\n\n".join(texts).encode()) - 1
    assert average_nats(protocol, scores) == pytest.approx(expected.cross_entropy, rel=1e-6)


def test_documents_are_scored_whole_and_separately(
    network: PreTrainedModel, benchmark_texts: Benchmark, texts: list[str]
) -> None:
    documents = [list(text.strip().encode()) for text in texts if text.strip()]
    windows = [
        [PAD, *document[begin : begin + CONTEXT - 1]]
        for document in documents
        for begin in range(0, len(document), CONTEXT - 1)
    ]
    expected = total([loss_of(network, window) for window in windows])
    protocol, scores = benchmark_texts.score(network, "document")
    assert scores.sums.n_tokens == sum(len(document) for document in documents)
    assert average_nats(protocol, scores) == pytest.approx(expected.cross_entropy, rel=1e-6)


def test_score_of_a_row_does_not_depend_on_other_rows(tiny_gpt2: Path, tmp_path: Path) -> None:
    network, tokenizer = load_base(tiny_gpt2, device=CPU), load_tokenizer(tiny_gpt2)
    one = Benchmark(["A bell rang."], tokenizer, tmp_path).score(network, "rows-text")[1]
    two = Benchmark(["Rain, and then more rain.", "A bell rang."], tokenizer, tmp_path)
    assert two.score(network, "rows-text")[1].sum_nats[1] == pytest.approx(
        one.sum_nats[0], rel=1e-6
    )


def test_scoring_turns_dropout_off(tiny_gpt2: Path, tmp_path: Path) -> None:
    network = load_base(tiny_gpt2, device=CPU).train()
    one = Benchmark(["A bell rang."], load_tokenizer(tiny_gpt2), tmp_path)
    first, second = (one.score(network.train(), "rows-text")[1].sum_nats for _ in range(2))
    assert np.array_equal(first, second)


def test_scoring_can_be_stopped_before_a_batch(tiny_gpt2: Path) -> None:
    calls = []

    def poll() -> None:
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt

    protocol = size_protocol("rows-text", row_length=8, context=CONTEXT)
    table = cut_lines(np.arange(0, 30, 5), protocol.length, PAD)
    scorer = make_scorer(load_base(tiny_gpt2, device=CPU), "float32")
    padding = lay_out_rows(protocol, _Offsets(), SpecialTokens(PAD, PAD))[1]
    with pytest.raises(KeyboardInterrupt):
        score_rows(scorer, np.arange(30), table, padding, device=CPU, poll=poll, max_positions=6)
    assert calls == [0, 1]


class _Offsets:
    offsets = np.array([0, 5])


def scores_of(sum_nats: list[float], n_scored: list[int]) -> RowScores:
    nothing = np.zeros(4)
    counts = nothing.astype(np.int64)
    return RowScores(np.array(sum_nats), np.array(n_scored), nothing, counts, 0.0)


def test_average_over_tokens_weighs_rows_by_their_tokens() -> None:
    protocol = find_protocol("rows-text")
    assert average_nats(protocol, scores_of([2.0, 30.0], [1, 7])) == 4.0


def test_average_of_batch_means_weighs_the_short_last_batch_like_a_full_one() -> None:
    protocol = find_protocol("paper-padded")
    scores = scores_of([4.0] * 14 + [12.0], [2] * 15)
    assert average_nats(protocol, scores) == (2.0 + 6.0) / 2


def test_nothing_scored_has_no_average() -> None:
    protocol = find_protocol("rows-text")
    with pytest.raises(InputError, match="no token was scored"):
        average_nats(protocol, scores_of([0.0], [0]))


def test_perplexity_of_a_uniform_guess_is_the_vocabulary(tiny_gpt2: Path, tmp_path: Path) -> None:
    network = load_base(tiny_gpt2, device=CPU)
    with torch.no_grad():
        network.get_output_embeddings().weight.zero_()
    one = Benchmark(["A bell rang."], load_tokenizer(tiny_gpt2), tmp_path)
    for name in PROTOCOLS:
        protocol, scores = one.score(network, name)
        assert math.exp(average_nats(protocol, scores)) == pytest.approx(300, rel=1e-5)
