"""`preview`: what it shows of rows is what the model reads and what is scored."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import yaml
from tokenizers.decoders import Fuse, Replace, Sequence, Strip
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from lorastudy.model.tokenizer import load_tokenizer
from lorastudy.study.open import open_study
from lorastudy.study.preview import preview_study
from lorastudy.study.seen_rows import Preview, decode_tokens
from support.chats import END, TEMPLATE, say, write_rows
from support.command_line import call
from support.tiny_runs import OTHER, TRAIN, make_study, write_texts

CHATS = [{"messages": say(f"What is {n}?", f"{n} é.")} for n in (1, 22)]
LONG = {"messages": say("y" * 60, "z")}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts, chats and a template; commands start there."""
    write_texts(tmp_path)
    write_rows(tmp_path / "chats.jsonl", [*CHATS, LONG])
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_study(base: Path, **changes: Any) -> str:
    study = make_study(base, **changes).model_dump(mode="json", exclude_none=True)
    study["arms"] = [{"name": "base", "method": "baseline"}]
    Path("study.yaml").write_text(yaml.safe_dump(study))
    return "study.yaml"


def write_chat_study(base: Path, too_long: str) -> str:
    data = {
        "train": {"path": "chats.jsonl"},
        "validation": {"path": "chats.jsonl"},
        "rows": {"cut": "lines", "length": 64, "too_long": too_long},
        "assistant_only_loss": True,
        "chat_template_path": "chat.jinja",
    }
    training = {"epochs": 1, "rows_per_step": 1, "micro_batch": 1}
    return write_study(base, data=data, training=training, benchmarks=())


def look(path: str, n_rows: int = 9) -> Preview:
    opened = open_study(path)
    return preview_study(opened.study, opened.places, n_rows=n_rows)


def spell(row: Any, *, is_scored: bool | None = None, without: tuple[str, ...] = ()) -> str:
    return "".join(
        text
        for segment in row.segments
        if is_scored in (None, segment.is_scored) and segment.token_class not in without
        for text in segment.tokens
    )


def test_rows_of_messages_are_shown_as_they_are_read_and_scored(
    desk: Path, tiny_gpt2: Path
) -> None:
    part = look(write_chat_study(tiny_gpt2, "cut-prompt")).parts[0]
    for row, chat in zip(part.rows, CHATS, strict=False):
        question, answer = (turn["content"] for turn in chat["messages"])
        assert spell(row) == f"[user]\n{question}\n[assistant]\n{answer}{END}\n"
        assert spell(row, is_scored=True) == answer + END
    cut = part.rows[2]
    n_cut = len(f"[user]\n{'y' * 60}\n[assistant]\nz\n") + 1 - 64
    assert (cut.n_tokens, cut.segments[0].token_class, cut.segments[0].n_tokens) == (
        *(64, "cut-off"),
        n_cut,
    )
    assert (
        spell(cut).startswith("[user]\nyyy") and part.longest == part.longest_row.place == cut.place
    )
    counts = {c.token_class: (c.n_tokens, c.n_scored) for c in part.classes}
    assert counts["cut-off"] == (n_cut, 0) and counts["end-of-turn"] == (3, 3)
    assert sum(n for n, _ in counts.values()) == 3 * 64 + n_cut
    assert sum(n for _, n in counts.values()) == sum(row.n_scored for row in part.rows)
    left_out = look("study.yaml").parts[0]
    assert left_out.n_without_row == 0
    left_out = look(write_chat_study(tiny_gpt2, "drop")).parts[0]
    assert left_out.without_row == (f"{desk}/chats.jsonl, line 3",) and left_out.n_rows == 2


def test_rows_of_texts_are_shown_with_padding_that_is_scored(desk: Path, tiny_gpt2: Path) -> None:
    train, validation, text, padded, blocks = look(write_study(tiny_gpt2)).parts
    assert [spell(row, without=("start",)) for row in train.rows] == TRAIN[:9]
    assert {c.token_class for c in train.classes} == {"start", "text", "cut-off", "padding"}
    assert [spell(row, is_scored=True) for row in validation.rows] == [text[:47] for text in OTHER]
    n_padding = sum(48 - 1 - min(47, len(text)) for text in OTHER)
    for part, n_scored in ((text, 0), (padded, n_padding)):
        (count,) = (c for c in part.classes if c.token_class == "padding")
        assert (count.n_tokens, count.n_scored) == (n_padding, n_scored)
    # windows side by side hold the joined text once, whatever document it comes from
    joined = "\n\n".join(reversed(OTHER))
    assert "".join(spell(row) for row in blocks.rows) == joined


def test_a_sampled_benchmark_shows_all_its_rows_and_one_is_the_longest(
    desk: Path, tiny_gpt2: Path
) -> None:
    benchmark = {"name": "tale", "path": "test.txt", "protocols": ("blocks-16",)}
    whole = look(write_study(tiny_gpt2, benchmarks=(benchmark,))).parts[2]
    assert look(write_study(tiny_gpt2, benchmarks=({**benchmark, "sample": 2},))).parts[2] == whole
    shown = call("preview", "study.yaml", "--part", "tale--blocks-16", "-n", "3").out
    assert shown.count("document 1: 16 tokens") == 3 and shown.count("the longest row") == 1


