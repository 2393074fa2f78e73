"""Benchmarks of items with right answers: scored as a plain loop does, stored, and refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorastudy.config.models import Benchmark, Rows
from lorastudy.errors import ConfigError, InputError, UserError
from lorastudy.evaluate.judging import judge_text, load_function
from lorastudy.model.base import load_base
from lorastudy.model.scoring import make_scorer
from lorastudy.run.inputs import Reader
from lorastudy.run.readers import make_reader
from lorastudy.run.scores import score_part
from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.files import read_record
from lorastudy.store.places import Places
from lorastudy.store.sample_records import SamplesRecord
from support.chats import END, say, write_rows
from support.tiny_runs import CPU, SOUND, Case, make_study, write_texts

ROWS = Rows(cut="lines", length=48)
QUIZ = [
    {"question": "A dog is", "choices": ["big", "a rather small animal", "x"], "answer": 1},
    {"prompt": "One plus one is ", "choices": ["3", "two"], "answer": "two"},
    {
        "question": "Red",
        "choices": {"text": [" or blue", " wine"], "label": "AB"},
        "answerKey": "B",
    },
    {"question": "Is it?", "choices": ["no", "yes", "ü"], "answer": "0"},
    {"question": "Up", "choices": ["down, and far away", "on"], "answer": 1},
]
SUMS = [{"prompt": f"{n} plus {n} is", "completion": f" {2 * n}."} for n in range(7, 12)]


@pytest.fixture
def reader(tiny_gpt2: Path, tmp_path: Path) -> Reader:
    return make_reader(tiny_gpt2, Places(tmp_path, cache=tmp_path / "cache"))


def score(reader: Reader, rows: list[Any], protocol: str, **keys: Any) -> DocumentSums:
    """The base model's answers to `rows`."""
    write_rows(reader.places.base / "items.jsonl", rows)
    benchmark = Benchmark(name="b", path="items.jsonl", protocols=(protocol,), **keys)
    part = reader.benchmark_part(benchmark, protocol, ROWS)
    scorer = make_scorer(load_base(reader.base.folder, device=CPU), "float32")
    return score_part(scorer, part, "b", CPU)


@torch.no_grad()
def nats_of_choices(folder: Path, prompt: str, choices: list[str]) -> list[float]:
    """Each choice by itself, as lm-evaluation-harness reads it, from plain logits."""
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    encode = AutoTokenizer.from_pretrained(folder).encode
    found = []
    for choice in choices:
        is_apart = prompt[-1].isspace() or choice[0].isspace()
        ids = torch.tensor([encode(prompt + ("" if is_apart else " ") + choice)])
        logits = network(ids).logits.double()[0, :-1].log_softmax(-1)
        own = -logits.gather(1, ids[0, 1:, None])[:, 0]
        found.append(float(own[len(encode(prompt.rstrip())) - 1 :].sum()))
    return found


def test_choices_are_scored_and_chosen_as_a_loop_over_them_computes_it(
    tiny_gpt2: Path, reader: Reader
) -> None:
    found = {p: score(reader, QUIZ, p) for p in ("choice", "choice-per-character")}
    answers = [1, 1, 1, 0, 1]
    right: dict[str, list[bool]] = {p: [] for p in found}
    for number, (row, answer) in enumerate(zip(QUIZ, answers, strict=True)):
        prompt = str(row.get("question", row.get("prompt")))
        choices = row["choices"]["text"] if isinstance(row["choices"], dict) else row["choices"]
        nats = nats_of_choices(tiny_gpt2, prompt, choices)
        for protocol, record in found.items():
            assert record.items[number].nats == pytest.approx(nats, abs=1e-4)
            each = [len(c) if "character" in protocol else 1 for c in choices]
            best = min(range(len(choices)), key=lambda i: nats[i] / each[i])
            right[protocol].append(best == answer)
    for protocol, record in found.items():
        assert [bool(item.right) for item in record.items] == right[protocol]
        assert record.evaluation.accuracy == pytest.approx(sum(right[protocol]) / 5)
        assert record.losses == tuple(1.0 - r for r in right[protocol])
    assert right["choice"] != right["choice-per-character"]  # so that the two are told apart


