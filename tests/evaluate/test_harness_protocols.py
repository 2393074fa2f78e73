"""`lm-eval-wikitext` and `lm-eval-lambada` against loops over transformers, and units of a text."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from lorastudy.config.models import Benchmark, Rows
from lorastudy.data.texts import detokenise_page
from lorastudy.model.base import load_base
from lorastudy.model.scoring import make_scorer
from lorastudy.run.inputs import BenchmarkRows
from lorastudy.run.readers import make_reader
from lorastudy.run.scores import describe_scores, score_benchmark_rows
from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.places import Places
from lorastudy.store.records import EvaluationRecord

CPU, START, CONTEXT = torch.device("cpu"), 256, 64
PAGES = (
    ' = River = \n \n It ran , high @-@ banked , past the " Old Mill " and on to the bridge . \n'
    " Nobody crossed it before the 1 @,@ 000th boat came in . ",
    " = Mill = \n",
)
PASSAGES = ("the miller said the miller", "nobody crossed it before May", "aaaa aaaa aa", "Yes")


@dataclass(frozen=True)
class Case:
    """Texts, laid out and scored by one model."""

    folder: Path
    network: PreTrainedModel
    texts: Path

    def lay_out(self, protocol: str, length: int = 40) -> BenchmarkRows:
        benchmark = Benchmark(name="b", path=self.texts.name, protocols=(protocol,))
        places = Places(self.texts.parent, cache=self.texts.parent / "cache")
        reader = make_reader(self.folder, places)
        return reader.benchmark_rows(benchmark, protocol, Rows(cut="lines", length=length))

    def store(self, protocol: str, length: int = 40) -> DocumentSums:
        rows = self.lay_out(protocol, length)
        scores = score_benchmark_rows(make_scorer(self.network, "float32"), rows, CPU)
        return describe_scores("b", rows, scores)

    def score(self, protocol: str, length: int = 40) -> EvaluationRecord:
        return self.store(protocol, length).evaluation


@pytest.fixture(params=["tiny_gpt2", "tiny_llama"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def make_case(folder: Path, tmp_path: Path, *texts: str) -> Case:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(texts))
    return Case(folder, load_base(folder, device=CPU), path)


@torch.no_grad()
def log_probabilities(network: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """(len(ids) - 1, V): of the token after each but the last."""
    return network(torch.tensor([ids[:-1]])).logits[0].double().log_softmax(-1)


def nats_of(network: PreTrainedModel, ids: list[int], n_targets: int) -> float:
    """Of the last `n_targets` of `ids`, everything before being read."""
    table = log_probabilities(network, ids)
    return -sum(float(table[-k, ids[-k]]) for k in range(1, n_targets + 1))


def rolling_nats(network: PreTrainedModel, ids: list[int]) -> float:
    """Windows that read CONTEXT tokens and predict what none did; the last is moved back."""
    whole = [START, *ids]
    total = nats_of(network, whole[: CONTEXT + 1], min(CONTEXT, len(ids)))
    for begin in range(CONTEXT, len(ids), CONTEXT):
        end = min(begin + CONTEXT, len(ids))
        total += nats_of(network, whole[end - CONTEXT : end + 1], end - begin)
    return total


def test_pages_are_scored_in_full_windows_and_counted_before_detokenisation(
    folder: Path, tmp_path: Path
) -> None:
    case = make_case(folder, tmp_path, *"\n".join(PAGES).removesuffix("\n").split("\n"))
    found = case.score("lm-eval-wikitext")
    ids = [list(detokenise_page(page).encode()) for page in PAGES]
    assert len(ids[0]) > CONTEXT  # so that there is a second window
    nats = sum(rolling_nats(case.network, page) for page in ids)
    n_words = sum(len(re.split(r"\s+", page)) for page in PAGES)
    n_bytes = sum(len(page.encode()) for page in PAGES)
    assert (found.n_tokens, found.n_documents) == (sum(map(len, ids)), 2)
    assert (found.n_words, found.n_bytes, found.n_unscored) == (n_words, n_bytes, 0)
    assert found.sum_nats == pytest.approx(nats, rel=1e-6)
    assert found.word_perplexity == pytest.approx(math.exp(nats / n_words), rel=1e-5)
    assert found.byte_perplexity == pytest.approx(math.exp(nats / n_bytes), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / n_bytes / math.log(2), rel=1e-5)


def test_last_words_are_scored_after_their_context(folder: Path, tmp_path: Path) -> None:
    case = make_case(folder, tmp_path, *PASSAGES)
    found = case.store("lm-eval-lambada")
    expected = []
    for passage in PASSAGES:
        context, _, word = passage.rpartition(" ")
        target = f" {word}".encode()
        before = list(context.encode()) or [START]
        expected.append(nats_of(case.network, [*before, *target], len(target)))
    assert found.n_targets == tuple(len(f" {p.split(' ')[-1]}") for p in PASSAGES)
    assert np.allclose(found.nats, expected, rtol=1e-5)
    evaluation = found.evaluation
    assert evaluation.cross_entropy == pytest.approx(sum(expected) / 4, rel=1e-6)
    assert evaluation.perplexity == pytest.approx(math.exp(sum(expected) / 4), rel=1e-5)
    assert evaluation.averaged_over == "documents"
    assert evaluation.word_perplexity is None


@torch.no_grad()
def test_a_last_word_counts_as_right_only_if_every_token_is_the_first_choice(
    folder: Path, tmp_path: Path
) -> None:
    """The model's head is set to repeat: it predicts a space after b and b after everything."""
    case = make_case(folder, tmp_path, "ab b", "ab bb", "ab c", "bb b")

    class Repeating:
        def score_choices(self, batch: object) -> tuple[torch.Tensor, torch.Tensor]:
            read, wanted = batch.input_ids, batch.targets  # type: ignore[attr-defined]
            guess = torch.where(read == ord("b"), ord(" "), ord("b"))
            scored = wanted != -100
            return torch.ones(int(scored.sum())), (guess == wanted)[scored]

        network = case.network

    rows = case.lay_out("lm-eval-lambada")
    scores = score_benchmark_rows(Repeating(), rows, CPU)  # type: ignore[arg-type]
    assert scores.n_first_choices is not None
    assert scores.n_first_choices.tolist() == [2, 2, 1, 2]
    assert scores.n_scored.tolist() == [2, 3, 2, 2]
    assert describe_scores("b", rows, scores).evaluation.accuracy == 0.5


