"""Cut a corpus into rows as a protocol says; `protocols` defines what a protocol is."""

from dataclasses import dataclass

from lorastudy.data.batches import Padding
from lorastudy.data.corpus import Corpus
from lorastudy.data.rows import (
    RowTable,
    cut_answers,
    cut_continuations,
    cut_lines,
    cut_rolling,
    cut_windows,
)
from lorastudy.errors import ConfigError, InputError
from lorastudy.protocols import Protocol, find_protocol, read_window

DOCUMENT_WINDOW = 2048  # tokens, for models that state no limit; also lm-evaluation-harness'


@dataclass(frozen=True, slots=True)
class SizedProtocol:
    """A protocol with its numbers of tokens for one model."""

    name: str
    kind: Protocol
    length: int  # tokens that the model reads at once, including a start token
    stride: int  # from one window to the next; only for joined text


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids that rows need from the tokenizer."""

    start_id: int
    end_id: int


def size_protocol(name: str, *, row_length: int, context: int | None) -> SizedProtocol:
    """The protocol called `name`, for one model.

    Args:
        name: As in a study file.
        row_length: Tokens of a row, for the row protocols.
        context: Largest number of positions that the model reads; None if it states no limit.

    Raises:
        ConfigError: The protocol does not exist, or its windows cannot be cut or are too long.
    """
    kind, window = find_protocol(name), read_window(name)
    match kind.reads:
        case "row":
            length = row_length
        case "context":
            length = context or DOCUMENT_WINDOW
        case "N":
            assert window is not None
            length = window.length
    if context is not None and length > context:
        where = "the protocol's name" if window else "--length, or data.rows.length in a study file"
        raise ConfigError(
            f"protocol {name!r}: windows of {length} tokens are longer than the "
            f"{context} positions of the base model. Use a shorter length: {where}."
        )
    return SizedProtocol(name, kind, length, window.stride if window else length)


def lay_out_rows(
    protocol: SizedProtocol, corpus: Corpus, special: SpecialTokens, *, drops_long: bool = False
) -> tuple[RowTable, Padding]:
    """Rows and padding of `protocol` on `corpus`, which was made in the protocol's form.

    Args:
        protocol: How rows are cut.
        corpus: What they are cut from.
        special: Ids that rows need.
        drops_long: Leave out rows with answers that are too long; otherwise their prompt is cut.

    Raises:
        InputError: A last word is longer than the model's context.
        TooLongError: An answer is longer than a row.
    """
    padding = Padding(special.end_id, protocol.length if protocol.kind.scores_padding else None)
    return _cut(protocol, corpus, special.start_id, drops_long=drops_long), padding


def _cut(protocol: SizedProtocol, corpus: Corpus, start_id: int, *, drops_long: bool) -> RowTable:
    length = protocol.length
    match protocol.kind.cut:
        case "items":
            raise AssertionError("items of tasks are not cut into rows")
        case "lines":
            return cut_lines(corpus.offsets, length, start_id)
        case "documents":
            return cut_windows(corpus.offsets, length=length, stride=length - 1, prefix=start_id)
        case "answers":
            assert corpus.marks is not None, "a corpus of rows with answers has marks"
            return cut_answers(corpus.offsets, length, corpus.marks, drops_long=drops_long)
        case "windows":
            return cut_windows([0, corpus.n_tokens], length=length, stride=protocol.stride)
        case "rolling":
            return cut_rolling(corpus.offsets, length, start_id)
        case "continuations":
            try:
                return cut_continuations(corpus.offsets, corpus.n_context, length, start_id)
            except ValueError as error:
                raise InputError(
                    f"protocol {protocol.name!r}: {error}; the model reads {length} tokens. "
                    "Take out the document, or use another protocol."
                ) from error
