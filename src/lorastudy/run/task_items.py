"""The items of a task as a model will read them, after everything about them was checked."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lorastudy.config.benchmarks import Generation, TaskRules
from lorastudy.data.answers import write_row_by_row
from lorastudy.data.examples import Example, digest_examples
from lorastudy.errors import ConfigError, InputError
from lorastudy.evaluate.judging import (
    JudgeText,
    equals_number,
    equals_text,
    find_code,
    find_number,
    load_function,
    refuse_judge,
)
from lorastudy.evaluate.pairs import TokenPair, encode_pairs
from lorastudy.evaluate.protocols import SizedProtocol
from lorastudy.model.generating import Ids
from lorastudy.model.tokenizer import Tokenizer
from lorastudy.run.tasks import OwnItems
from lorastudy.seeds import open_stream


def prepare_items(
    rules: TaskRules,
    protocol: SizedProtocol,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    base: Path,
) -> OwnItems:
    """The items of a task for one protocol.

    Args:
        rules: How they are chosen, and how answers are generated and judged.
        protocol: How they are scored; its length is what the model reads at most.
        examples: The rows; none if their source holds texts.
        tokenizer: The base model's.
        base: Folder of the study file.

    Raises:
        ConfigError: The rows are of another kind than the protocol is for, or the function cannot
            be loaded.
        InputError: A prompt with its answer does not fit into the model, or cannot be written.
    """
    _refuse_kind(rules.label, protocol, examples)
    chosen = _draw(examples, rules.sample)
    items = OwnItems(
        protocol=protocol,
        examples=chosen,
        tokenizer=tokenizer,
        digest=_digest(rules, protocol, examples, base),
        n_population=None if rules.sample is None else len(examples),
        generation=rules.generation or Generation(),
    )
    if protocol.kind.chooses:
        return replace(items, pairs=_encode_choices(chosen, tokenizer, protocol.length))
    chosen = _leave_out_ends(chosen, tokenizer.end_of_text)
    items = replace(items, examples=chosen)
    prompts = write_prompts(chosen, tokenizer)
    refuse_long_prompts(chosen, prompts, items.generation.max_new_tokens, protocol.length)
    judge: JudgeText = equals_text
    if protocol.kind.judge == "number":
        _refuse_answers_without_number(chosen)
        judge = equals_number
    elif protocol.kind.judge == "function":
        assert rules.function is not None, "config requires it here"
        judge = load_function(rules.function, base)
        refuse_judge(judge, [(example.place, example.answer_text) for example in chosen])
    return replace(items, prompts=prompts, judge=judge)


def _refuse_kind(label: str, protocol: SizedProtocol, examples: Sequence[Example]) -> None:
    kind = examples[0].kind if examples else "texts"
    has_choices = kind == "questions with choices"
    if examples and protocol.kind.chooses == has_choices:
        return
    needed = (
        "questions with choices, in columns question, choices and answer"
        if protocol.kind.chooses
        else "prompts with answers, in columns prompt and completion, or messages"
    )
    raise ConfigError(f"{label} holds {kind}, and the protocol {protocol.name!r} is for {needed}.")


def _leave_out_ends(examples: Sequence[Example], end: str) -> tuple[Example, ...]:
    """The rows without an end-of-text token at the end of their answers; models' have none."""
    return tuple(
        replace(e, completion=e.completion.removesuffix(end))
        if isinstance(e.completion, str)
        else e
        for e in examples
    )


def _draw(examples: Sequence[Example], n: int | None) -> tuple[Example, ...]:
    """`n` random items in their order, the same for every arm and seed; None: all."""
    if n is None:
        return tuple(examples)
    drawn = open_stream(0, "benchmark-sample").permutation(len(examples))[:n]
    return tuple(examples[i] for i in sorted(drawn.tolist()))


def _digest(
    rules: TaskRules, protocol: SizedProtocol, examples: Sequence[Example], base: Path
) -> str:
    """SHA-256 over all items, and over what decides which answers are right."""
    named = rules.function or ""
    path = find_code(named, base)
    code = "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
    how = rules.generation.model_dump(mode="json") if rules.generation else {}
    parts = [digest_examples(examples), protocol.name, protocol.length, named, code, how]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _encode_choices(
    examples: Sequence[Example], tokenizer: Tokenizer, length: int
) -> tuple[TokenPair, ...]:
    """The prompt with each of its choices, item by item.

    Raises:
        InputError: A choice adds no token to its prompt, or they are too long for the model.
    """
    asked = [(e, text) for e in examples for text in e.continuations]
    pairs = tuple(encode_pairs([(str(e.prompt), text) for e, text in asked], tokenizer))
    for (example, text), pair in zip(asked, pairs, strict=True):
        if pair.n_targets < 1:
            raise InputError(
                f"{example.place}: no token belongs to the choice {text.strip()!r} alone. "
                "Repair or remove the row."
            )
        if len(pair.ids) - 1 > length:
            raise InputError(
                f"{example.place}: the prompt with the choice {text.strip()[:40]!r} has "
                f"{len(pair.ids):,} tokens, and the model reads {length:,}. Shorten or remove the "
                "row."
            )
    return pairs


def write_prompts(examples: Sequence[Example], tokenizer: Tokenizer) -> tuple[Ids, ...]:
    """The tokens after which an answer is generated.

    Raises:
        InputError: There are none, or the chat template fails; the message names the row.
    """
    if isinstance(examples[0].asked, str):
        written = tokenizer.write_texts([str(example.asked) for example in examples])
    else:
        if tokenizer.chat_template is None:
            raise InputError(
                f"{examples[0].place} holds messages, and the tokenizer has no chat template that "
                "says how they are written. Name one with data.chat_template_path."
            )
        chats = [turns for e in examples if not isinstance(turns := e.asked, str)]
        written = write_row_by_row(
            examples, chats, lambda part: tokenizer.write_chats(part, adds_header=True)
        )
    prompts = []
    for example, row in zip(examples, written, strict=True):
        ids = tuple(row.ids)
        if ids[-1:] == (tokenizer.end_id,) and not row.text.endswith(tokenizer.end_of_text):
            ids = ids[:-1]  # some tokenizers end every text
        if not ids:
            raise InputError(f"{example.place}: the prompt has no token. Repair or remove the row.")
        prompts.append(ids)
    return tuple(prompts)


def refuse_long_prompts(
    examples: Sequence[Example], prompts: Sequence[Ids], n_new: int, length: int
) -> None:
    """Check that the model has positions for every prompt and `n_new` tokens after it.

    Raises:
        InputError: It does not; the message names the first row.
    """
    too_long = [(e, len(p)) for e, p in zip(examples, prompts, strict=True)]
    too_long = [(e, n) for e, n in too_long if n + n_new - 1 > length]
    if too_long:
        example, n = too_long[0]
        others = len(too_long) - 1
        raise InputError(
            f"{example.place}: the prompt has {n:,} tokens, with max_new_tokens "
            f"{n_new:,} that is more than the {length:,} positions of the model"
            f"{f'; too long as well: {others:,} more' if others else ''}. Lower "
            "max_new_tokens, or shorten or remove the rows."
        )


def _refuse_answers_without_number(examples: Sequence[Example]) -> None:
    for example in examples:
        if find_number(example.answer_text) is None:
            raise InputError(
                f"{example.place}: the answer {example.answer_text[:40]!r} has no number, so "
                "numeric-match cannot judge it. Repair or remove the row, or use exact-match."
            )