def test_a_run_answers_every_item_and_stores_it(tiny_gpt2: Path, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts")
    write_rows(texts / "pairs.jsonl", SUMS)
    write_rows(texts / "quiz.jsonl", QUIZ)
    (texts / "judge.py").write_text("def ends(text, answer):\n    return len(text) % 2 == 0\n")
    generation = {"max_new_tokens": 5}
    study = make_study(
        tiny_gpt2,
        {**SOUND, "epochs": 1},
        samples={"prompts": ("One", "Two"), "max_new_tokens": 4},
        benchmarks=(
            {"name": "quiz", "path": "quiz.jsonl", "protocols": ("choice",), "sample": 3},
            {
                "name": "sums",
                "path": "pairs.jsonl",
                "protocols": ("exact-match", "numeric-match", "own-function"),
                "generation": generation,
                "function": "judge.py:ends",
            },
        ),
    )
    case = Case(study, texts, tmp_path / "cache")
    folder = case.folder(tmp_path, "run")
    result = case.execute(folder)
    assert [(e.benchmark, e.protocol) for e in result.evaluations] == [
        ("quiz", "choice"),
        *(("sums", p) for p in ("exact-match", "numeric-match", "own-function")),
    ]
    for evaluation in result.evaluations:
        assert (evaluation.cross_entropy, evaluation.perplexity) == (None, None)
        assert evaluation.loss == 1 - (evaluation.accuracy or 0.0)
    assert result.evaluations[0].n_documents == 3
    assert result.evaluations[0].n_population == 5
    path = folder.evaluations / "sums--own-function.json"
    items = read_record(path, DocumentSums).items
    assert [item.place for item in items] == [f"pairs.jsonl, line {n}" for n in range(1, 6)]
    assert [item.right for item in items] == [float(len(i.text or "") % 2 == 0) for i in items]
    stored = json.loads(path.read_text())
    assert stored["n_targets"] == stored["nats"] == []  # there are no losses of tokens
    samples = read_record(folder.samples, SamplesRecord).samples
    assert [sample.prompt for sample in samples] == ["One", "Two"]
    assert all(len(sample.text) <= 4 for sample in samples)
    assert case.spec.identity == case.spec.model_copy(update={"samples": None}).identity
    again = case.execute(folder)  # read back, and not answered anew
    assert again.evaluations == result.evaluations


def test_chats_are_asked_without_their_last_answer_and_a_stop_ends_an_answer(
    reader: Reader, tiny_gpt2: Path
) -> None:
    whole = score(reader, SUMS, "exact-match", generation={"max_new_tokens": 8})
    text = next(i.text for i in whole.items if i.text and len(i.text) > 3)
    stop = text[2]
    cut = score(reader, SUMS, "exact-match", generation={"max_new_tokens": 8, "stop": (stop,)})
    assert [i.text for i in cut.items] == [(i.text or "").partition(stop)[0] for i in whole.items]
    right = [{**row, "completion": f"{i.text} "} for row, i in zip(SUMS, whole.items, strict=True)]
    found = score(reader, right, "exact-match", generation={"max_new_tokens": 8})
    assert found.evaluation.accuracy == 1.0
    ended = [{**row, "completion": f"{row['completion']}{END}"} for row in right]  # as in training
    assert (
        score(reader, ended, "exact-match", generation={"max_new_tokens": 8}).items == found.items
    )
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    reader.tokenizer.backend.chat_template = template
    chats = [{"messages": say(row["prompt"], row["completion"])} for row in right]
    assert score(reader, chats, "exact-match", generation={"max_new_tokens": 8}).items == tuple(
        found.items
    )


QUESTION = {"question": "Q", "choices": ["a", "b"], "answer": 0}


@pytest.mark.parametrize(
    ("rows", "protocol", "says"),
    [
        ([QUESTION, {**QUESTION, "answer": 2}], "choice", "line 2: the answer 2 is beyond"),
        ([QUESTION, {**QUESTION, "answer": -1}], "choice", "line 2: the answer -1 is beyond"),
        ([QUESTION, {**QUESTION, "answer": "c"}], "choice", "line 2: the answer 'c' is not one"),
        ([{**QUESTION, "answer": "9" * 5000}], "choice", "line 1: the answer '999.*is not one of"),
        ([QUESTION, {**QUESTION, "answer": None}], "choice", "line 2 has no answer"),
        ([QUESTION, {"question": "Q", "choices": ["a", "b"]}], "choice", "line 2 has no answer"),
        ([{**QUESTION, "choices": ["a"]}], "choice", "line 1 has 1 choice, and at least 2"),
        ([{**QUESTION, "choices": []}], "choice", "line 1 has no choices"),
        ([{**QUESTION, "choices": "a"}], "choice", "line 1: choices is not a list of texts"),
        ([{**QUESTION, "choices": ["a", 1]}], "choice", "line 1: choices is not a list of texts"),
        ([{**QUESTION, "choices": ["a", " a"]}], "choice", "line 1: the choice 'a' is there twice"),
        ([{**QUESTION, "choices": ["a", " "]}], "choice", "line 1: choice 1 is blank"),
        (
            [{**QUESTION, "choices": {"text": ["a", "b"], "label": ["A", "A"]}}],
            "choice",
            "line 1: the label 'A' stands for two choices",
        ),
        ([SUMS[0], {"prompt": "x"}], "exact-match", "line 2 has no answer: there is a prompt"),
        ([{**QUESTION, "question": " "}], "choice", "line 1: question is empty"),
        ([{**QUESTION, "question": "x" * 80}], "choice", "line 1: the prompt with the choice 'a'"),
        ([{"prompt": "x", "completion": " "}], "exact-match", "line 1 has no answer"),
        ([{"prompt": "", "completion": "y"}], "exact-match", "line 1: the prompt is empty"),
        (
            [SUMS[0], {"prompt": "x" * 20, "completion": "y"}],
            "exact-match",
            "line 2: the prompt has 20 tokens, with max_new_tokens 50",
        ),
        ([SUMS[0], {"prompt": "x", "completion": "y"}], "numeric-match", "line 2: the answer 'y'"),
        ([{"messages": say("Who?", "I.")}], "exact-match", "no chat template"),
    ],
)
def test_bad_items_are_refused_with_their_row(
    rows: list[Any], protocol: str, says: str, reader: Reader
) -> None:
    keys: dict[str, Any] = {} if protocol == "choice" else {"generation": {"max_new_tokens": 50}}
    with pytest.raises(InputError, match=says):
        score(reader, rows, protocol, **keys)


@pytest.mark.parametrize(
    ("rows", "protocol", "keys", "says"),
    [
        (SUMS, "choice", {}, "holds prompts and completions, and the protocol 'choice' is for"),
        ([QUESTION], "exact-match", {}, "holds questions with choices"),
        ([{"text": "x"}], "exact-match", {}, "holds texts"),
        ([QUESTION], "rows-text", {}, "does not score them"),
        (SUMS, "own-function", {"function": "none.py:f"}, "'none.py:f' cannot be loaded"),
        (SUMS, "own-function", {"function": "json:no"}, "'json:no' cannot be loaded"),
        (SUMS, "own-function", {"function": "math:floor"}, "line 1: the function fails"),
        (SUMS, "own-function", {"function": "difflib:ndiff"}, "line 1: the function returned"),
    ],
)
def test_a_task_that_does_not_fit_its_rows_is_refused(
    rows: list[Any], protocol: str, keys: dict[str, str], says: str, reader: Reader
) -> None:
    generation = {"generation": {"max_new_tokens": 5}} if keys else {}
    with pytest.raises(UserError, match=says):
        score(reader, rows, protocol, **keys, **generation)


@pytest.mark.parametrize(
    ("code", "named", "says"),
    [
        ("import sys; sys.exit(0)", "f", "cannot be loaded: SystemExit: 0"),
        ("def f(text, answer): raise SystemExit(0)", "f", "line 1: the function fails"),
    ],
    ids=["module", "function"],
)
def test_code_of_the_user_cannot_end_the_command(
    code: str, named: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(code)
    with pytest.raises(UserError, match=says):
        judge_text(load_function(f"own.py:{named}", tmp_path), "a", "a", "rows.jsonl, line 1")


@pytest.mark.parametrize("module", ["own_judges.sums", "own_package"])
def test_a_module_beside_the_study_file_may_import_its_neighbours_and_its_changes_are_seen(
    module: str, reader: Reader
) -> None:
    base = reader.places.base
    write_rows(base / "items.jsonl", SUMS)
    path = base / ("own_judges/sums.py" if "." in module else "own_package/__init__.py")
    path.parent.mkdir()
    (path.parent / "same.py").write_text("def same(a, b):\n    return a == b\n")
    code = "from .same import same\ndef judge(text, answer):\n    return same(text, answer)\n"
    digests = []
    for text in (code, code, f"{code}# changed\n"):
        path.write_text(text)
        benchmark = Benchmark(
            name="b",
            path="items.jsonl",
            protocols=("own-function",),
            function=f"{module}:judge",
            generation={"max_new_tokens": 5},
        )
        digests.append(reader.benchmark_part(benchmark, "own-function", ROWS).digest)
    assert digests[0] == digests[1] != digests[2]


def test_what_code_of_the_user_prints_is_not_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "print('loaded')\ndef f(text, answer):\n    print('asked')\n    return True\n"
    (tmp_path / "own.py").write_text(code)
    assert judge_text(load_function("own.py:f", tmp_path), "a", "a", "line 1")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "loaded\nasked\n")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def f(text, answer): return float(text) == 0", "fails on '': could not convert"),
        ("def f(text, answer): return None", "returned None for ' 14.'"),
        ("def f(text, answer): return 10**400", "returned 1000"),
        ("import numpy\ndef f(text, answer): return numpy.zeros(2)", "returned array"),
        ("def f(text): return True", "fails on ' 14.': TypeError"),
        ("class f:\n    def __init__(s, *_): pass\n    def __repr__(s): 1 / 0", "returned a f"),
    ],
)
def test_a_function_that_cannot_judge_is_refused_before_training(
    code: str, says: str, reader: Reader
) -> None:
    """Also one that understands right answers alone: models write other texts at first."""
    base = reader.places.base
    write_rows(base / "items.jsonl", SUMS)
    (base / "own.py").write_text(code)
    benchmark = Benchmark(
        name="b",
        path="items.jsonl",
        protocols=("own-function",),
        function="own.py:f",
        generation={"max_new_tokens": 5},
    )
    with pytest.raises(UserError, match=re.escape(says)):
        reader.benchmark_part(benchmark, "own-function", ROWS)