def test_items_of_tasks_are_shown_as_they_are_asked(desk: Path, tiny_gpt2: Path) -> None:
    """Prompts may be longer than rows of training, since a task reads the model's context."""
    quiz = [{"question": "Which?", "choices": ["a", "bc"], "answer": 1}]
    asked = [{"prompt": f"{'Well, ' * 8}{n}?", "completion": f" {n}!"} for n in (7, 88)]
    write_rows(desk / "quiz.jsonl", quiz)
    write_rows(desk / "asked.jsonl", asked)
    how = {"generation": {"max_new_tokens": 4}}
    choice = {"name": "quiz", "path": "quiz.jsonl", "protocols": ("choice",)}
    match = {"name": "asked", "path": "asked.jsonl", "protocols": ("exact-match",), **how}
    path = write_study(tiny_gpt2, benchmarks=(choice, match))
    *_, choices, written = look(path).parts
    assert [(spell(r), spell(r, is_scored=True)) for r in choices.rows] == [
        ("Which? a", " a"),
        ("Which? bc", " bc"),
    ]
    assert [row.segments[-1].token_class for row in choices.rows] == ["wrong", "answer"]
    assert [row.place.rpartition(", ")[2] for row in choices.rows] == [
        "choice 1 of 2",
        "choice 2 of 2",
    ]
    assert (choices.n_documents, choices.n_rows) == (1, 2)
    assert {c.token_class: (c.n_tokens, c.n_scored) for c in choices.classes} == {
        "prompt": (2 * 6, 0),
        "answer": (3, 3),
        "wrong": (2, 2),
    }
    for row, example in zip(written.rows, asked, strict=True):
        prompt, answer = row.segments
        assert ("".join(prompt.tokens), prompt.n_tokens) == (
            example["prompt"],
            len(example["prompt"]),
        )
        assert (answer.tokens, answer.n_tokens, answer.is_scored) == (
            (example["completion"],),
            0,
            False,
        )
    shown = call("preview", path, "--part", "quiz--choice").out
    assert "wrong       * ␣a" in shown and "answer      * ␣bc" in shown
    assert "The model writes an answer" in call("preview", path, "--part", "asked--exact-match").out


def test_the_terminal_says_without_colour_what_is_scored(desk: Path, tiny_gpt2: Path) -> None:
    answer = call("preview", write_chat_study(tiny_gpt2, "drop"), "-n", "1")
    assert answer.code == 0, answer.err
    lines = [line.rstrip() for line in answer.out.splitlines()]
    assert "answer      * 1 é." in lines and f"end of turn * {END}" in lines
    assert "prompt        What is 1?" in lines
    said = "".join(answer.out.split())  # lines are broken anywhere, for a path is long
    assert re.search(r"1documentwithoutarow:\S+chats\.jsonl,line3", said)
    wrong = call("preview", "study.yaml", "--part", "nowhere")
    assert wrong.code == 2 and "one of train, validation" in wrong.err


def test_the_page_holds_every_part_and_needs_nothing_else(desk: Path, tiny_gpt2: Path) -> None:
    write_rows(desk / "test.txt", ["<script>alert(1)</script>"])
    answer = call("preview", write_study(tiny_gpt2), "--page", "rows.html")
    assert answer.code == 0, answer.err
    assert call("preview", "study.yaml", "--page", "other.html", "--part", "tale").code == 2
    # where nothing can be written, nothing is read either
    unread = ("--set", "data.train.path=none.txt")
    assert call("preview", "study.yaml", "--page", "study.yaml/rows.html", *unread).code == 74
    assert not Path("other.html").exists()
    page = Path("rows.html").read_text()
    assert all(name in page for name in ("train", "validation", "tale--paper-padded"))
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert "&lt;" in page and 'class="text scored"' in page
    asked = call("preview", "study.yaml", "--json", "-n", "1")
    assert next(len(part["rows"]) for part in json.loads(asked.out)["parts"]) == 2


def test_bytes_of_one_character_stand_together(byte_tokenizer: Path) -> None:
    tokenizer = load_tokenizer(byte_tokenizer)
    assert decode_tokens(tokenizer, list("aé😀b".encode())) == ("a", "é", "😀", "b")
    assert "".join(decode_tokens(tokenizer, [*list("é".encode())[:1], 97])) == "\ufffda"


def test_spaces_stay_where_a_tokenizer_removes_one_from_the_beginning(tmp_path: Path) -> None:
    words = {"<unk>": 0, "</s>": 1, "▁the": 2, "▁cat": 3, "s": 4}
    made = tokenizers.Tokenizer(BPE(words, [], unk_token="<unk>"))
    made.decoder = Sequence([Replace("▁", " "), Fuse(), Strip(" ", 1, 0)])
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert decode_tokens(tokenizer, [2, 3, 4, 3]) == ("the", " cat", "s", " cat")
    assert decode_tokens(tokenizer, [3], before=2) == (" cat",)
