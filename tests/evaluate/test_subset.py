"""A random part of a benchmark, and its standard error."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lorastudy.config.models import Benchmark, Rows
from lorastudy.data.rows import RowTable, cut_lines
from lorastudy.evaluate.score import RowScores, average_nats
from lorastudy.evaluate.subset import draw_subset, estimate_error, units_of
from lorastudy.model.base import load_base
from lorastudy.model.scoring import make_scorer
from lorastudy.protocols import find_protocol
from lorastudy.run.readers import make_reader
from lorastudy.run.scores import describe_scores, score_benchmark_rows
from lorastudy.store.places import Places
from lorastudy.store.records import EvaluationRecord

LINES, WINDOWS = find_protocol("rows-text"), find_protocol("blocks-8")


def table_of(lengths: list[int]) -> RowTable:
    return cut_lines(np.concatenate([[0], np.cumsum(lengths)]), 50, 0)


def scores_of(nats: np.ndarray, counts: np.ndarray) -> RowScores:
    return RowScores(nats, counts, np.zeros(4), np.zeros(4, dtype=np.int64), 0.0)


def test_a_subset_is_drawn_alike_every_time_and_keeps_the_order() -> None:
    table = table_of([5] * 100)
    first, second = (draw_subset(LINES, table, 30) for _ in range(2))
    assert first.n_rows == 30
    assert first.documents.tolist() == second.documents.tolist()
    assert first.documents.tolist() == sorted(set(first.documents.tolist()))
    assert first.documents.tolist() != list(range(30))


def test_a_document_is_drawn_with_all_of_its_rows() -> None:
    table = table_of([5] * 10)
    halves = table.select(np.repeat(np.arange(10), 2))  # every document in two rows
    drawn = draw_subset(LINES, halves, 4)
    assert drawn.n_rows == 8
    assert np.all(np.unique(drawn.documents, return_counts=True)[1] == 2)


def test_windows_are_drawn_where_all_text_is_one_document() -> None:
    table = table_of([8] * 20)
    assert len(set(units_of(WINDOWS, table).tolist())) == 20
    assert draw_subset(WINDOWS, table, 5).n_rows == 5


def test_the_standard_error_is_the_spread_of_many_subsets() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(2, 50, size=400)
    nats = counts * rng.gamma(4.0, 1.0, size=400)
    table = table_of(counts.tolist())
    losses, errors = [], []
    for _ in range(2000):
        rows = np.sort(rng.permutation(400)[:100])
        scores = scores_of(nats[rows], counts[rows])
        losses.append(average_nats(LINES, scores))
        errors.append(estimate_error(LINES, scores, table.select(rows), 400))
    assert np.mean(errors) == pytest.approx(np.std(losses), rel=0.06)


def test_the_error_of_a_mean_over_documents_is_that_of_the_textbook() -> None:
    """W. G. Cochran, Sampling Techniques, formula 2.20: drawn without replacement."""
    nats = np.array([3.0, 1.0, 4.0, 1.5, 9.0])
    scores, table = scores_of(nats, np.ones(5, dtype=np.int64)), table_of([2] * 5)
    found = estimate_error(replace(LINES, average="documents"), scores, table, 20)
    assert found == pytest.approx(np.std(nats, ddof=1) / np.sqrt(5) * np.sqrt(1 - 5 / 20))


@pytest.mark.parametrize("average", ["tokens", "documents", "batch-means"])
def test_all_of_it_leaves_no_error(average: str) -> None:
    protocol = replace(LINES, average=average)
    counts = np.arange(2, 30)
    table, scores = table_of(counts.tolist()), scores_of(counts * 1.5 + 1, counts)
    assert estimate_error(protocol, scores, table, 28) == 0
    assert estimate_error(protocol, scores, table, 100) > 0


def test_one_unit_says_nothing_of_the_others() -> None:
    scores = scores_of(np.array([3.0]), np.array([2]))
    assert estimate_error(LINES, scores, table_of([2]), 100) is None


def score(folder: Path, texts: Path, sample: int | None) -> EvaluationRecord:
    benchmark = Benchmark(name="b", path=texts.name, protocols=("rows-text",), sample=sample)
    reader = make_reader(folder, Places(texts.parent, cache=texts.parent / "cache"))
    rows = reader.benchmark_rows(benchmark, "rows-text", Rows(cut="lines", length=40))
    scorer = make_scorer(load_base(folder, device=torch.device("cpu")), "float32")
    scores = score_benchmark_rows(scorer, rows, torch.device("cpu"))
    return describe_scores("b", rows, scores).evaluation


def test_a_sampled_benchmark_is_recorded_with_its_error(tiny_gpt2: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"line {n} of the text" * (1 + n % 3) for n in range(40)))
    whole, part = (score(tiny_gpt2, texts, sample) for sample in (None, 25))
    assert (whole.n_population, whole.standard_error, whole.n_documents) == (None, None, 40)
    assert (part.n_population, part.n_documents) == (40, 25)
    assert part.standard_error is not None and part.standard_error > 0
    assert abs(part.cross_entropy - whole.cross_entropy) < 4 * part.standard_error
