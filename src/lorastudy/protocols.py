"""The protocols by which models are measured: each is one row of `PROTOCOLS`.

A protocol says which tokens the model reads at once, which of them are scored, and what their
nats are averaged over; or how the items of a task are answered, and when an answer is right. Code
that needs a property of a protocol asks this table; rows are cut in `evaluate.protocols`, and
items are scored in `run.tasks`. docs/protocols.md defines each protocol with an example that a test
executes. If the meaning of a protocol changes, its version is raised.
"""

import re
from dataclasses import dataclass
from typing import Literal

from lorastudy.errors import ConfigError

Cut = Literal["lines", "windows", "documents", "rolling", "continuations", "answers", "items"]
Form = Literal["texts", "raw-texts", "stream", "pages", "last-words"]
Average = Literal["tokens", "batch-means", "documents"]
# how an answer to an item is judged: the likeliest choice, or the likeliest per character; or a
# generated text that equals the answer, has its number, or satisfies an own function; or as a task
# of lm-evaluation-harness says
Judge = Literal["likeliest", "likeliest-per-character", "text", "number", "function", "harness"]
PaddedClass = Literal["first", "text", "first-padding", "other-padding"]
AnswerClass = Literal["prompt", "header", "answer", "end-of-turn"]
TargetClass = PaddedClass | AnswerClass

# Targets are told apart where padding is scored, so that text can be read off afterwards.
TARGET_CLASSES: tuple[TargetClass, ...] = ("first", "text", "first-padding", "other-padding")
TEXT_CLASSES: tuple[TargetClass, ...] = ("first", "text")

# Tokens of rows with answers: what was asked, what the chat template writes around it, the answer,
# and the token with which a model ends its turn.
ANSWER_CLASSES: tuple[AnswerClass, ...] = ("prompt", "header", "answer", "end-of-turn")

PAPER_BATCH = 14  # rows of an evaluation batch in the published study: part of "batch-means"
_COUNT = r"([1-9][0-9]{0,6})"


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of scoring a text."""

    pattern: str  # its name; N and S stand for numbers of tokens: sliding-N-S
    example: str  # a name that it matches
    version: int
    description: str  # one line for people
    cut: Cut  # how rows are made
    reads: Literal["row", "context", "N"]  # tokens at once: data.rows.length, all it can, N
    form: Form = "texts"  # what one document is
    average: Average = "tokens"  # what the mean is taken over
    scores_padding: bool = False
    judge: Judge | None = None  # None: losses are measured, and no answer is judged

    def form_of_documents(self, *, strip: bool) -> Form:
        """What one document is; only row protocols keep the white space that training rows keep."""
        return form_of_rows(strip=strip) if self.reads == "row" else self.form

    @property
    def joins_documents(self) -> bool:
        """All text is one document, and nats are kept by window."""
        return self.form == "stream"

    @property
    def scores_answers(self) -> bool:
        """It is for rows with answers; all others are for texts."""
        return self.cut == "answers"

    @property
    def is_task(self) -> bool:
        """Its documents are items with a right answer, and its loss is the share of wrong ones."""
        return self.judge is not None

    @property
    def chooses(self) -> bool:
        """It is for items with choices, whose likelihoods are compared."""
        return self.judge in ("likeliest", "likeliest-per-character")

    @property
    def generates(self) -> bool:
        """It is for rows with answers, to whose prompts the model writes an answer of its own."""
        return self.judge in ("text", "number", "function")

    @property
    def classes(self) -> tuple[TargetClass, ...]:
        """The classes whose sums are kept apart; none if all targets are text."""
        if self.scores_answers:
            return ANSWER_CLASSES
        return TARGET_CLASSES if self.scores_padding else ()

    @property
    def has_accuracy(self) -> bool:
        """A document counts as right if each of its scored tokens is the model's first choice."""
        return self.cut == "continuations"

    @property
    def expression(self) -> str:
        """The names that it matches, as a regular expression with one group per count."""
        return re.sub(r"\b[NS]\b", lambda _: _COUNT, self.pattern)


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens that a protocol's name states: N at once, beginning S apart."""

    length: int
    stride: int


