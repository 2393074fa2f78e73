"""Losses of a text in units that do not depend on a tokenizer: per word, per byte, bits per byte.

They are defined only if the nats are those of the whole text, since words and bytes are counted in
the whole text. The very first token of a joined text has nothing before it and cannot be scored.
This one missing token is accepted, and counted in `n_unscored`.
"""

import math
from dataclasses import dataclass

import numpy as np

from lorastudy.data.corpus import Corpus
from lorastudy.data.rows import RowTable
from lorastudy.loss import perplexity_of
from lorastudy.protocols import Protocol


@dataclass(frozen=True, slots=True)
class TextCoverage:
    """How much of a benchmark's text a protocol scores."""

    n_words: int  # of the original text, scored or not
    n_bytes: int  # UTF-8, of the same
    n_unscored: int  # tokens of the text that are not targets
    n_documents_cut: int  # part of each is not even read
    is_whole: bool  # the scored nats are those of the whole text


@dataclass(frozen=True, slots=True)
class TextUnits:
    """Perplexities per word and per byte, and bits per byte."""

    word_perplexity: float
    byte_perplexity: float
    bits_per_byte: float


def measure_coverage(protocol: Protocol, corpus: Corpus, table: RowTable) -> TextCoverage:
    """How much of `corpus` the rows of `table` read and score."""
    n_unscored = corpus.n_tokens - int(table.n_scored.sum())
    let_pass = 1 if protocol.joins_documents else 0
    return TextCoverage(
        n_words=int(corpus.n_words.sum()),
        n_bytes=int(corpus.n_bytes.sum()),
        n_unscored=n_unscored,
        n_documents_cut=_count_cut(corpus, table),
        is_whole=n_unscored <= let_pass and not protocol.scores_padding,
    )


def convert_nats(sum_nats: float, coverage: TextCoverage) -> TextUnits | None:
    """`sum_nats` per word and per byte; None if they are not those of the whole text."""
    if not coverage.is_whole:
        return None
    nats_per_byte = sum_nats / coverage.n_bytes
    return TextUnits(
        word_perplexity=perplexity_of(sum_nats / coverage.n_words),
        byte_perplexity=perplexity_of(nats_per_byte),
        bits_per_byte=nats_per_byte / math.log(2),
    )


def _count_cut(corpus: Corpus, table: RowTable) -> int:
    """Number of documents whose rows, which follow each other, do not cover all tokens."""
    n_documents = len(corpus.offsets) - 1
    first = np.full(n_documents, corpus.n_tokens, dtype=np.int64)
    last = np.zeros(n_documents, dtype=np.int64)
    np.minimum.at(first, table.documents, table.begins)
    np.maximum.at(last, table.documents, table.ends)
    is_read = last > 0
    sizes = np.diff(corpus.offsets)
    return int(np.count_nonzero(is_read & (last - first < sizes)))
