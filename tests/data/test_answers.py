"""Rows with answers: what is read, which tokens are scored, and what is refused by its place."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorastudy.config.models import Source
from lorastudy.data.answers import ALL_ANSWERS, AnswerRules, encode_examples
from lorastudy.data.batches import Padding, count_scored, make_batch
from lorastudy.data.examples import read_example
from lorastudy.data.rows import Marks, TooLongError, cut_answers
from lorastudy.data.sources import Documents, read_documents
from lorastudy.data.turns import ANSWER, END, HEADER, PROMPT
from lorastudy.errors import ConfigError, InputError, UserError
from lorastudy.loss import IGNORE_INDEX
from lorastudy.model.tokenizer import Tokenizer, load_tokenizer
from support.chats import END as END_OF_TEXT
from support.chats import TEMPLATE, WITHOUT_MARKS, say, write_rows

ONLY_ASSISTANT = AnswerRules(assistant_only_loss=True)
words = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=6)
each_template = pytest.mark.parametrize("template", [TEMPLATE, WITHOUT_MARKS])


@pytest.fixture(scope="module")
def tokenizer_with(byte_tokenizer: Path) -> Callable[[str | None], Tokenizer]:
    return cache(lambda template: load_tokenizer(byte_tokenizer, template))


def encode(tokenizer: Tokenizer, *values: Any, rules: AnswerRules = ALL_ANSWERS) -> dict[str, str]:
    """What is scored, and what each class spells, of one row; and all of it."""
    (row,) = encode_examples([read_example("row 1", values)], tokenizer, rules)
    classes = {"prompt": PROMPT, "header": HEADER, "answer": ANSWER, "end": END}
    chosen = {name: row.classes == number for name, number in classes.items()}
    chosen |= {"scored": row.is_scored, "all": np.ones(len(row.ids), dtype=bool)}
    return {name: tokenizer.backend.decode(row.ids[mask]) for name, mask in chosen.items()}


@given(words, words, words, words)
@settings(max_examples=40)
def test_scored_tokens_spell_the_answers_and_their_ends(
    tokenizer_with: Callable[[str | None], Tokenizer], q: str, a: str, r: str, b: str
) -> None:
    marked, plain = tokenizer_with(TEMPLATE), tokenizer_with(WITHOUT_MARKS)
    whole = (
        f"[user]\n{q}\n[assistant]\n{a}{END_OF_TEXT}\n[user]\n{r}\n[assistant]\n{b}{END_OF_TEXT}\n"
    )
    both = encode(marked, say(q, a, r, b), rules=ONLY_ASSISTANT)
    assert both["all"] == whole
    assert both["scored"] == a + END_OF_TEXT + b + END_OF_TEXT
    assert (both["prompt"], both["answer"]) == (q + r, a + b)
    # of a prompt and its completion, all that follows the header of the last turn
    last = encode(plain, say(q, a, r), say("", b)[1:])
    assert (last["all"], last["scored"]) == (whole, f"{b}{END_OF_TEXT}\n")
    assert (last["prompt"], last["answer"], last["end"]) == (q + a + r, b, END_OF_TEXT)
    # every token of a conversation, unless its answers are asked for
    assert encode(plain, say(q, a, r, b))["scored"] == whole


@given(words, words)
@settings(max_examples=20)
def test_a_completion_in_plain_text_is_scored_with_its_end(
    tokenizer_with: Callable[[str | None], Tokenizer], q: str, a: str
) -> None:
    tokenizer = tokenizer_with(None)
    found = encode(tokenizer, q, a)
    assert (found["all"], found["scored"]) == (q + a + END_OF_TEXT, a + END_OF_TEXT)
    assert (found["prompt"], found["answer"], found["end"]) == (q, a, END_OF_TEXT)
    assert encode(tokenizer, q, a + END_OF_TEXT) == found  # an end that is there is not repeated
    with pytest.raises(InputError, match=r"row 1 has no answer: its completion is only"):
        encode(tokenizer, q, f" {END_OF_TEXT}")
    everything = encode(tokenizer, q, a, rules=AnswerRules(completion_only_loss=False))
    assert everything["scored"] == found["all"]


def test_a_letter_of_the_template_is_not_taken_for_a_content(
    tokenizer_with: Callable[[str | None], Tokenizer],
) -> None:
    found = encode(tokenizer_with(TEMPLATE), say("s", "[", "user", "]"), rules=ONLY_ASSISTANT)
    assert (found["prompt"], found["answer"]) == ("suser", "[]")


OFFSETS, N = [0, 6, 9, 19], 19  # documents of 6, 3 and 10 tokens
SCORED = np.isin(np.arange(N), [3, 5, 8, 15, 16, 18])
MARKS = Marks(SCORED, np.where(SCORED, ANSWER, PROMPT).astype(np.uint8))


def test_long_rows_lose_the_beginning_of_their_prompt_and_no_target() -> None:
    table = cut_answers(OFFSETS, 5, MARKS, drops_long=False)
    assert table.begins.tolist() == [1, 6, 14] and table.ends.tolist() == [6, 9, 19]
    assert table.n_scored.tolist() == [2, 1, 3]
    dropped = cut_answers(OFFSETS, 6, MARKS, drops_long=True)
    assert dropped.documents.tolist() == [0, 1]
    with pytest.raises(TooLongError) as refused:
        cut_answers(OFFSETS, 4, MARKS, drops_long=False)
    assert (refused.value.documents.tolist(), refused.value.needed.tolist()) == ([2], [5])


def test_batches_have_the_targets_of_the_mask_and_no_others() -> None:
    table = cut_answers(OFFSETS, 5, MARKS, drops_long=False)
    tokens, rows = np.arange(100, 100 + N), np.array([2, 0, 1])
    batch = make_batch(tokens, table, rows, Padding(0))
    _ = IGNORE_INDEX
    assert batch.input_ids.tolist() == [
        [114, 115, 116, 117],
        [101, 102, 103, 104],
        [106, 107, 108, 0],
    ]
    assert batch.targets.tolist() == [[115, 116, _, 118], [_, 103, _, 105], [_, 108, _, _]]
    assert batch.n_scored == count_scored(table, rows, Padding(0)) == 6


PAIRS = [{"prompt": "2 + 2 =", "completion": " 4"}, {"prompt": "1 + 1 =", "completion": " 2"}]
CHATS = [{"messages": say("Who?", "I.", system="Be short.")}, {"messages": say("a", "b", "c", "d")}]


def read(path: Path, **keys: Any) -> Documents:
    source = Source.model_validate({"path": path.name, **keys})
    return read_documents(source, mirror=None, offline=True, base=path.parent)


ASKED_CHATS = [{"prompt": say(q), "completion": say("", a)[1:]} for q, a in ("Aa", "Bb")]


@pytest.mark.parametrize("rows", [PAIRS, CHATS, ASKED_CHATS], ids=["pairs", "chats", "asked"])
def test_every_format_gives_the_same_rows(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    lines = write_rows(tmp_path / "rows.jsonl", rows)
    one = tmp_path / "rows.json"
    one.write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    csv = tmp_path / "rows.csv"
    named = {"column": "messages"} if "messages" in rows[0] else {}
    cells = [[v if isinstance(v, str) else json.dumps(v) for v in row.values()] for row in rows]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells]
    csv.write_text("\n".join([",".join(rows[0]), *quoted]) + "\n")
    found = [
        [(e.prompt, e.completion) for e in read(path, **keys).examples]
        for path in (lines, one, tmp_path / "rows.parquet", csv)
        for keys in ({}, named)
    ]
    assert all(rows == found[0] for rows in found)
    assert len(found[0]) == 2 and read(lines, limit=1).examples[0].place.endswith("line 1")


def test_columns_that_would_change_messages_may_be_there_if_they_are_empty(
    tmp_path: Path,
) -> None:
    rows = [{**CHATS[0], "tools": None, "chat_template_kwargs": {}}]
    assert read(write_rows(tmp_path / "rows.jsonl", rows)).examples[0].kind == "messages"


def test_the_named_column_is_read_where_it_is_there(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"text": "t", **PAIRS[0], "turns": say("q", "a")}])
    assert read(path).texts == ("t",)
    assert read(path, column="prompt").texts == ("2 + 2 =",)
    assert read(path, column="turns").examples[0].kind == "messages"
    with pytest.raises(InputError, match="message 1 of turns has the keys from"):
        read(write_rows(path, [{"turns": [{"from": "user"}]}]), column="turns")


def test_a_column_of_messages_may_hold_texts_if_it_is_named(tmp_path: Path) -> None:
    texts = ("a", "[b] c", "[1]")
    path = write_rows(tmp_path / "rows.jsonl", [{"messages": text} for text in texts])
    assert read(path, column="messages").texts == texts


def test_columns_that_change_messages_are_refused_where_messages_are_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{**CHATS[0], "tools": [1], "text": "t"}])
    assert read(path).texts == ("t",)
    with pytest.raises(InputError, match="'tools' changes how messages"):
        read(path, column="messages")


ASKED = say("q", "a")
REFUSED = {
    "no answer: its completion is blank": {"prompt": "q", "completion": " "},
    "the prompt is empty": {"prompt": "", "completion": "a"},
    "prompt is text and completion is a list": {"prompt": "q", "completion": ASKED[1:]},
    "no answer: its completion is nothing (null)": {"prompt": "q", "completion": None},
    "the prompt ends with a message of 'assistant'": {
        "prompt": ASKED,
        "completion": say("q", "a"),
    },
    "no answer: its last message is of 'user'": {"messages": ASKED[:1]},
    "message 2 of messages has no answer": {"messages": say("q", " ")},
    "message 1 is of 'assistant', where 'user'": {"messages": ASKED[1:]},
    "message 2 is of 'user', where 'assistant'": {"messages": [ASKED[0], *ASKED]},
    "the role 'tool' is not one of": {"messages": [{"role": "tool", "content": "x"}]},
    "messages is an empty list": {"messages": []},
    "messages is text, not a list": {"messages": "q"},
    "not role and content. Rename from to role": {"messages": [{"from": "user", "value": "q"}]},
    "the content is a list": {"messages": [{"role": "user", "content": ["q"]}]},
    "also has tool_calls": {"messages": [ASKED[0], {**ASKED[1], "tool_calls": [1]}]},
    "'tools' changes how messages are written": {"messages": ASKED, "tools": [1]},
    "is of another kind": {"text": "t"},
    "has no answer: there is a prompt, and no completion": {"prompt": "q"},
    "prompt is of type int, neither text nor": {"prompt": 1, "completion": "a"},
    "NUL": {"prompt": "q", "completion": "a\0"},
    "prompt is text, not a list of messages such as": {
        "prompt": str(ASKED[:1]),  # as Python shows a list, which is not JSON
        "completion": str(ASKED[1:]),
    },
}


@pytest.mark.parametrize(("message", "row"), REFUSED.items(), ids=[*REFUSED])
def test_a_bad_row_is_refused_with_its_line(message: str, row: Any, tmp_path: Path) -> None:
    good = CHATS[0] if "messages" in row else PAIRS[0]
    path = write_rows(tmp_path / "rows.jsonl", [good, row])
    with pytest.raises(InputError, match=r"rows\.jsonl, line 2") as refused:
        read(path)
    assert message in str(refused.value)


json_values = st.recursive(
    st.none() | st.integers(-2, 2) | st.sampled_from(["", "q", "user", "assistant", "[]"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "name"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(json_values, min_size=1, max_size=2))
@settings(max_examples=150)
def test_any_values_are_a_row_with_an_answer_or_are_refused(values: list[Any]) -> None:
    try:
        example = read_example("row 1", values)
    except InputError as error:
        assert str(error).startswith("row 1")
    else:
        assert example.texts[-1].strip()


def test_rows_of_two_kinds_are_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [*PAIRS, *CHATS])
    with pytest.raises(InputError, match=r"line 3 holds messages, and .*line 1 holds prompts"):
        read(path)


@pytest.mark.parametrize(
    ("template", "rules", "error", "message"),
    [
        (None, AnswerRules(), InputError, "row 1 holds messages, and the tokenizer has no chat"),
        (WITHOUT_MARKS, ONLY_ASSISTANT, ConfigError, "does not mark answers"),
        (TEMPLATE.replace(END_OF_TEXT, ""), ONLY_ASSISTANT, InputError, "would not learn to stop"),
        (
            TEMPLATE.replace(
                f"{END_OF_TEXT}{{% endgeneration %}}", f"{{% endgeneration %}}{END_OF_TEXT}"
            ),
            ONLY_ASSISTANT,
            InputError,
            "would not learn to stop",
        ),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", AnswerRules(), InputError, "not write"),
        ("{{ messages[2].content }}", AnswerRules(), InputError, "row 1: the chat template fails"),
        ("{% if %}", AnswerRules(), InputError, "row 1: the chat template fails"),
        ("", AnswerRules(), InputError, "row 1: no token of it is scored"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(
    template: str | None,
    rules: AnswerRules,
    error: type[UserError],
    message: str,
    tokenizer_with: Callable[[str | None], Tokenizer],
) -> None:
    with pytest.raises(error, match=message):
        encode(tokenizer_with(template), say("q", "a"), rules=rules)


@each_template
def test_the_row_that_a_template_refuses_is_named(
    template: str, tokenizer_with: Callable[[str | None], Tokenizer]
) -> None:
    picky = "{% if messages[0].content == 'bad' %}{{ raise_exception('no') }}{% endif %}" + template
    rows = [read_example(f"row {n}", [say(q, "a")]) for n, q in enumerate(["q", "bad", "bad"], 1)]
    with pytest.raises(InputError, match="row 2: the chat template fails: TemplateError: no"):
        list(encode_examples(rows, tokenizer_with(picky), AnswerRules()))
