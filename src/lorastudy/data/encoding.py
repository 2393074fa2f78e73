"""What a corpus is made from, texts or rows with answers: its key in the cache, and its tokens."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from lorastudy.data.answers import AnswerRules, digest_rules, encode_examples
from lorastudy.data.examples import digest_examples
from lorastudy.data.sources import Documents
from lorastudy.data.texts import Text, digest_texts, form_texts
from lorastudy.data.tokenising import TokenizerLike, encode_texts
from lorastudy.protocols import Form


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """One document of n tokens."""

    ids: NDArray[np.int64]  # (n,)
    counted: str  # the text in which words and bytes are counted
    n_context: int = 0  # first tokens that are read and never scored
    marks: NDArray[np.uint8] | None = None  # (n,) of a row with an answer


@dataclass(frozen=True, slots=True)
class CorpusSource:
    """The documents of a corpus before they are tokenised."""

    documents: Documents
    texts: tuple[Text, ...]  # none for rows with answers
    sizes: tuple[int, ...]  # documents of each source
    digest: str  # SHA-256 of the content
    form: Form
    end: int | None  # token put after every text; None: nothing is
    rules: AnswerRules

    @classmethod
    def of(
        cls,
        documents: Documents,
        form: Form,
        *,
        limit: int | None,
        end: int | None,
        rules: AnswerRules,
    ) -> "CorpusSource":
        """The first `limit` documents that `form` makes of texts; or all rows with answers."""
        if documents.examples:
            sizes = documents.sizes or (len(documents.examples),)
            digest = digest_examples(documents.examples)
            return cls(documents, (), sizes, digest, form, None, rules)
        # each source by itself, so that no document and no row is of two
        ends = accumulate(documents.sizes or (len(documents.texts),), initial=0)
        formed = [form_texts(documents.texts[i:j], form)[:limit] for i, j in pairwise(ends)]
        texts = tuple(text for of_source in formed for text in of_source)
        sizes = tuple(map(len, formed))
        return cls(documents, texts, sizes, digest_texts(texts), form, end, rules)

    def key(self, layout: str, tokenizer: TokenizerLike) -> str:
        """The name of the corpus in a cache: 32 hex digits over everything that decides it."""
        parts: list[object] = [layout, self.digest, tokenizer.digest, tokenizer.vocabulary_size]
        if self.documents.examples:
            parts.append(digest_rules(tokenizer, self.rules))
        else:
            parts += [self.form] if self.end is None else [self.form, self.end]
        return hashlib.sha256(repr(tuple(parts)).encode()).hexdigest()[:32]

    def encode(self, tokenizer: TokenizerLike) -> Iterator[EncodedDocument]:
        """The tokens of each document.

        Raises:
            ConfigError: The rules do not fit the rows.
            InputError: A document cannot be encoded; see `encode_texts` and `encode_examples`.
        """
        if self.documents.examples:
            for row in encode_examples(self.documents.examples, tokenizer, self.rules):
                yield EncodedDocument(row.ids, row.text, marks=row.marks)
            return
        found = encode_texts(self.texts, self.form, tokenizer, self.documents.origin)
        for text, (ids, n_read) in zip(self.texts, found, strict=True):
            whole = ids if self.end is None or not len(ids) else np.append(ids, self.end)
            yield EncodedDocument(whole, text.counted, n_read)
