"""How the rows of a study of own texts are cut: what `init` chooses, and why.

A line of a text file is one document and one row, unless that loses text: then all of the text is
joined and cut into full rows. This is decided by counting tokens with the base model's own
tokenizer if it is on this machine, and by an estimate otherwise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lorastudy.config.models import BaseModelRef, Rows, Source
from lorastudy.data.examples import Example
from lorastudy.data.files import SampleBy, read_rows
from lorastudy.data.formats import FORMATS, split_ending
from lorastudy.errors import InputError, UserError
from lorastudy.store.counts import TextCounts
from lorastudy.store.places import Places, default_cache
from lorastudy.units import write_count, write_portion

if TYPE_CHECKING:
    from lorastudy.run.inputs import Reader

LENGTH = 256  # tokens of a row, if the base model reads as many
TABLES = tuple(FORMATS)  # endings of files with columns
_SHARES = (0.1, 0.2, 0.34, 0.5)  # held out; the first that is one document or more
_SHORTEST, _LONGEST = 16, 2048  # tokens of a row
_BYTES_PER_TOKEN = 4  # of English under GPT-2's tokenizer; only for estimates


@dataclass(frozen=True, slots=True)
class Part:
    """The files of one part, as a path or glob of a study file."""

    pattern: str
    files: tuple[Path, ...]
    has_answers: bool = False  # its rows are prompts with completions, or messages
    has_choices: bool = False  # its rows are questions with choices, which are for benchmarks

    @property
    def is_text(self) -> bool:
        """Whether its files are plain text, in which `sample_by` says what a document is."""
        return split_ending(self.files[0])[0] not in TABLES

    @property
    def is_markdown(self) -> bool:
        """Whether its files are Markdown."""
        return split_ending(self.files[0])[0] == ".md"


# what rows read of a part; None: it has less than one row
Count = Callable[[Part, Rows, SampleBy], TextCounts | None]


@dataclass(frozen=True, slots=True)
class Counter:
    """How tokens are counted."""

    count: Count
    most_positions: int | None  # that the base model reads; None: no limit, or not known
    note: str  # why numbers are estimates, and what to do; empty if they are exact

    def describe(self, counts: TextCounts) -> str:
        """`counts` in words, without what an estimate cannot know."""
        if not self.note:
            return str(counts)
        return (
            f"{write_count(counts.n_documents, 'document')}, about "
            f"{write_count(counts.n_tokens, 'token')}: about "
            f"{write_portion(counts.dropped_share)} in no row"
        )


@dataclass(frozen=True, slots=True)
class RowChoice:
    """What `init` writes, and why."""

    rows: Rows
    sample_by: SampleBy
    n_rows: int  # of the training split
    counts: Mapping[str, TextCounts]  # by part
    reason: str  # empty for one row per line
    held_out: float | None = None  # share of the training documents; None: there are others


def choose_rows(parts: Mapping[str, Part], counter: Counter) -> RowChoice:
    """How rows are cut and, if no part is for validation, which share of documents is held out.

    Raises:
        InputError: The training text is one document, which cannot be divided.
    """
    chosen = _choose_rows(parts, counter)
    if "validation" in parts:
        return chosen
    if chosen.sample_by == "document":  # whole files are few
        chosen = replace(chosen, sample_by="paragraph", reason=_with_paragraphs(chosen.reason))
        counts = counter.count(parts["train"], chosen.rows, "paragraph")
        known = {**chosen.counts, "train": counts} if counts else chosen.counts
        chosen = replace(chosen, counts=known)
    train = chosen.counts.get("train")  # nothing if not one row can be cut: check says why
    n_documents = train.n_documents if train is not None else round(1 / _SHARES[0])
    if n_documents < 2:
        raise InputError(
            f"{parts['train'].pattern} has fewer than two documents, so none can be held out. Put "
            "texts that choose the best epoch into a file named validation, such as "
            "validation.txt."
        )
    share = next(share for share in _SHARES if round(share * n_documents) > 0)
    n_rows = max(1, int(chosen.n_rows * (1 - share)))
    return replace(chosen, n_rows=n_rows, held_out=share)


def _with_paragraphs(reason: str) -> str:
    return reason.replace("sample_by: document", "sample_by: paragraph")


def _choose_rows(parts: Mapping[str, Part], counter: Counter) -> RowChoice:
    """One row per line, unless lines are no documents or lose text; then rows of joined text."""
    length = min(LENGTH, counter.most_positions or LENGTH)
    lines, train = Rows(cut="lines", length=length), parts["train"]
    found = {name: counter.count(part, lines, "line") for name, part in parts.items()}
    per_line = {name: counts for name, counts in found.items() if counts is not None}
    first = per_line.get("train")
    if train.has_answers:
        return _choose_answer_rows(parts, counter, lines)
    sample_by: SampleBy = "document" if train.is_text else "line"
    if train.is_markdown:
        reason = "a line of Markdown is not a document"
    elif any(counts.is_truncated for counts in per_line.values()):
        name = next(name for name, counts in per_line.items() if counts.is_truncated)
        text = "training" if name == "train" else name
        reason = (
            f"with one row per {'line' if train.is_text else 'document'} of at most {length} "
            f"tokens, {write_portion(per_line[name].dropped_share)} of the {text} text would be "
            "lost"
        )
    else:
        return RowChoice(lines, "line", first.n_documents if first else 1, per_line, "")
    # shorter rows until each part has one
    while length >= _SHORTEST:
        rows = Rows(cut="stream", length=length)
        found = {name: counter.count(part, rows, sample_by) for name, part in parts.items()}
        whole = {name: counts for name, counts in found.items() if counts is not None}
        if len(whole) == len(parts):
            read = whole["train"].n_tokens - whole["train"].n_dropped
            what = "sample_by: document and cut: stream" if train.is_text else "cut: stream"
            return RowChoice(rows, sample_by, read // length, whole, f"{what}, since {reason}")
        length //= 2
    return RowChoice(lines, "line", first.n_documents if first else 1, per_line, "")


def _choose_answer_rows(parts: Mapping[str, Part], counter: Counter, rows: Rows) -> RowChoice:
    """One row for each answer, long enough for all of them if the base model reads as much."""
    most = min(_LONGEST, counter.most_positions or _LONGEST)
    while True:
        found = {name: counter.count(part, rows, "line") for name, part in parts.items()}
        whole = {name: counts for name, counts in found.items() if counts is not None}
        is_whole = len(whole) == len(parts) and not any(c.n_dropped for c in whole.values())
        if is_whole or rows.length >= most:
            n_rows = whole["train"].n_documents if "train" in whole else 1
            return RowChoice(rows, "line", n_rows, whole, "")
        rows = rows.model_copy(update={"length": min(most, 2 * rows.length)})


def make_counter(parts: Mapping[str, Part], base_model: BaseModelRef, column: str) -> Counter:
    """Counts with the tokenizer of `base_model` if it is on this machine, else estimates.

    If `check` would refuse the base model, or these texts with it, the note says why.

    Raises:
        InputError: The base model is a folder that is not there.
    """
    from lorastudy.model.base import quieten_libraries  # slow: imports torch
    from lorastudy.model.base_folder import find_base_folder
    from lorastudy.run.readers import make_reader

    quieten_libraries()
    places = Places(Path.cwd(), offline=True, cache=default_cache())
    try:
        folder = find_base_folder(base_model, mirror=None, offline=True, base=places.base)
    except InputError:
        if base_model.id is None:
            raise
        return _make_estimates(column, "the base model is not on this machine; check counts them.")
    most_positions = None
    try:
        reader = make_reader(folder, places)
        most_positions = reader.base.max_positions
        counter = _count_exactly(reader, column)
        rows = Rows(cut="lines", length=min(LENGTH, most_positions or LENGTH))
        for part in parts.values():
            counter.count(part, rows, "line")
    except UserError as error:
        reason = f"they cannot be counted, and check says the same: {error}"
        return _make_estimates(column, reason, most_positions)
    return counter


def _make_estimates(column: str, reason: str, most_positions: int | None = None) -> Counter:
    note = f"Tokens are estimated from bytes, since {reason}"
    return Counter(lambda *asked: _estimate(*asked, column=column), most_positions, note)


def _count_exactly(reader: "Reader", column: str) -> Counter:
    from lorastudy.run.answer_rows import RowLengthError

    def count(part: Part, rows: Rows, sample_by: SampleBy) -> TextCounts | None:
        source = Source(path=part.pattern, column=column, sample_by=sample_by)
        try:
            return reader.count_training_text(source, rows)
        except RowLengthError:
            return None

    return Counter(count, reader.base.max_positions, "")


def _estimate(part: Part, rows: Rows, sample_by: SampleBy, *, column: str) -> TextCounts | None:
    found = [
        row for path in part.files for row in read_rows(path, column=column, sample_by=sample_by)
    ]
    texts = ["".join(row.texts) if isinstance(row, Example) else row for row in found]
    texts = [text for text in texts if text.strip()]
    sizes = [len(text.encode()) // _BYTES_PER_TOKEN + 1 for text in texts]
    n_tokens = sum(sizes)
    if rows.cut == "stream":
        n_dropped = n_tokens % rows.length
    else:
        n_dropped = sum(max(0, size - (rows.length - 1)) for size in sizes)
    if n_tokens == n_dropped:
        return None
    return TextCounts(len(texts), n_tokens, n_dropped, 0)
