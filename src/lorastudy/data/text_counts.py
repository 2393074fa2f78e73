"""Count what a study loses of a text, and how much of it repeats another one."""

import hashlib
from itertools import accumulate, pairwise

import numpy as np

from lorastudy.data.corpus import Corpus
from lorastudy.data.rows import RowTable, find_read_tokens
from lorastudy.store.counts import AnswerCounts, Overlap, TextCounts


def count_text(
    corpus: Corpus, table: RowTable, unknown_id: int | None, kind: str = ""
) -> TextCounts:
    """What of `corpus` the rows of `table` read.

    Args:
        corpus: The documents.
        table: All rows that are cut from them; rows may overlap.
        unknown_id: Token for unknown text; None: the tokenizer knows every text.
        kind: What rows with answers consist of.
    """
    n_read = int(np.count_nonzero(find_read_tokens(table, corpus.n_tokens)))
    is_unknown = corpus.tokens == unknown_id if unknown_id is not None else np.zeros(0)
    n_altered = int(corpus.n_altered.sum())
    return TextCounts(
        n_documents=corpus.n_documents,
        n_tokens=corpus.n_tokens,
        n_dropped=corpus.n_tokens - n_read,
        n_unknown=int(np.count_nonzero(is_unknown)),
        answers=None if corpus.marks is None else _count_answers(corpus, table, kind),
        n_letters=int(corpus.n_letters.sum()) if n_altered else 0,
        n_altered=n_altered,
    )


def _count_answers(corpus: Corpus, table: RowTable, kind: str) -> AnswerCounts:
    is_cut = table.begins > corpus.offsets[table.documents]
    return AnswerCounts(
        kind=kind,
        n_scored=int(table.n_scored.sum()),
        n_cut=int(np.count_nonzero(is_cut)),
        n_left_out=corpus.n_documents - table.n_rows,
    )


def count_overlap(benchmark: str | None, corpus: Corpus, trained: Corpus) -> Overlap:
    """The documents of `corpus`, those of `benchmark`, that `trained` contains as well."""
    known = set(_digest_documents(trained))
    shared = sum(digest in known for digest in _digest_documents(corpus))
    return Overlap(benchmark, shared, corpus.n_documents)


def find_repeated(corpus: Corpus) -> tuple[tuple[int, int | None], ...]:
    """For each source of `corpus`: how many of its documents an earlier source has, and which.

    Of several earlier sources, it is the one that has most of them; None: there is none.
    """
    digests = _digest_documents(corpus)
    ends = list(accumulate(corpus.sizes, initial=0))
    sources = [digests[begin:end] for begin, end in pairwise(ends)]
    known = [set(source) for source in sources]
    found: list[tuple[int, int | None]] = []
    for number, source in enumerate(sources):
        shared = [sum(digest in known[earlier] for digest in source) for earlier in range(number)]
        most = max(shared, default=0)
        found.append((most, shared.index(most) if most else None))
    return tuple(found)


def _digest_documents(corpus: Corpus) -> list[bytes]:
    """A hash of each document's tokens and bytes, so that unknown tokens do not make two equal."""
    tokens, offsets = corpus.tokens, corpus.offsets.tolist()
    return [
        hashlib.sha256(tokens[begin:end].tobytes() + size.to_bytes(8, "big")).digest()
        for (begin, end), size in zip(pairwise(offsets), corpus.n_bytes.tolist(), strict=True)
    ]
