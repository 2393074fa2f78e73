"""Rows of a study as the model sees them, token by token, with counts of every class of token.

Nothing is trained, and no weight is loaded. The rows are those that `run.inputs` hands to training
and to scoring, so what a preview shows is what happens. Of a benchmark with a `sample`, it shows
all rows from which the sample is drawn.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lorastudy.config.models import Part, Source, Study
from lorastudy.config.spec import expand_study
from lorastudy.data.batches import Padding
from lorastudy.data.corpus import Corpus
from lorastudy.data.rows import IntArray, RowTable, count_between, find_read_tokens
from lorastudy.model.base import quieten_libraries
from lorastudy.protocols import ANSWER_CLASSES
from lorastudy.run.inputs import Reader
from lorastudy.run.layout import lay_out_training
from lorastudy.run.readers import open_reader
from lorastudy.run.tasks import TaskItems
from lorastudy.store.places import Places
from lorastudy.study.preview_items import describe_items
from lorastudy.study.seen_rows import (
    SEEN_CLASSES,
    ClassCount,
    Preview,
    PreviewPart,
    PreviewRow,
    Segment,
    decode_tokens,
)

_MOST_NAMED = 5  # documents without a row


def preview_study(study: Study, places: Places, *, n_rows: int) -> Preview:
    """The first rows of each part of a study, its longest row, and counts of all rows.

    Args:
        study: What is trained and scored on.
        places: Where its inputs are.
        n_rows: How many rows of each part are shown besides the longest.

    Raises:
        ConfigError: Settings do not fit the rows or the model.
        InputError: Data or model files are missing or cannot be used.
    """
    quieten_libraries()
    reader = open_reader(study, places)
    rows, layout = study.data.rows, lay_out_training(expand_study(study)[0], reader)
    trained = (
        ("train", study.data.train_part, layout.corpus, layout.table),
        (
            "validation",
            study.data.validation_part,
            layout.validation_corpus,
            layout.validation_table,
        ),
    )
    parts = [
        _Part(reader, source, corpus, table, layout.padding, rows.length).describe(name, n_rows)
        for name, source, corpus, table in trained
    ]
    if layout.items_of_best is not None:
        parts.append(describe_items("data.best_by", layout.items_of_best, n_rows))
    for sampled in study.benchmarks:
        benchmark = sampled.model_copy(update={"sample": None})
        for name in benchmark.protocols:
            label, found = f"{benchmark.name}--{name}", reader.benchmark_part(benchmark, name, rows)
            if isinstance(found, TaskItems):
                parts.append(describe_items(label, found, n_rows))
                continue
            part = _Part(
                *(reader, benchmark, found.corpus, found.table, found.padding),
                length=found.protocol.length,
            )
            parts.append(part.describe(label, n_rows))
    return Preview(study.name, tuple(parts))


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one part, and what they were cut from."""

    reader: Reader
    source: Source | Part
    corpus: Corpus
    table: RowTable
    padding: Padding
    length: int

    def describe(self, name: str, n_rows: int) -> PreviewPart:
        table, corpus = self.table, self.corpus
        longest = int(np.argmax(table.lengths))
        shown = [*range(min(n_rows, table.n_rows))]
        shown += [longest] if longest not in shown else []
        has_row = np.zeros(corpus.n_documents, dtype=bool)
        has_row[table.documents] = True
        missing = np.flatnonzero(~has_row).tolist()
        is_read = find_read_tokens(table, corpus.n_tokens)
        return PreviewPart(
            name=name,
            n_documents=corpus.n_documents,
            n_rows=table.n_rows,
            length=self.length,
            classes=self._count_classes(is_read, has_row),
            longest=self._place(int(table.documents[longest])),
            n_without_row=len(missing),
            without_row=tuple(self._place(document) for document in missing[:_MOST_NAMED]),
            rows=tuple(self._show(row, is_read) for row in shown),
        )

    def _place(self, document: int) -> str:
        answers = self.reader.answers_of(self.source)
        return f"document {document + 1}" if answers is None else answers.row_places[document]

    def _count_classes(
        self, is_read: NDArray[np.bool_], has_row: NDArray[np.bool_]
    ) -> tuple[ClassCount, ...]:
        table = self.table
        assert table.has_prefix is not None
        of_row = np.repeat(has_row, np.diff(self.corpus.offsets))
        n_padding = int((self.length - table.lengths).sum())
        is_padded = self.padding.scored_length is not None
        counts = {
            "start": (int(table.has_prefix.sum()), 0),
            "cut-off": (int(np.count_nonzero(of_row & ~is_read)), 0),
            "padding": (n_padding, n_padding if is_padded else 0),
        }
        if table.marks is None:
            counts["text"] = (int((table.ends - table.begins).sum()), int(table.n_scored.sum()))
        else:
            for number, name in enumerate(ANSWER_CLASSES):
                is_one = table.marks.classes == number
                is_target = is_one & table.marks.is_scored
                counts[name] = (
                    int(count_between(is_one, table.begins, table.ends).sum()),
                    int(count_between(is_target, table.scored_from, table.ends).sum()),
                )
        found = ((name, *counts.get(name, (0, 0))) for name in SEEN_CLASSES)
        return tuple(ClassCount(*count) for count in found if count[1])

    def _show(self, row: int, is_read: NDArray[np.bool_]) -> PreviewRow:
        """One row with what was cut off around it, and padded to the length of all rows."""
        table, length = self.table, int(self.table.lengths[row])
        assert table.has_prefix is not None
        segments = []
        before = None  # the token before a segment
        if table.has_prefix[row] and table.prefix is not None:
            before = table.prefix
            segments.append(Segment("start", False, 1, self._decode([before])))
        places = self._places_around(row, is_read)
        codes, is_scored = self._classify(row, places)
        # a segment ends where the class changes, or whether tokens are scored
        changes = np.flatnonzero(np.diff(2 * codes + is_scored)) + 1
        for begin, end in pairwise([0, *changes.tolist(), len(places)]):
            ids = self.corpus.tokens[places[begin:end]].tolist()
            texts = self._decode(ids, before)
            before = ids[-1]
            name = SEEN_CLASSES[int(codes[begin])]
            segments.append(Segment(name, bool(is_scored[begin]), end - begin, texts))
        if length < self.length:
            is_target = self.padding.scored_length is not None
            segments.append(Segment("padding", is_target, self.length - length, ()))
        n_scored = int(table.n_scored[row])
        place = self._place(int(table.documents[row]))
        return PreviewRow(place, length, n_scored, tuple(segments))

    def _places_around(self, row: int, is_read: NDArray[np.bool_]) -> IntArray:
        """The tokens of a row, and their neighbours in its document that are in no row: (n,)."""
        begin, end = int(self.table.begins[row]), int(self.table.ends[row])
        document = int(self.table.documents[row])
        before = is_read[self.corpus.offsets[document] : begin][::-1]
        after = is_read[end : self.corpus.offsets[document + 1]]
        n_before = int(np.argmax(before)) if before.any() else len(before)
        n_after = int(np.argmax(after)) if after.any() else len(after)
        return np.arange(begin - n_before, end + n_after)

    def _classify(self, row: int, places: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
        """The place in `SEEN_CLASSES` of the class of each token, and whether it is scored."""
        table, marks = self.table, self.table.marks
        is_inside = (places >= table.begins[row]) & (places < table.ends[row])
        is_scored = is_inside & (places >= table.scored_from[row])
        codes = np.full(len(places), SEEN_CLASSES.index("text"), dtype=np.int64)
        if marks is not None:
            codes = marks.classes[places] + np.int64(SEEN_CLASSES.index(ANSWER_CLASSES[0]))
            is_scored &= marks.is_scored[places]
        codes[~is_inside] = SEEN_CLASSES.index("cut-off")
        return codes, is_scored

    def _decode(self, ids: list[int], before: int | None = None) -> tuple[str, ...]:
        return decode_tokens(self.reader.tokenizer, ids, before)
