"""A corpus is whole, keyed by what made it, and made once whoever asks."""

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Queue

import numpy as np
import pytest

from lorastudy.config.models import Source
from lorastudy.data import tokenising
from lorastudy.data.corpus import (
    RECORD,
    open_corpus,
    prepare_corpus,
)
from lorastudy.data.rows import cut_lines
from lorastudy.data.sources import Documents, read_documents
from lorastudy.data.texts import Text, count_words, digest_texts
from lorastudy.errors import InputError, StorageError


@dataclass(frozen=True)
class ByteTokenizer:
    """One id a byte, shifted by `first`; writes a file whenever it is asked."""

    vocabulary_size: int = 256
    digest: str = "bytes"
    first: int = 0
    calls: Path | None = None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        if self.calls is not None:
            (self.calls / f"{os.getpid()}").touch()
        return [[self.first + byte for byte in text.encode()] for text in texts]

    def count_altered(self, text: str) -> int:
        return 0


def documents(*texts: str) -> Documents:
    return Documents(texts, "made here", None)


TEXTS = documents("ab", "", " cde\n", "  \n", "é")


def test_each_filled_text_is_a_document_without_white_space_at_its_ends(tmp_path: Path) -> None:
    corpus = prepare_corpus(TEXTS, ByteTokenizer(), tmp_path, form="texts")
    assert bytes(corpus.tokens.tolist()).decode() == "abcdeé"
    assert corpus.offsets.tolist() == [0, 2, 5, 7]
    assert corpus.n_bytes.tolist() == [2, 3, 2]
    assert corpus.n_words.tolist() == [1, 1, 1]
    assert (corpus.n_documents, corpus.n_tokens) == (3, 7)


def test_joined_texts_are_one_document_with_blank_ones_counted(tmp_path: Path) -> None:
    corpus = prepare_corpus(TEXTS, ByteTokenizer(), tmp_path, form="stream")
    text = "ab\n\n\n\n cde\n\n\n  \n\n\né"
    assert bytes(corpus.tokens.tolist()).decode() == text
    assert corpus.offsets.tolist() == [0, len(text.encode())]
    assert corpus.n_words.tolist() == [3]


@pytest.mark.parametrize(
    ("text", "n_words"), [("", 1), ("a", 1), ("a b", 2), (" a  b\n", 4), ("a\u2003b", 2)]
)
def test_words_are_counted_as_lm_evaluation_harness_does(text: str, n_words: int) -> None:
    assert count_words(text) == n_words


@pytest.mark.parametrize(("vocabulary_size", "dtype"), [(65_536, "uint16"), (65_537, "uint32")])
def test_ids_take_the_smallest_type_that_holds_the_vocabulary(
    tmp_path: Path, vocabulary_size: int, dtype: str
) -> None:
    tokenizer = ByteTokenizer(vocabulary_size, first=vocabulary_size - 256)
    corpus = prepare_corpus(documents("a\u00ff"), tokenizer, tmp_path, form="texts")
    assert corpus.tokens.dtype == np.dtype(dtype)
    assert corpus.tokens.max() == vocabulary_size - 256 + 0xC3


def test_documents_beyond_one_batch_keep_their_order(tmp_path: Path) -> None:
    texts = [str(number) for number in range(2_500)]
    corpus = prepare_corpus(documents(*texts), ByteTokenizer(), tmp_path, form="texts")
    last = corpus.tokens[corpus.offsets[-2] : corpus.offsets[-1]]
    assert bytes(last.tolist()) == b"2499"
    assert corpus.n_documents == 2_500


def test_long_documents_are_given_to_the_tokenizer_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenising, "_CHARACTERS", 100)
    monkeypatch.setattr(tokenising, "_BATCH", 4)
    given: list[list[int]] = []

    class Noting(ByteTokenizer):
        def encode(self, texts: Sequence[str]) -> list[list[int]]:
            given.append([len(text) for text in texts])
            return super().encode(texts)

    sizes = [30, 70, 1, 250, 2, 98, 99, 99, *[1] * 6]
    texts = [chr(97 + n) * size for n, size in enumerate(sizes)]
    corpus = prepare_corpus(documents(*texts), Noting(), tmp_path, form="texts")
    assert given == [[30, 70], [1], [250], [2, 98], [99], [99, 1], [1] * 4, [1]]
    assert bytes(corpus.tokens.tolist()).decode() == "".join(texts)


def test_line_of_ten_megabytes_is_one_document(tmp_path: Path) -> None:
    corpus = prepare_corpus(documents("x" * 10_000_000), ByteTokenizer(), tmp_path, form="texts")
    assert corpus.offsets.tolist() == [0, 10_000_000]


