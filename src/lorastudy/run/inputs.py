"""Everything that a study reads, found and checked before the first training step.

Documents are tokenised once into the cache; the lock file of a study remembers which corpus
belongs to which source, so that a run opens its memory maps without reading the data again.
"""

from dataclasses import dataclass, field, replace

from lorastudy.config.benchmarks import BestBy, TaskRules
from lorastudy.config.models import Benchmark, Data, Part, Rows, Source
from lorastudy.config.sources import plain_source
from lorastudy.data.answers import ALL_ANSWERS, AnswerRules
from lorastudy.data.batches import Padding
from lorastudy.data.corpus import Corpus, prepare_corpus
from lorastudy.data.examples import IN_PLAIN_TEXT
from lorastudy.data.held_out import take_side
from lorastudy.data.rows import RowTable, cut_lines, cut_stream
from lorastudy.data.sources import Documents, join_documents, read_documents
from lorastudy.data.text_counts import count_text
from lorastudy.errors import InputError
from lorastudy.evaluate.protocols import (
    SizedProtocol,
    SpecialTokens,
    lay_out_rows,
    size_protocol,
)
from lorastudy.evaluate.subset import draw_subset, units_of
from lorastudy.model.base import BaseDescription
from lorastudy.model.tokenizer import Tokenizer
from lorastudy.protocols import Form, form_of_rows, protocol_of_rows
from lorastudy.run.answer_rows import (
    AnswerSource,
    RowLengthError,
    cut_answer_rows,
    refuse_protocol,
    refuse_questions,
    refuse_unfit_keys,
)
from lorastudy.run.harness_task import prepare_harness_items
from lorastudy.run.task_items import prepare_items
from lorastudy.run.tasks import OwnItems, TaskItems
from lorastudy.store.counts import HeldOut, TextCounts
from lorastudy.store.places import Places, name_revision


