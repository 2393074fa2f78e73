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
from lorastudy.data.rows import RowTable, cut_document_windows, cut_lines, cut_windows
from lorastudy.errors import ConfigError

PAPER_BATCH = 14  # rows of an evaluation batch in the published study: part of its average
DOCUMENT_WINDOW = 2048  # tokens, for models that state no limit
STREAM_JOIN = "\n\n"  # between documents of a stream, as in the perplexity guide of transformers


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of scoring a text."""

    name: str
    version: int
    cut: Literal["lines", "windows", "documents"]
    length: int  # tokens of a row or window, start token included where there is one
    stride: int | None = None  # windows of the joined stream only
    scores_padding: bool = False
    joins_documents: bool = False
    average: Literal["tokens", "batch-means"] = "tokens"


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
    if match := re.fullmatch(r"blocks-(\d+)", name):
        length = int(match[1])
        return Protocol(name, 1, "windows", length, stride=length, joins_documents=True)
    if match := re.fullmatch(r"sliding-(\d+)-(\d+)", name):
        length, stride = int(match[1]), int(match[2])
        return Protocol(name, 1, "windows", length, stride=stride, joins_documents=True)
    raise ConfigError(
        f"protocol {name!r} does not exist. "
        "Use rows-text, paper-padded, document, blocks-N or sliding-N-S (N tokens, stride S)."
    )


def lay_out_rows(
    protocol: Protocol, corpus: Corpus, special: SpecialTokens
) -> tuple[RowTable, Padding]:
    """Rows and padding of `protocol` on `corpus`, which was joined if the protocol joins."""
    if protocol.cut == "lines":
        table = cut_lines(corpus.offsets, protocol.length, special.start_id)
        scored_length = protocol.length if protocol.scores_padding else None
        return table, Padding(special.end_id, scored_length)
    if protocol.cut == "documents":
        table = cut_document_windows(
            corpus.offsets,
            length=protocol.length,
            stride=protocol.length - 1,
            prefix=special.start_id,
        )
        return table, Padding(special.end_id)
    assert protocol.stride is not None
    table = cut_windows(0, corpus.n_tokens, protocol.length, protocol.stride)
    return table, Padding(special.end_id)
