"""What a study loses of a text is counted: cut off, too short for a row, or unknown."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from lorastudy.data.corpus import Corpus, prepare_corpus
from lorastudy.data.rows import RowTable, cut_lines, cut_stream, cut_windows
from lorastudy.data.sources import Documents, join_documents
from lorastudy.data.text_counts import count_overlap, count_text, find_repeated
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


@pytest.mark.parametrize(
    ("normaliser", "text", "n_altered"),
    [
        (normalizers.Lowercase(), "Two LINES\n of\u3000Text", 1 + 5 + 1),
        (
            normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
            "na\u00efve Caf\u00e9",
            2,
        ),
        (normalizers.NFKC(), "\uff34\uff4f \u00bd", 3),
        (normalizers.Replace("ba", "xy"), "ba" * 400 + "c", 800),  # also in a long word
        (normalizers.Prepend("\u2581"), "Two LINES", 0),  # a space in other form
        (normalizers.NFC(), "nai\u0308ve \u1112\u1161\u11ab \u09dc", 0),  # equal in Unicode
        (normalizers.NFD(), "na\u00efve", 0),
        (normalizers.ByteLevel(), "na\u00efve", 0),  # its decoder finds the text again
        (None, "Two LINES", 0),
    ],
)
def test_letters_that_a_tokenizer_changes_are_counted(
    normaliser: normalizers.Normalizer | None,
    text: str,
    n_altered: int,
    byte_tokenizer: Path,
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(byte_tokenizer, tmp_path / "tokenizer"))
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if normaliser is not None:
        whole.normalizer = normaliser
    if isinstance(normaliser, normalizers.ByteLevel):
        whole.pre_tokenizer = pre_tokenizers.Sequence([])
    whole.save(str(folder / "tokenizer.json"))
    documents = Documents((text, "x y"), "made here", None)
    corpus = prepare_corpus(documents, load_tokenizer(folder), tmp_path, form="texts")
    counts = count_text(corpus, cut_stream(corpus.offsets, 2), None)
    n_letters = len("".join(text.split())) + 2
    assert (counts.n_altered, counts.n_letters) == (n_altered, n_letters if n_altered else 0)
    assert counts.is_altered == bool(n_altered)


def test_letters_of_the_first_part_of_a_corpus_are_looked_at(
    byte_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorastudy.data.corpus._LOOKED_AT", 7)
    tokenizer = load_tokenizer(byte_tokenizer)
    tokenizer.__dict__["count_altered"] = len  # as if every character were changed
    documents = Documents(("a b", "cdefgh", "i"), "made here", None)
    corpus = prepare_corpus(documents, tokenizer, tmp_path, form="texts")
    assert corpus.n_letters.tolist() == [2, 4, 0] and corpus.n_altered.tolist() == [3, 4, 0]
    assert corpus.n_bytes.tolist() == [3, 6, 1]


def test_documents_that_an_earlier_source_has_are_counted(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    parts = [Documents(texts, "here", None) for texts in (("a", "b"), ("b", "c"), ("c", "b", "b"))]
    tokenizer = load_tokenizer(byte_tokenizer)
    corpus = prepare_corpus(join_documents(parts), tokenizer, tmp_path, form="texts")
    assert find_repeated(corpus) == ((0, None), (1, 0), (3, 1))


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