@dataclass(frozen=True, slots=True)
class Reader:
    """Turns sources into corpora, with a base model's tokenizer and the places to read from."""

    base: BaseDescription
    tokenizer: Tokenizer
    places: Places
    rules: AnswerRules = ALL_ANSWERS
    revisions: dict[str, str] = field(default_factory=dict)  # commits that were read from the hub
    _joined: dict[Part, int] = field(default_factory=dict)  # documents of streams that were read
    _answers: dict[Part, AnswerSource] = field(default_factory=dict)  # those with answers
    _held_out: dict[Part, HeldOut] = field(default_factory=dict)  # of parts that are one side
    _items_of_best: dict[BestBy, OwnItems] = field(default_factory=dict)  # read once for all arms
    _opened: dict[tuple[Part, Form, int | None], Corpus] = field(default_factory=dict)

    @property
    def special(self) -> SpecialTokens:
        """Ids that rows need."""
        return SpecialTokens(self.tokenizer.start_id, self.tokenizer.end_id)

    def corpus(self, text: Part | Source, form: Form, *, end: int | None = None) -> Corpus:
        """The tokenised documents of a source or part, from the cache if it has them.

        Arms and protocols share sources, so each source is read once and kept open. Each text
        ends with the token `end`, unless it is None. Rows with answers have one form only.

        Raises:
            ConfigError: Keys about answers do not fit the rows.
            InputError: A source cannot be read, a token id has no embedding, or a side is empty.
        """
        part = _as_part(text)
        if part in self._answers:
            form, end = "texts", None
        if (part, form, end) not in self._opened:
            corpus = self._open(part, form, end)
            if corpus.marks is not None:
                form, end = "texts", None
            self._opened[part, form, end] = corpus
        return self._opened[part, form, end]

    def _open(self, part: Part, form: Form, end: int | None) -> Corpus:
        documents = self._read(part, form)
        if form == "stream":
            self._joined[part] = sum(not text.isspace() for text in documents.texts if text)
        if documents.examples:
            self._answers[part] = AnswerSource.of(part.label, documents.examples)
        limit = part.sources[0].limit if form == "pages" else None
        corpus = prepare_corpus(
            *(documents, self.tokenizer, self.places.cache / "corpora"),
            form=form,
            limit=limit,
            end=end,
            rules=self.rules,
        )
        highest = int(corpus.tokens.max()) if corpus.n_tokens else 0
        if highest >= self.base.vocabulary_size:
            raise InputError(
                f"{part.label}: token id {highest} has no row in the base model's "
                f"embedding of {self.base.vocabulary_size}. The tokenizer belongs to another model."
            )
        return corpus

    def _read(self, part: Part, form: Form) -> Documents:
        """All documents of a part, source by source."""
        found = []
        for source in part.sources:
            documents = read_source(source, form, self.places)
            if source.id is not None and documents.revision is not None:
                named = name_revision("datasets", source.id, source.revision)
                self.revisions[named] = documents.revision
            found.append(documents)
        joined = join_documents(found)
        if part.split is not None:
            joined, self._held_out[part] = take_side(joined, part.split)
        return joined

    def answers_of(self, text: Part | Source) -> AnswerSource | None:
        """What is known of a source or part that was opened; None: it holds texts."""
        return self._answers.get(_as_part(text))

    @property
    def has_messages(self) -> bool:
        """Whether a source or part that was opened holds messages."""
        return any(found.kind not in IN_PLAIN_TEXT for found in self._answers.values())

    def held_out_of(self, part: Part) -> HeldOut | None:
        """How documents were divided, if an opened part is one side of them."""
        return self._held_out.get(part)

    def protocol(self, name: str, rows: Rows) -> SizedProtocol:
        """The protocol `name` for this model."""
        return size_protocol(name, row_length=rows.length, context=self.base.max_positions)

    def training_rows(self, text: Part | Source, rows: Rows) -> tuple[Corpus, RowTable]:
        """Corpus and rows of the train or validation split, each of them once.

        Raises:
            ConfigError: A key is for the other kind of rows.
            InputError: The source cannot be read with this model.
            RowLengthError: No row has a target, or an answer does not fit into a row.
        """
        form = "stream" if rows.cut == "stream" else form_of_rows(strip=rows.strip)
        end = self.tokenizer.end_id if rows.end == "scored" else None
        corpus = self.corpus(text, form, end=end)
        answers = self.answers_of(text)
        refuse_questions(answers)
        rules = replace(self.rules, chat_template_path=None)  # benchmarks may need the template
        refuse_unfit_keys(rows, rules, text.label, answers)
        if answers is not None:
            protocol = self.protocol(protocol_of_rows(has_answers=True).pattern, rows)
            table, _ = cut_answer_rows(protocol, corpus, rows, answers, self.special)
            return corpus, table
        table = (
            cut_lines(corpus.offsets, rows.length, self.tokenizer.start_id)
            if rows.cut == "lines"
            else cut_stream(corpus.offsets, rows.length)
        )
        if table.n_rows == 0:
            raise RowLengthError(
                f"{text.label}: less than one row of {rows.length} tokens. "
                "Give more text or a shorter data.rows.length."
            )
        return corpus, table

    def count_training_text(self, text: Part | Source, rows: Rows) -> TextCounts:
        """Documents and tokens of the train or validation split, and what of them is lost."""
        corpus, table = self.training_rows(text, rows)
        return self._count_text(text, corpus, table, is_joined=rows.cut == "stream")

    def _count_text(
        self, text: Part | Source, corpus: Corpus, table: RowTable, *, is_joined: bool
    ) -> TextCounts:
        answers = self.answers_of(text)
        kind = "" if answers is None else answers.kind
        counts = count_text(corpus, table, self.tokenizer.unknown_id, kind)
        n_documents = self._joined[_as_part(text)] if is_joined else counts.n_documents
        return replace(counts, n_documents=n_documents)

    def benchmark_part(
        self, benchmark: Benchmark, name: str, rows: Rows
    ) -> "BenchmarkRows | TaskItems":
        """What is scored of a benchmark under a protocol: rows, or items of a task.

        Raises:
            ConfigError: The protocol is for another kind of rows.
            InputError: Nothing can be scored, or a row does not fit into the model.
        """
        protocol = self.protocol(name, rows)
        if not protocol.kind.is_task:
            return self.benchmark_rows(benchmark, name, rows)
        if benchmark.task is not None:
            return prepare_harness_items(
                benchmark, protocol, self.tokenizer, self.places, self.base.folder
            )
        return self._prepare_items(_as_part(benchmark), protocol, benchmark.rules)

    def items_of_best(self, data: Data) -> OwnItems | None:
        """The items whose right answers choose the best weights; None: the loss chooses.

        Raises:
            ConfigError: The rows are of another kind than the protocol is for.
            InputError: They cannot be read, or one does not fit into the model.
        """
        if (task := data.best_by) is None:
            return None
        if task not in self._items_of_best:
            part = data.validation_part if task.items is None else _as_part(task.items)
            protocol = self.protocol(task.protocol, data.rows)
            self._items_of_best[task] = self._prepare_items(part, protocol, task.rules)
        return self._items_of_best[task]

    def _prepare_items(self, part: Part, protocol: SizedProtocol, rules: TaskRules) -> OwnItems:
        examples = self._read(part, "texts").examples
        if examples:
            self._answers[part] = AnswerSource.of(part.label, examples)
        return prepare_items(rules, protocol, examples, self.tokenizer, self.places.base)

    def benchmark_rows(self, benchmark: Benchmark, name: str, rows: Rows) -> "BenchmarkRows":
        """Corpus, rows and padding of a benchmark under a protocol.

        Raises:
            ConfigError: The protocol is for the other kind of rows.
            InputError: Nothing can be scored, or an answer does not fit into a row.
        """
        protocol = self.protocol(name, rows)
        corpus = self.corpus(benchmark, protocol.kind.form_of_documents(strip=rows.strip))
        answers = self.answers_of(benchmark)
        refuse_protocol(protocol, benchmark.name, has_answers=answers is not None)
        if answers is not None:
            table, padding = cut_answer_rows(protocol, corpus, rows, answers, self.special)
        else:
            table, padding = lay_out_rows(protocol, corpus, self.special)
        if table.n_rows == 0:
            raise InputError(
                f"benchmark {benchmark.name!r} has no scored token under {name!r}. "
                "Its documents are empty; check its split and column."
            )
        is_joined = protocol.kind.joins_documents
        text = self._count_text(benchmark, corpus, table, is_joined=is_joined)
        if benchmark.sample is None:
            return BenchmarkRows(protocol, corpus, table, padding, text)
        n_population = len(set(units_of(protocol.kind, table).tolist()))
        table = draw_subset(protocol.kind, table, benchmark.sample)
        return BenchmarkRows(protocol, corpus, table, padding, text, n_population)


