"""Rows with answers become tokens: which of them are scored, and what each of them is.

The masks are those of TRL's SFTTrainer (1.16), by the same names. `completion_only_loss` scores
the tokens from where those of the prompt and of the prompt with its completion diverge.
`assistant_only_loss` scores what a chat template puts between `{% generation %}` and
`{% endgeneration %}`. With neither, every token is scored. A completion in plain text is followed
by the end-of-text token, as the tokenizer's own special tokens are: nothing else is added.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lorastudy.data.examples import IN_PLAIN_TEXT, Example, ExampleKind
from lorastudy.data.messages import REPAIR, Turns
from lorastudy.data.turns import ANSWER, END, HEADER, PROMPT, AnswerTokenizer, TurnReader, Written
from lorastudy.errors import ConfigError, InputError, UserError, reason_of

_SCORED = 0x80  # of a stored mark; the other bits are the class
_BATCH = 500  # rows at once
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # as transformers looks for it

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """How rows with answers are written, and which of their tokens are scored."""

    completion_only_loss: bool | None = None  # None: yes, where there are completions
    assistant_only_loss: bool = False
    chat_template_path: str | None = None  # None: the chat template is that of the tokenizer


ALL_ANSWERS = AnswerRules()  # what a study scores that says nothing


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """A row with an answer as n tokens."""

    text: str
    ids: NDArray[np.int64]  # (n,)
    is_scored: NDArray[np.bool_]  # (n,)
    classes: NDArray[np.uint8]  # (n,) places in ANSWER_CLASSES

    @property
    def marks(self) -> NDArray[np.uint8]:
        """Classes and targets in one number per token, as they are stored: (n,)."""
        return self.classes | np.where(self.is_scored, _SCORED, 0).astype(np.uint8)


def read_marks(marks: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Which tokens are scored, and their classes, of marks as they are stored: both (n,)."""
    return marks >= _SCORED, (marks & (_SCORED - 1)).astype(np.uint8)


def refuse_unfit_rules(kind: ExampleKind, label: str, rules: AnswerRules) -> None:
    """Check that every rule means something for rows of this kind.

    Raises:
        ConfigError: One does not.
    """
    if rules.completion_only_loss is not None and kind == "messages":
        raise ConfigError(
            f"data.completion_only_loss: {label} holds messages, without a prompt and a "
            "completion. Leave it out; data.assistant_only_loss: true scores answers alone."
        )
    if kind not in IN_PLAIN_TEXT:
        return
    for key, is_set in (
        ("data.assistant_only_loss", rules.assistant_only_loss),
        ("data.chat_template_path", rules.chat_template_path is not None),
    ):
        if is_set:
            raise ConfigError(
                f"{key} is for messages, but {label} holds prompts and completions in plain text. "
                "Leave it out."
            )


def _refuse_template(examples: Sequence[Example], rules: AnswerRules, template: str | None) -> None:
    """Check that there is a chat template for messages, with the marks that `rules` need."""
    if examples[0].kind in IN_PLAIN_TEXT:
        return
    if template is None:
        raise InputError(
            f"{examples[0].place} holds messages, and the tokenizer has no chat template that says "
            "how they are written. Name one with data.chat_template_path, or choose a base model "
            "that has one, as most models for chats do."
        )
    if rules.assistant_only_loss and not _GENERATION.search(template):
        raise ConfigError(
            "data.assistant_only_loss: the chat template does not mark answers with "
            "{% generation %} and {% endgeneration %}. Name a template that does with "
            "data.chat_template_path."
        )


def encode_examples(
    examples: Sequence[Example], tokenizer: AnswerTokenizer, rules: AnswerRules
) -> Iterator[EncodedExample]:
    """Every row as tokens. Rules that mean nothing for rows of this kind are left aside.

    Raises:
        ConfigError: The chat template lacks the marks that a rule needs.
        InputError: A template fails or a row has no target, with the row's place; or no end of a
            turn is ever scored.
    """
    _refuse_template(examples, rules, tokenizer.chat_template)
    encoder = _Encoder(tokenizer, rules)
    has_answer = has_end = False
    for begin in range(0, len(examples), _BATCH):
        part = examples[begin : begin + _BATCH]
        for example, encoded in zip(part, encoder.encode(part), strict=True):
            starts_scored = encoded.is_scored[:1].any() and example.prompt
            if starts_scored and rules.completion_only_loss is not False:
                raise InputError(
                    f"{example.place}: the prompt has no token of its own, so nothing stands "
                    "before the answer. Repair or remove the row."
                )
            if not encoded.is_scored[1:].any():
                raise InputError(
                    f"{example.place}: no token of it is scored. Repair or remove the row, or "
                    "let the chat template mark its answer."
                )
            has_answer = has_answer or ANSWER in encoded.classes
            has_end = has_end or END in encoded.classes
            yield encoded
    if not has_answer:
        raise InputError(
            f"{examples[0].place} and all rows after it: the chat template does not write the text "
            "of answers, as templates for pictures do that want parts in place of text. Name "
            "another one with data.chat_template_path."
        )
    if not has_end:
        raise InputError(
            f"{examples[0].place} and all rows after it: no token that ends an answer is scored, "
            "so a model would not learn to stop. The chat template has to write such a token after "
            "every answer, before {% endgeneration %}; name another one with "
            "data.chat_template_path."
        )


