"""What a study loses of a text is counted: cut off, too short for a row, or unknown."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lorastudy.data.corpus import Corpus, prepare_corpus
from lorastudy.data.rows import RowTable, cut_lines, cut_stream, cut_windows
from lorastudy.data.sources import Documents
from lorastudy.data.text_counts import count_overlap, count_text
from lorastudy.model.tokenizer import load_tokenizer
from lorastudy.store.counts import Overlap, TextCounts

TEXTS = ("x" * 100, "yes", "z" * 10)  # one token per byte
PREFIX = 256


@pytest.mark.parametrize(
    ("cut", "n_dropped"),
    [
        (lambda offsets: cut_lines(offsets, 11, PREFIX), 90),
        (lambda offsets: cut_lines(offsets, 101, PREFIX), 0),
        (lambda offsets: cut_stream(offsets, 8), 4 + 3 + 2),
        (lambda offsets: cut_windows(offsets, length=16, stride=8), 0),
    ],
)
def test_tokens_that_stand_in_no_row_are_counted(
    cut: Callable[[NDArray[np.int64]], RowTable],
    n_dropped: int,
    byte_tokenizer: Path,
    tmp_path: Path,
) -> None:
    documents = Documents(TEXTS, "made here", None)
    corpus = prepare_corpus(documents, load_tokenizer(byte_tokenizer), tmp_path, form="texts")
    counts = count_text(corpus, cut(corpus.offsets), ord("y"))
    assert counts == TextCounts(3, 113, n_dropped, n_unknown=1)
    assert counts.dropped_share == n_dropped / 113
    assert counts.unknown_share == 1 / 113


def test_tokenizer_of_bytes_knows_every_text(byte_tokenizer: Path) -> None:
    assert load_tokenizer(byte_tokenizer).unknown_id is None


def test_documents_are_shared_if_tokens_and_bytes_are_equal(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    def make(*texts: str) -> Corpus:
        tokenizer = load_tokenizer(byte_tokenizer)
        return prepare_corpus(Documents(texts, "here", None), tokenizer, tmp_path, form="texts")

    trained, tested = make("one", "two", "three"), make(" two ", "four", "twotwo")
    assert count_overlap("test", tested, trained) == Overlap("test", 1, 3)
    # unknown tokens make different texts equal
    longer = replace(tested, n_bytes=tested.n_bytes + 1)
    assert count_overlap("test", longer, trained).documents == 0