@dataclass(frozen=True, slots=True)
class BenchmarkRows:
    """A benchmark, cut into rows under one protocol."""

    protocol: SizedProtocol
    corpus: Corpus
    table: RowTable
    padding: Padding
    text: TextCounts  # of all documents, also where only a random part is scored
    n_population: int | None = None  # units of which `table` is a random part; None: it has all

    @property
    def digest(self) -> str:
        """Of all documents."""
        return self.corpus.digest

    @property
    def n_units(self) -> int:
        """Documents that are scored, or windows of joined ones."""
        return len(set(units_of(self.protocol.kind, self.table).tolist()))


def _as_part(text: Part | Source) -> Part:
    return text if isinstance(text, Part) else Part((plain_source(text),))


def read_source(source: Source, form: Form, places: Places) -> Documents:
    """The documents of `source`, at the commit that the study is pinned to.

    Raises:
        InputError: It cannot be read.
    """
    changes: dict[str, object] = {}
    if form == "pages":  # one consists of many rows, so a limit on rows would cut a page
        changes["limit"] = None
    if source.id is not None:
        changes["revision"] = places.pin("datasets", source.id, source.revision)
    read = source.model_copy(update=changes)
    return read_documents(read, mirror=places.mirror, offline=places.offline, base=places.base)