class _Encoder:
    """Encodes rows of one kind."""

    def __init__(self, tokenizer: AnswerTokenizer, rules: AnswerRules) -> None:
        self._tokenizer, self._rules = tokenizer, rules
        self._reader = TurnReader(tokenizer)

    def encode(self, examples: Sequence[Example]) -> list[EncodedExample]:
        if isinstance(examples[0].completion, str):
            return self._encode_texts(examples)
        return self._encode_chats(examples)

    def _encode_texts(self, examples: Sequence[Example]) -> list[EncodedExample]:
        end = self._tokenizer.end_of_text
        prompts = [str(example.prompt) for example in examples]
        answers = [str(example.completion).removesuffix(end) for example in examples]
        for example, answer in zip(examples, answers, strict=True):
            if not answer.strip():
                raise InputError(
                    f"{example.place} has no answer: its completion is only {end}. {REPAIR}"
                )
        texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        read = self._tokenizer.write_texts(prompts)
        found = []
        for before, whole in zip(
            read, self._tokenizer.write_texts([text + end for text in texts]), strict=True
        ):
            n_prompt = _common_length(before.ids, whole.ids)
            is_completion = np.arange(len(whole.ids)) >= n_prompt
            classes = np.where(is_completion, ANSWER, PROMPT).astype(np.uint8)
            is_special = np.array([i in self._tokenizer.added_ids for i in whole.ids], dtype=bool)
            n_trailing = int(np.argmin(is_special[::-1]))  # the end, once or twice
            classes[len(classes) - n_trailing :] = END
            found.append(self._mark(whole, is_completion, classes))
        return found

    def _encode_chats(self, examples: Sequence[Example]) -> list[EncodedExample]:
        wholes = [_turns(example.prompt) + _turns(example.completion) for example in examples]
        written = write_row_by_row(
            examples,
            wholes,
            lambda chats: self._tokenizer.write_chats(
                chats, marks_assistant=self._rules.assistant_only_loss
            ),
        )
        has_prompt = bool(examples[0].prompt)
        n_prompts = [0] * len(examples)
        if has_prompt:
            prompts = [_turns(example.prompt) for example in examples]
            read = write_row_by_row(
                examples,
                prompts,
                lambda chats: self._tokenizer.write_chats(chats, adds_header=True),
            )
            n_prompts = [_common_length(a.ids, b.ids) for a, b in zip(read, written, strict=True)]
        return [
            self._mark(
                row,
                np.arange(len(row.ids)) >= n_prompt if has_prompt else None,
                self._reader.classify(row, turns),
            )
            for row, turns, n_prompt in zip(written, wholes, n_prompts, strict=True)
        ]

    def _mark(
        self, row: Written, is_completion: NDArray[np.bool_] | None, classes: NDArray[np.uint8]
    ) -> EncodedExample:
        """The row with its targets; answers that are not scored count as part of the prompt."""
        is_scored = np.ones(len(row.ids), dtype=bool)
        if is_completion is not None and self._rules.completion_only_loss in (None, True):
            is_scored &= is_completion
        if row.by_assistant is not None:
            is_scored &= np.array(row.by_assistant, dtype=bool)
        classes = classes.copy()
        classes[~is_scored & (classes == ANSWER)] = PROMPT
        classes[~is_scored & (classes == END)] = HEADER
        return EncodedExample(row.text, np.array(row.ids, dtype=np.int64), is_scored, classes)


def _turns(part: str | Turns) -> Turns:
    assert not isinstance(part, str), "all rows of a source are of one kind"
    return part


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def write_row_by_row(
    examples: Sequence[Example],
    chats: Sequence[Turns],
    write: Callable[[Sequence[Turns]], list[_T]],
) -> list[_T]:
    """What `write` makes of all chats.

    Raises:
        InputError: It fails; the message names the first bad row.
    """
    try:
        return write(chats)
    except UserError:
        raise
    except Exception:  # a template raises what it likes
        for example, chat in zip(examples, chats, strict=True):
            try:
                write([chat])
            except Exception as error:
                raise InputError(
                    f"{example.place}: the chat template fails: {reason_of(error)}. "
                    "Change the row, or name another template with data.chat_template_path."
                ) from error
        raise


def digest_rules(tokenizer: AnswerTokenizer, rules: AnswerRules) -> str:
    """What decides the tokens and marks of rows, besides their content and the vocabulary."""
    return json.dumps(
        [tokenizer.chat_template, rules.completion_only_loss, rules.assistant_only_loss]
    )