_TASKS: tuple[tuple[str, Judge, str], ...] = (
    ("choice", "likeliest", "items with choices: the likeliest choice is the answer"),
    (
        "choice-per-character",
        "likeliest-per-character",
        "items with choices: the likeliest choice per character is the answer",
    ),
    ("exact-match", "text", "prompts: the generated text is the answer"),
    ("numeric-match", "number", "prompts: the last generated number is that of the answer"),
    ("own-function", "function", "prompts: a Python function judges the generated text"),
    ("lm-eval-task", "harness", "a task of lm-evaluation-harness, by one of its metrics"),
)
PROTOCOLS = (
    Protocol(
        pattern="rows-text",
        example="rows-text",
        version=1,
        description="rows as in training; only text is scored",
        cut="lines",
        reads="row",
    ),
    Protocol(
        pattern="paper-padded",
        example="paper-padded",
        version=1,
        description="the published study's rows: padded to one length, and padding is scored",
        cut="lines",
        reads="row",
        average="batch-means",
        scores_padding=True,
    ),
    Protocol(
        pattern="document",
        example="document",
        version=1,
        description="whole documents, in windows of the model's context",
        cut="documents",
        reads="context",
    ),
    Protocol(
        pattern="blocks-N",
        example="blocks-1024",
        version=1,
        description="the joined text in windows of N tokens, side by side",
        cut="windows",
        reads="N",
        form="stream",
    ),
    Protocol(
        pattern="sliding-N-S",
        example="sliding-1024-512",
        version=1,
        description="the joined text in windows of N tokens that begin S tokens apart",
        cut="windows",
        reads="N",
        form="stream",
    ),
    Protocol(
        pattern="lm-eval-wikitext",
        example="lm-eval-wikitext",
        version=1,
        description="lm-evaluation-harness' wikitext: detokenised pages in full windows",
        cut="rolling",
        reads="context",
        form="pages",
    ),
    Protocol(
        pattern="lm-eval-lambada",
        example="lm-eval-lambada",
        version=1,
        description="lm-evaluation-harness' lambada_openai: the last word of each text",
        cut="continuations",
        reads="context",
        form="last-words",
        average="documents",
    ),
    Protocol(
        pattern="answers",
        example="answers",
        version=1,
        description="rows with answers as in training; what training scores is scored",
        cut="answers",
        reads="row",
    ),
    *(
        Protocol(
            pattern=name,
            example=name,
            version=1,
            description=description,
            cut="items",
            reads="context",
            average="documents",
            judge=judge,
        )
        for name, judge, description in _TASKS
    ),
)


def find_protocol(name: str) -> Protocol:
    """The row of the table that `name` belongs to.

    Raises:
        ConfigError: There is no such protocol, or its windows cannot be cut.
    """
    protocol = _match(name)
    if protocol is None:
        known = ", ".join(p.pattern for p in PROTOCOLS)
        raise ConfigError(
            f"protocol {name!r} does not exist. Use one of {known}; N and S are token counts."
        )
    if mistake := describe_mistake(name):
        raise ConfigError(
            f"protocol {name!r} {mistake}. Use at least 2 tokens, and a stride no longer than N."
        )
    return protocol


def describe_mistake(name: str) -> str | None:
    """What is wrong with the windows in the name of a protocol; None if they are right."""
    window = read_window(name)
    if window and window.length < 2:
        return "needs windows of at least 2 tokens: one to predict the other"
    if window and window.stride > window.length:
        return "has a stride longer than its windows: tokens would be skipped"
    return None


def read_window(name: str) -> Window | None:
    """The window that `name` states; its stride is its length if `name` has no stride.

    None if the name states no window.
    """
    protocol = _match(name)
    match = re.fullmatch(protocol.expression, name) if protocol else None
    counts = [int(count) for count in match.groups()] if match else []
    return Window(counts[0], counts[-1]) if counts else None


def is_protocol(name: str) -> bool:
    """Whether `name` belongs to a row of the table."""
    return _match(name) is not None


def scores_padding(name: str) -> bool:
    """Whether `name` scores padding, so that its nats are not those of text.

    False for a name that is not in the table, such as one of a later version of this program.
    """
    protocol = _match(name)
    return protocol is not None and protocol.scores_padding


def scores_answers(name: str) -> bool:
    """Whether `name` scores the answers of rows; False for a name that is not in the table."""
    protocol = _match(name)
    return protocol is not None and protocol.scores_answers


def unit_of(name: str) -> str:
    """The unit of a loss under the protocol `name`, and of differences of two of them."""
    protocol = _match(name)
    if protocol is None or protocol.average != "documents":
        return "nats per target"
    return "wrong answers per item" if protocol.is_task else "nats per document"


def is_task(name: str) -> bool:
    """Whether `name` judges answers to items; False for a name that is not in the table."""
    protocol = _match(name)
    return protocol is not None and protocol.is_task


def protocol_of_rows(*, scored_padding: bool = False, has_answers: bool = False) -> Protocol:
    """The protocol that scores rows as training cuts them: texts, padded texts, or answers.

    Validation follows it, and an audit compares the first two.
    """
    cut = "answers" if has_answers else "lines"
    return next(p for p in PROTOCOLS if p.cut == cut and p.scores_padding is scored_padding)


def form_of_rows(*, strip: bool) -> Form:
    """What one document is where each gives one row, as `data.rows.strip` says."""
    return "texts" if strip else "raw-texts"


def _match(name: str) -> Protocol | None:
    return next((p for p in PROTOCOLS if re.fullmatch(p.expression, name)), None)
