"""What becomes a document, and what is counted: strings against strings written out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lorastudy.config.models import Source
from lorastudy.data.corpus import prepare_corpus
from lorastudy.data.sources import Documents, read_documents
from lorastudy.data.texts import (
    Text,
    count_words,
    detokenise_page,
    form_texts,
    join_pages,
    split_last_word,
)
from lorastudy.errors import InputError

ROWS = ["", " = One = \n", "", " First @-@ line . \n", " = = Part = = \n", "", " = Two = \n", ""]


@dataclass(frozen=True)
class Spelling:
    """A token a byte; adds byte 1 in front where it is asked as configured."""

    vocabulary_size: int = 256
    digest: str = "spelling"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    def encode_as_configured(self, texts: Sequence[str]) -> list[list[int]]:
        return [[1, *text.encode()] for text in texts]

    def count_altered(self, text: str) -> int:
        return 0


def test_rows_of_wikitext_are_joined_to_the_lines_of_their_pages() -> None:
    assert join_pages(ROWS) == (
        " = One = \n \n First @-@ line . \n = = Part = = \n ",
        " = Two = \n \n",
    )


def test_raw_texts_are_those_of_texts_with_their_white_space() -> None:
    raw = form_texts(ROWS, "raw-texts")
    assert [text.text for text in raw] == [row for row in ROWS if row]
    assert [text.text.strip() for text in raw] == [text.text for text in form_texts(ROWS, "texts")]


def test_text_before_the_first_heading_is_a_page() -> None:
    assert join_pages(["Intro.\n", " = One = \n"]) == ("Intro.", " = One = \n")


def test_rows_without_a_heading_are_pages_as_they_are() -> None:
    assert join_pages(["a b\n", "", " \n", " = = c = = \n"]) == ("a b\n", " = = c = = \n")


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("the 1 @,@ 000 well @-@ known", "the 1,000 well-known"),
        ("so , said he ; it 's ( not ) mine .", "so, said he; it's (not) mine ."),
        (' = = = Sub = = = \n \n " Yes ! " he said . ', ' === Sub ===\n\n"Yes!" he said. '),
        ("the boys ' hats , 20 ° C [ 1 ]", "the boys' hats, 20°C [1]"),
        ("player N of { a }", "player 1 of {a}"),
    ],
)
def test_detokenised_page_reads_as_text(page: str, expected: str) -> None:
    assert detokenise_page(page) == expected


@pytest.mark.parametrize(
    ("text", "whole", "context"),
    [
        ("the cat sat", "the cat sat", "the cat"),
        ("two  spaces", "two  spaces", "two"),
        ("end ", "end ", "end"),
        ("word", " word", ""),
        (" word", " word", ""),
    ],
)
def test_last_word_is_what_follows_the_last_space(text: str, whole: str, context: str) -> None:
    assert split_last_word(text) == Text(whole, text, context)


def test_blank_texts_have_no_last_word() -> None:
    assert [t.text for t in form_texts(["", " \n", "a b"], "last-words")] == ["a b"]


def test_words_and_bytes_of_a_page_are_those_before_detokenisation(tmp_path: Path) -> None:
    read = Documents(tuple(ROWS), "made here", None)
    corpus = prepare_corpus(read, Spelling(), tmp_path, form="pages")
    pages = join_pages(ROWS)
    assert corpus.n_words.tolist() == [len(re.split(r"\s+", page)) for page in pages]
    assert corpus.n_bytes.tolist() == [len(page.encode()) for page in pages]
    first = bytes(corpus.tokens[: corpus.offsets[1]].tolist())
    assert first == b"\x01" + detokenise_page(pages[0]).encode()


def test_limit_counts_pages(tmp_path: Path) -> None:
    read = Documents(tuple(ROWS), "made here", None)
    corpus = prepare_corpus(read, Spelling(), tmp_path, form="pages", limit=1)
    assert corpus.n_documents == 1


def test_context_of_a_last_word_is_counted_as_it_is_encoded_alone(tmp_path: Path) -> None:
    read = Documents(("ab cd", "word"), "made here", None)
    corpus = prepare_corpus(read, Spelling(), tmp_path, form="last-words")
    tokens = bytes(corpus.tokens.tolist())
    assert tokens == b"\x01ab cd" + b" word"  # alone, a word gets the start token of its row
    assert corpus.n_context.tolist() == [3, 0]


def test_forms_of_one_text_are_different_entries(tmp_path: Path) -> None:
    read = Documents(("a b",), "made here", None)
    forms = ("texts", "stream", "pages", "last-words")
    made = {prepare_corpus(read, Spelling(), tmp_path, form=form).folder for form in forms}
    assert len(made) == 4


def test_last_word_without_a_token_of_its_own_is_refused(tmp_path: Path) -> None:
    class Merging(Spelling):
        def encode_as_configured(self, texts: Sequence[str]) -> list[list[int]]:
            return [[1] for _ in texts]

    with pytest.raises(InputError, match="document 2: no token belongs to its last word"):
        prepare_corpus(
            Documents(("word", "a b"), "made here", None), Merging(), tmp_path, form="last-words"
        )


def test_pages_of_wikitext_2_are_those_that_lm_evaluation_harness_reads(shared_data: Path) -> None:
    """Bytes and words a byte follow from its published perplexities (issue 806), to 1e-12."""
    from math import log

    source = Source(id="Salesforce/wikitext", config="wikitext-2-raw-v1", split="test")
    pages = join_pages(read_documents(source, mirror=shared_data, offline=True).texts)
    n_words, n_bytes = sum(map(count_words, pages)), sum(len(p.encode()) for p in pages)
    assert (len(pages), n_words, n_bytes) == (62, 241_335, 1_290_527)
    published = log(8.792073612124492) / log(1.5015845643537054)
    assert n_bytes / n_words == pytest.approx(published, rel=1e-12)