def test_second_call_does_not_tokenise(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    tokenizer = ByteTokenizer(calls=calls)
    first = prepare_corpus(TEXTS, tokenizer, tmp_path / "cache", form="texts")
    (calls / f"{os.getpid()}").unlink()
    second = prepare_corpus(TEXTS, tokenizer, tmp_path / "cache", form="texts")
    assert second.folder == first.folder
    assert second.record == first.record
    assert not list(calls.iterdir())


def test_corpus_of_another_tokenizer_text_or_join_is_another_entry(tmp_path: Path) -> None:
    made = [
        prepare_corpus(TEXTS, ByteTokenizer(), tmp_path, form="texts"),
        prepare_corpus(TEXTS, ByteTokenizer(digest="other"), tmp_path, form="texts"),
        prepare_corpus(TEXTS, ByteTokenizer(300), tmp_path, form="texts"),
        prepare_corpus(TEXTS, ByteTokenizer(), tmp_path, form="stream"),
        prepare_corpus(documents("a", "b"), ByteTokenizer(), tmp_path, form="texts"),
        prepare_corpus(documents("ab"), ByteTokenizer(), tmp_path, form="texts"),
    ]
    assert len({corpus.folder for corpus in made}) == len(made)


def test_digest_tells_where_documents_end(tmp_path: Path) -> None:
    assert digest_texts([Text("a", "a"), Text("b", "b")]) != digest_texts([Text("ab", "ab")])
    one = prepare_corpus(documents("ab"), ByteTokenizer(), tmp_path, form="texts")
    two = prepare_corpus(documents("a", "b"), ByteTokenizer(), tmp_path, form="texts")
    again = prepare_corpus(
        documents("ab", " "), ByteTokenizer(digest="same"), tmp_path, form="texts"
    )
    assert one.digest != two.digest
    assert one.digest == again.digest


def test_arrays_cannot_be_changed(tmp_path: Path) -> None:
    corpus = prepare_corpus(TEXTS, ByteTokenizer(), tmp_path, form="texts")
    for values in (corpus.tokens, corpus.offsets, corpus.n_bytes, corpus.n_words):
        assert not values.flags.writeable


@pytest.mark.parametrize(("first", "wrong"), [(1, 98), (-66, -1)])
def test_id_outside_the_vocabulary_is_refused_and_leaves_nothing(
    tmp_path: Path, first: int, wrong: int
) -> None:
    tokenizer = ByteTokenizer(vocabulary_size=98, first=first)
    place = f"made here, document 2: the tokenizer gives id {wrong},"
    with pytest.raises(InputError, match=place):
        prepare_corpus(documents("B", "BAa"), tokenizer, tmp_path, form="texts")
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_text_without_any_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the text has no token"):
        prepare_corpus(documents(" "), ByteTokenizer(), tmp_path, form="texts")


def flip_a_bit(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


DAMAGES = {
    "bit": flip_a_bit,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "documents.npz", RECORD])
def test_damaged_entry_is_made_again(tmp_path: Path, name: str, damage: str) -> None:
    first = prepare_corpus(TEXTS, ByteTokenizer(), tmp_path, form="texts")
    DAMAGES[damage](first.folder / name)
    with pytest.raises(StorageError, match=name):
        open_corpus(first.folder, check_hashes=True)
    second = prepare_corpus(TEXTS, ByteTokenizer(), tmp_path, form="texts")
    assert second.tokens.tolist() == list("abcdeé".encode())
    assert open_corpus(second.folder, check_hashes=True).record == first.record


def test_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    folder = prepare_corpus(TEXTS, ByteTokenizer(), tmp_path, form="texts").folder
    leftover = tmp_path / f".{folder.name}.1.partial"
    folder.rename(leftover)
    prepare_corpus(TEXTS, ByteTokenizer(), tmp_path, form="texts")
    assert not leftover.exists()


def test_cache_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="token cache"):
        prepare_corpus(TEXTS, ByteTokenizer(), tmp_path / "file" / "cache", form="texts")


def _prepare_at_once(cache: Path, barrier: Barrier, answers: Queue[bytes]) -> None:
    barrier.wait()
    tokenizer = ByteTokenizer(calls=cache.parent / "calls")
    corpus = prepare_corpus(TEXTS, tokenizer, cache, form="texts")
    answers.put(bytes(corpus.tokens.tolist()))


def test_eight_processes_get_one_whole_corpus(tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lorastudy.data.corpus"])
    barrier, answers = context.Barrier(8), context.Queue()
    arguments = (tmp_path / "cache", barrier, answers)
    processes = [context.Process(target=_prepare_at_once, args=arguments) for _ in range(8)]
    for process in processes:
        process.start()
    got = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert set(got) == {"abcdeé".encode()}
    assert len(list((tmp_path / "calls").iterdir())) == 1


@pytest.mark.parametrize(
    ("repository", "config", "n_rows", "text_share"),
    [
        ("Salesforce/wikitext", "wikitext-2-raw-v1", 2_891, 0.2733),
        ("EleutherAI/lambada_openai", None, 5_153, 0.2392),
    ],
)
def test_rows_and_their_text_share_are_those_of_the_published_study(
    *,
    tmp_path: Path,
    shared_data: Path,
    repository: str,
    config: str | None,
    n_rows: int,
    text_share: float,
) -> None:
    from lorastudy.model.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(shared_data / "openai-community/gpt2")
    source = Source(id=repository, config=config, split="test")
    read = read_documents(source, mirror=shared_data, offline=True)
    corpus = prepare_corpus(read, tokenizer, tmp_path, form="texts")
    table = cut_lines(corpus.offsets, 350, tokenizer.start_id)
    assert table.n_rows == n_rows
    assert round(int(table.n_scored.sum()) / (349 * n_rows), 4) == text_share


def test_joined_wikitext_has_the_tokens_that_others_report(
    tmp_path: Path, shared_data: Path
) -> None:
    from lorastudy.model.tokenizer import load_tokenizer

    source = Source(id="Salesforce/wikitext", config="wikitext-2-raw-v1", split="test")
    read = read_documents(source, mirror=shared_data, offline=True)
    corpus = prepare_corpus(
        read, load_tokenizer(shared_data / "openai-community/gpt2"), tmp_path, form="stream"
    )
    assert corpus.n_tokens == 287_644  # the perplexity guide of transformers
