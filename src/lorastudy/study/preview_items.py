"""Items of tasks as the model reads them: prompts, each choice after its prompt, what is right."""

from collections.abc import Iterator

from lorastudy.model.tokenizer import Tokenizer
from lorastudy.run.tasks import AskedText, TaskItems
from lorastudy.study.seen_rows import (
    SEEN_CLASSES,
    ClassCount,
    PreviewPart,
    PreviewRow,
    SeenClass,
    Segment,
    decode_tokens,
)

_CHOSEN = "Each choice is read after its prompt, and the likeliest one is the model's answer."
_GIVEN = "The answer is read after its prompt, and is right where the task says so."
_WRITTEN = (
    "The model writes an answer after each prompt. The answer shown is the right one; the model "
    "does not read it."
)


def describe_items(name: str, items: TaskItems, n_items: int) -> PreviewPart:
    """What the model reads for the items of a task, and what is right."""
    asked = items.list_asked()
    texts = [text for item in asked for text in item]
    longest = max(texts, key=lambda text: len(text.read.ids) - text.n_cut)
    shown = [text for item in asked[:n_items] for text in item]
    shown += [longest] if longest not in shown else []
    counts: dict[SeenClass, list[int]] = {}
    for text in texts:
        for token_class, n_tokens, is_scored in _cut_asked(text):
            count = counts.setdefault(token_class, [0, 0])
            count[0] += n_tokens
            count[1] += n_tokens * is_scored
    note = _CHOSEN if len(texts) > len(asked) else _GIVEN
    return PreviewPart(
        name=name,
        n_documents=len(asked),
        n_rows=len(texts),
        length=items.protocol.length,
        classes=tuple(ClassCount(c, *counts[c]) for c in SEEN_CLASSES if c in counts),
        longest=longest.place,
        n_without_row=0,
        without_row=(),
        rows=tuple(_show_asked(text, items.tokenizer) for text in shown),
        note=_WRITTEN if longest.answer is not None else note,
    )


def _cut_asked(text: AskedText) -> Iterator[tuple[SeenClass, int, bool]]:
    """The parts of what is read for an item: class, tokens, and whether they are scored."""
    parts: tuple[tuple[SeenClass, int, bool], ...] = (
        ("cut-off", text.n_cut, False),
        ("prompt", text.read.n_context - text.n_cut, False),
        ("answer" if text.is_right else "wrong", text.read.n_targets, True),
    )
    return (part for part in parts if part[1])


def _show_asked(text: AskedText, tokenizer: Tokenizer) -> PreviewRow:
    segments, begin, before = [], 0, None
    for token_class, n_tokens, is_scored in _cut_asked(text):
        ids = list(text.read.ids[begin : begin + n_tokens])
        tokens = decode_tokens(tokenizer, ids, before)
        segments.append(Segment(token_class, is_scored, n_tokens, tokens))
        begin, before = begin + n_tokens, ids[-1]
    if text.answer is not None:
        segments.append(Segment("answer", False, 0, (text.answer,)))
    return PreviewRow(text.place, begin - text.n_cut, text.read.n_targets, tuple(segments))
