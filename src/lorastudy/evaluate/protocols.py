"""What exactly a perplexity is a perplexity of: rows, context, and scored targets, by name.

A protocol turns a corpus into a table of rows and says how they are padded and how their
nats are averaged. Names are part of every number; a change of meaning raises the version.
docs/protocols.md defines each one with a worked example.
"""

import re
from dataclasses import dataclass
from typing import Literal

from lorastudy.data.batches import Padding
from lorastudy.data.corpus import Corpus
from lorastudy.data.rows import (
    RowTable,
    cut_continuations,
    cut_document_windows,
    cut_lines,
    cut_rolling,
    cut_windows,
)
from lorastudy.data.texts import Form
from lorastudy.errors import ConfigError, InputError

PAPER_BATCH = 14  # rows of an evaluation batch in the published study: part of its average
DOCUMENT_WINDOW = 2048  # tokens, for models that state no limit; also lm-evaluation-harness'


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of scoring a text."""

    name: str
    version: int
    cut: Literal["lines", "windows", "documents", "rolling", "continuations"]
    length: int  # tokens that the model reads at once, start token included where there is one
    stride: int | None = None  # windows of the joined stream only
    scores_padding: bool = False
    form: Form = "texts"  # what a document is
    average: Literal["tokens", "batch-means", "documents"] = "tokens"

    @property
    def joins_documents(self) -> bool:
        """All text is one document, and scores are kept by window."""
        return self.form == "stream"

    @property
    def has_accuracy(self) -> bool:
        """A document counts as right if each of its scored tokens is the model's first choice."""
        return self.cut == "continuations"


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids that rows need from the tokenizer."""

    start_id: int
    end_id: int


def parse_protocol(name: str, *, row_length: int, context: int | None) -> Protocol:
    """The protocol called `name`.

    Args:
        name: As in a study file.
        row_length: Tokens of a row, for the row protocols.
        context: Most positions the model reads; None where it states no limit.

    Raises:
        ConfigError: No such protocol, windows that cannot be cut or exceed the context.
    """
    protocol = _parse(name, row_length, context)
    stride = protocol.stride
    if stride is not None and (protocol.length < 2 or not 1 <= stride <= protocol.length):
        raise ConfigError(
            f"protocol {name!r}: windows of {protocol.length} tokens with stride {stride} "
            "leave tokens unscored. Use at least 2 tokens and a stride from 1 to their number."
        )
    if context is not None and protocol.length > context:
        raise ConfigError(
            f"protocol {name!r}: windows of {protocol.length} tokens are longer than the "
            f"{context} positions of the base model. Use a shorter length."
        )
    return protocol


def _parse(name: str, row_length: int, context: int | None) -> Protocol:
    if name == "rows-text":
        return Protocol(name, 1, "lines", row_length)
    if name == "paper-padded":
        return Protocol(name, 1, "lines", row_length, scores_padding=True, average="batch-means")
    if name == "document":
        return Protocol(name, 1, "documents", context or DOCUMENT_WINDOW)
    if name == "lm-eval-wikitext":
        return Protocol(name, 1, "rolling", context or DOCUMENT_WINDOW, form="pages")
    if name == "lm-eval-lambada":
        length = context or DOCUMENT_WINDOW
        return Protocol(name, 1, "continuations", length, form="last-words", average="documents")
    if match := re.fullmatch(r"blocks-(\d+)", name):
        length = int(match[1])
        return Protocol(name, 1, "windows", length, stride=length, form="stream")
    if match := re.fullmatch(r"sliding-(\d+)-(\d+)", name):
        length, stride = int(match[1]), int(match[2])
        return Protocol(name, 1, "windows", length, stride=stride, form="stream")
    raise ConfigError(
        f"protocol {name!r} does not exist. "
        "Use rows-text, paper-padded, document, blocks-N or sliding-N-S (N tokens, stride S), "
        "lm-eval-wikitext or lm-eval-lambada."
    )


def lay_out_rows(
    protocol: Protocol, corpus: Corpus, special: SpecialTokens
) -> tuple[RowTable, Padding]:
    """Rows and padding of `protocol` on `corpus`, which was made in the protocol's form.

    Raises:
        InputError: A last word is longer than what the model reads.
    """
    padding = Padding(special.end_id, protocol.length if protocol.scores_padding else None)
    return _cut(protocol, corpus, special.start_id), padding


def _cut(protocol: Protocol, corpus: Corpus, start_id: int) -> RowTable:
    length = protocol.length
    match protocol.cut:
        case "lines":
            return cut_lines(corpus.offsets, length, start_id)
        case "documents":
            return cut_document_windows(
                corpus.offsets, length=length, stride=length - 1, prefix=start_id
            )
        case "windows":
            assert protocol.stride is not None
            return cut_windows(0, corpus.n_tokens, length, protocol.stride)
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
