"""A folder of questions and answers on the command line, as docs/instruction-data.md says it."""

import json
from pathlib import Path

import pytest

from lorastudy.config.study_file import read_study_file
from support.chats import TEMPLATE, say, write_rows
from support.command_line import call


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "questions"
    folder.mkdir()
    for name, numbers in (("train", range(16)), ("validation", (20, 21)), ("test", (30, 31, 32))):
        rows = [{"prompt": f"After {n}?", "completion": f" {n + 1}."} for n in numbers]
        write_rows(folder / f"{name}.jsonl", rows)
    return folder


def test_init_makes_a_study_of_a_folder_of_questions_that_check_accepts(
    questions: Path, tiny_gpt2: Path
) -> None:
    made = call("init", "questions", "--base", tiny_gpt2, "--out", "my-questions.yaml")
    assert made.code == 0, made.err
    assert "16 rows of prompts and completions" in made.out and "tokens scored" in made.out
    checked = call("check", "my-questions.yaml", "--json")
    assert checked.code == 0, checked.err
    counted = json.loads(checked.out)["train_text"]["answers"]
    n_scored = sum(len(f" {n + 1}.") + 1 for n in range(16))
    assert (counted["n_scored"], counted["n_cut"], counted["n_left_out"]) == (n_scored, 0, 0)
    assert "protocols: [answers]" in Path("my-questions.yaml").read_text()


def test_init_takes_questions_with_choices_for_a_test_by_choice(
    questions: Path, tiny_gpt2: Path
) -> None:
    write_rows(questions / "test.jsonl", [{"question": "Q", "choices": ["a", "b"], "answer": 0}])
    answer = call("init", questions, "--base", tiny_gpt2, "--out", "quiz.yaml")
    assert answer.code == 0 and "test: questions with choices" in answer.out, answer.err
    assert read_study_file(Path("quiz.yaml")).benchmarks[0].protocols == ("choice",)
    assert call("check", "quiz.yaml", "--set", "data.rows.length=40").code == 0
    # an answer that fits into no row is what check names, and not what init stumbles over
    (questions / "validation.jsonl").unlink()
    write_rows(questions / "train.jsonl", [{"prompt": "a", "completion": "b" * 99}] * 3)
    assert call("init", questions, "--base", tiny_gpt2, "--out", "long.yaml").code == 0


def test_init_says_that_messages_need_a_chat_template(
    tmp_path: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chats").mkdir()
    for name in ("train", "validation"):
        write_rows(Path(f"chats/{name}.jsonl"), [{"messages": say("Who?", "I.")}] * 4)
    made = call("init", "chats", "--base", tiny_gpt2, "--out", "a.yaml")
    assert made.code == 0, made.err
    assert "the tokenizer has no chat template" in made.out and "estimated" in made.out
    refused = call("check", "a.yaml")
    assert refused.code == 3 and "the tokenizer has no chat template" in refused.err
    Path("chat.jinja").write_text(TEMPLATE)
    assert call("check", "a.yaml", "--set", "data.chat_template_path=chat.jinja").code == 0


def test_the_demo_of_answers_trains_on_sums_and_is_judged_by_right_answers() -> None:
    checked = call("check", "demo-answers", "--json")
    assert checked.code == 0, checked.err
    found = json.loads(checked.out)
    assert [arm["train_rows"] for arm in found["arms"]] == [250] * 4
    assert found["train_text"]["answers"]["n_scored"] == 2 * 250  # the sum, and the end
    assert found["validation_overlap"] is None and found["overlap"] == []
    assert found["separable"][0]["protocol"] == "exact-match"


def test_evaluate_scores_answers_and_says_where_a_row_has_none(
    questions: Path, tiny_gpt2: Path
) -> None:
    how = ("--protocol", "answers", "--length", "40", "--json")
    answer = call("evaluate", tiny_gpt2, "--benchmark", "questions/test.jsonl", *how)
    (score,) = json.loads(answer.out)["evaluations"]
    assert score["n_tokens"] == 3 * len(" 31.") + 3
    write_rows(questions / "chats.jsonl", [{"messages": say("Who?", "I.")}])
    (questions / "chat.jinja").write_text(TEMPLATE)
    chats = ("--chat-template", "questions/chat.jinja", "--assistant-only-loss")
    answer = call("evaluate", tiny_gpt2, "--benchmark", "questions/chats.jsonl", *chats, *how)
    assert json.loads(answer.out)["evaluations"][0]["n_tokens"] == len("I.") + 1
    for unfit in (("--assistant-only-loss",), ("--chat-template", "questions/chat.jinja")):
        refused = call("evaluate", tiny_gpt2, "--benchmark", "questions/test.jsonl", *unfit, *how)
        assert refused.code == 2 and "is for messages, but" in refused.err
    write_rows(questions / "bad.jsonl", [{"prompt": "a", "completion": ""}])
    refused = call("evaluate", tiny_gpt2, "--benchmark", "questions/bad.jsonl", *how)
    assert refused.code == 3 and "bad.jsonl, line 1 has no answer" in refused.err
