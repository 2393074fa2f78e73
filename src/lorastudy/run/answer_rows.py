"""Rows of a source with answers, and keys of a study file that fit only one kind of rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorastudy.config.models import Rows
from lorastudy.data.answers import AnswerRules, refuse_unfit_rules
from lorastudy.data.batches import Padding
from lorastudy.data.corpus import Corpus
from lorastudy.data.examples import Example, ExampleKind
from lorastudy.data.rows import RowTable, TooLongError
from lorastudy.errors import ConfigError, InputError
from lorastudy.evaluate.protocols import SizedProtocol, SpecialTokens, lay_out_rows
from lorastudy.protocols import protocol_of_rows


class RowLengthError(InputError):
    """Texts give no row of this length, or an answer does not fit into one; another length may."""


@dataclass(frozen=True, slots=True)
class AnswerSource:
    """What messages about a source with answers need."""

    label: str
    kind: ExampleKind
    row_places: tuple[str, ...]  # "train.jsonl, line 3", by document

    @classmethod
    def of(cls, label: str, examples: Sequence[Example]) -> "AnswerSource":
        """The description of a source's rows, all of one kind."""
        return cls(label, examples[0].kind, tuple(example.place for example in examples))


def cut_answer_rows(
    protocol: SizedProtocol,
    corpus: Corpus,
    rows: Rows,
    source: AnswerSource,
    special: SpecialTokens,
) -> tuple[RowTable, Padding]:
    """Rows and padding of a corpus with answers; `rows.too_long` says what long rows become.

    Raises:
        RowLengthError: An answer does not fit into a row, or no row is left.
    """
    drops_long = rows.too_long == "drop"
    try:
        table, padding = lay_out_rows(protocol, corpus, special, drops_long=drops_long)
    except TooLongError as error:
        others = len(error.documents) - 1
        raise RowLengthError(
            f"{source.row_places[error.documents[0]]}: the answer, and what is scored with it, "
            f"needs a row of {error.needed[0]} tokens, and data.rows.length is {rows.length}"
            f"{f'; too long as well: {others:,} more' if others else ''}. "
            f"Use rows of {error.needed.max()} tokens, shorten the answers, or leave such rows out "
            "with data.rows.too_long: drop."
        ) from error
    if table.n_rows == 0:
        raise RowLengthError(
            f"{source.label}: all {corpus.n_documents:,} rows are longer than {rows.length} "
            "tokens. Use a longer data.rows.length, or data.rows.too_long: cut-prompt."
        )
    return table, padding


def refuse_questions(answers: AnswerSource | None) -> None:
    """Check that a source to train on does not hold questions with choices.

    Raises:
        ConfigError: It does.
    """
    if answers is not None and answers.kind == "questions with choices":
        raise ConfigError(
            f"{answers.label} holds questions with choices, which are for benchmarks. To train on "
            "the right ones, write them as rows with prompt and completion."
        )


def refuse_unfit_keys(
    rows: Rows, rules: AnswerRules, label: str, answers: AnswerSource | None
) -> None:
    """Check that every key that is set means something for the rows of a source.

    Args:
        rows: How they are cut.
        rules: How rows with answers are written, and which of their tokens are scored.
        label: The source, for people.
        answers: What is known of its rows with answers; None: it holds texts.

    Raises:
        ConfigError: A key is for the other kind of rows, or for answers of another kind.
    """
    if answers is None:
        _refuse_keys_of_answers(rows, rules, label)
    else:
        _refuse_keys_of_texts(rows, rules, answers)


def _refuse_keys_of_texts(rows: Rows, rules: AnswerRules, source: AnswerSource) -> None:
    refuse_unfit_rules(source.kind, source.label, rules)
    found = f"{source.label} holds rows with answers ({source.kind})"
    if rows.cut == "stream":
        raise ConfigError(
            f"data.rows.cut: stream joins texts, but {found}. Use lines, which gives one row each."
        )
    if rows.end == "scored":
        raise ConfigError(
            f"data.rows.end: scored is for texts, but {found}, whose end is scored in any case. "
            "Leave it out."
        )
    if not rows.strip:
        raise ConfigError(
            f"data.rows.strip: false is for texts, but {found}, which keep all their white space. "
            "Leave it out."
        )


def _refuse_keys_of_answers(rows: Rows, rules: AnswerRules, label: str) -> None:
    keys = {
        "data.completion_only_loss": rules.completion_only_loss is not None,
        "data.assistant_only_loss": rules.assistant_only_loss,
        "data.chat_template_path": rules.chat_template_path is not None,
        "data.rows.too_long": rows.too_long != "cut-prompt",
    }
    for key, is_set in keys.items():
        if is_set:
            raise ConfigError(
                f"{key} is for rows with answers, but {label} holds texts. Leave it out, or give "
                "rows with the columns prompt and completion, or messages."
            )


def refuse_protocol(protocol: SizedProtocol, benchmark: str, *, has_answers: bool) -> None:
    """Check that a protocol is for the kind of rows that a benchmark has.

    Raises:
        ConfigError: It is not.
    """
    if protocol.kind.scores_answers == has_answers:
        return
    kind = "rows with answers" if has_answers else "texts"
    fitting = protocol_of_rows(has_answers=has_answers).pattern
    raise ConfigError(
        f"benchmark {benchmark!r} holds {kind}, and the protocol {protocol.name!r} does not score "
        f"them. Use {fitting}."
    )