def test_first_choices_are_the_most_likely_tokens(folder: Path, tmp_path: Path) -> None:
    case = make_case(folder, tmp_path, *PASSAGES)
    rows = case.lay_out("lm-eval-lambada")
    scorer = make_scorer(case.network, "float32")
    scores = score_benchmark_rows(scorer, rows, CPU)
    expected = []
    for passage in PASSAGES:
        context, _, word = passage.rpartition(" ")
        target = f" {word}".encode()
        ids = [*(list(context.encode()) or [START]), *target]
        guesses = log_probabilities(case.network, ids).argmax(-1)[-len(target) :]
        expected.append(int((guesses == torch.tensor(list(target))).sum()))
    assert scores.n_first_choices is not None
    assert scores.n_first_choices.tolist() == expected


@pytest.mark.parametrize("protocol", ["rows-text", "document"])
def test_units_stand_where_the_whole_text_is_scored(
    protocol: str, tiny_gpt2: Path, tmp_path: Path
) -> None:
    case = make_case(tiny_gpt2, tmp_path, "One boat.", "", "Two boats came.")
    found = case.score(protocol)
    assert (found.n_words, found.n_bytes, found.n_unscored) == (5, 24, 0)
    assert found.bits_per_byte == pytest.approx(found.sum_nats / 24 / math.log(2))
    assert found.word_perplexity == pytest.approx(math.exp(found.sum_nats / 5))
    assert found.byte_perplexity == pytest.approx(math.exp(found.cross_entropy))  # a byte a token


def test_cut_documents_are_counted_and_leave_no_units(tiny_gpt2: Path, tmp_path: Path) -> None:
    case = make_case(tiny_gpt2, tmp_path, "One boat.", "Two boats came.", "Three.")
    found = case.score("rows-text", length=10)
    assert (found.n_documents_cut, found.n_unscored) == (1, 6)
    assert (found.word_perplexity, found.byte_perplexity, found.bits_per_byte) == (None,) * 3


def test_padding_leaves_no_units(tiny_gpt2: Path, tmp_path: Path) -> None:
    found = make_case(tiny_gpt2, tmp_path, "One boat.").score("paper-padded")
    assert (found.n_unscored, found.bits_per_byte) == (0, None)


def test_first_token_of_a_joined_text_is_let_pass_and_those_of_blocks_are_not(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    case = make_case(tiny_gpt2, tmp_path, "One boat.", "Two boats came.")
    sliding, blocks = case.score("sliding-8-4"), case.score("blocks-8")
    assert (sliding.n_unscored, blocks.n_unscored) == (1, 4)
    assert sliding.bits_per_byte == pytest.approx(sliding.sum_nats / 26 / math.log(2))
    assert blocks.bits_per_byte is None


@pytest.mark.parametrize("protocol", ["rows-text", "paper-padded", "document", "lm-eval-wikitext"])
def test_scores_are_kept_by_document(protocol: str, tiny_gpt2: Path, tmp_path: Path) -> None:
    long = "A long line that is cut into two windows of the context, since it does not fit in one."
    case = make_case(tiny_gpt2, tmp_path, "One boat.", long, "Two.")
    found = case.store(protocol)
    assert found.unit == "document"
    assert len(found.nats) == len(found.n_targets) == found.evaluation.n_documents == 3
    assert sum(found.nats) == pytest.approx(found.evaluation.sum_nats)
    assert sum(found.n_targets) == found.evaluation.n_tokens


def test_scores_of_a_joined_text_are_kept_by_window(tiny_gpt2: Path, tmp_path: Path) -> None:
    case = make_case(tiny_gpt2, tmp_path, "One boat.", "Two boats came.")
    found = case.store("blocks-8")
    assert (found.unit, len(found.nats)) == ("window", 4)


def test_windows_of_a_document_are_added_up(tiny_gpt2: Path, tmp_path: Path) -> None:
    text = "b" * (2 * CONTEXT)
    case = make_case(tiny_gpt2, tmp_path, text, "Two.")
    rows, found = case.lay_out("document"), case.store("document")
    scores = score_benchmark_rows(make_scorer(case.network, "float32"), rows, CPU)
    assert rows.table.documents.tolist() == [0, 0, 0, 1]
    assert found.nats[0] == pytest.approx(scores.sum_nats[:3].sum())
    assert found.n_targets == (2 * CONTEXT, 4)