@pytest.mark.parametrize(
    ("protocol", "keys", "says"),
    [
        ("choice", {"generation": {"max_new_tokens": 3}}, "generation.*exact-match"),
        ("choice", {"function": "a:b"}, "function.*own-function"),
        ("own-function", {}, "is required by the protocol own-function"),
        ("choice", {"num_fewshot": 0}, "num_fewshot: applies to a task only"),
        ("choice", {"metric": "acc"}, "metric: applies to a task only"),
        ("lm-eval-task", {}, "lm-eval-task is for a task"),
        ("choice", {"path": None, "task": "t"}, "lm-eval-task is for a task"),
        ("lm-eval-task", {"path": None, "task": "t", "sample": 2}, "sample: applies to rows only"),
        ("lm-eval-task", {"path": None, "task": "t", "split": "x"}, "split: applies to rows only"),
        ("lm-eval-task", {"path": None, "task": "t", "column": "x"}, "column: applies to rows"),
    ],
)
def test_keys_that_a_protocol_does_not_use_are_mistakes(
    protocol: str, keys: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Benchmark(**{"name": "b", "path": "x.jsonl", "protocols": (protocol,), **keys})


def test_questions_with_choices_are_not_trained_on(reader: Reader) -> None:
    write_rows(reader.places.base / "quiz.jsonl", QUIZ)
    source = Benchmark(name="b", path="quiz.jsonl", protocols=("choice",))
    with pytest.raises(ConfigError, match="questions with choices"):
        reader.training_rows(source, ROWS)
