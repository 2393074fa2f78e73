"""What becomes of a text on its way to a model: how much of it is read, and how much is known."""

from dataclasses import dataclass

import numpy as np

from lorastudy.data.corpus import Corpus
from lorastudy.data.rows import RowTable


@dataclass(frozen=True, slots=True)
class TextCounts:
    """Tokens of a source, and those of them that a study loses."""

    n_documents: int
    n_tokens: int
    n_dropped: int  # tokens that stand in no row, since rows are cut off or are too short
    n_unknown: int  # tokens that stand for any text that the tokenizer does not know

    @property
    def dropped_share(self) -> float:
        """Share of tokens that are never read, from 0 to 1."""
        return self.n_dropped / max(1, self.n_tokens)

    @property
    def unknown_share(self) -> float:
        """Share of tokens that are unknown ones, from 0 to 1."""
        return self.n_unknown / max(1, self.n_tokens)


def count_text(corpus: Corpus, table: RowTable, unknown_id: int | None) -> TextCounts:
    """What of `corpus` the rows of `table` read.

    Args:
        corpus: The documents.
        table: All rows that are cut from them; rows may overlap.
        unknown_id: Token for unknown text; None: the tokenizer knows every text.
    """
    # +1 where a row begins and -1 where one ends; a token is read while the sum is above 0
    borders = np.zeros(corpus.n_tokens + 1, dtype=np.int64)
    np.add.at(borders, table.begins, 1)
    np.add.at(borders, table.ends, -1)
    n_read = int(np.count_nonzero(borders.cumsum()[:-1]))
    is_unknown = corpus.tokens == unknown_id if unknown_id is not None else np.zeros(0)
    return TextCounts(
        n_documents=corpus.n_documents,
        n_tokens=corpus.n_tokens,
        n_dropped=corpus.n_tokens - n_read,
        n_unknown=int(np.count_nonzero(is_unknown)),
    )
