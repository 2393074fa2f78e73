"""Runs on rows with answers, against a loop over the rows; and settings that do not fit them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorastudy.config.spec import expand_study
from lorastudy.errors import ConfigError, InputError, UserError
from lorastudy.store.collect import collect_results
from lorastudy.store.counts import AnswerCounts
from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.folders import StudyFolder
from lorastudy.store.lines import read_records
from lorastudy.store.places import Places
from lorastudy.store.records import EpochRecord
from lorastudy.study.check import check_study
from lorastudy.study.start import lock_study, start_study
from support.chats import END, TEMPLATE, say, write_rows
from support.tiny_runs import CPU, SOUND, Case, make_study, write_texts

LENGTH = 56
PAIRS = [{"prompt": f"{n} plus {n} is", "completion": f" {2 * n}."} for n in range(7, 14)]
CHATS = [{"messages": say(f"And {n}?", f"It is {n}.")} for n in (1, 200)]
LONG = {"prompt": "x" * 90, "completion": "y."}
ANSWERS = {"name": "sums", "path": "pairs.jsonl", "protocols": ("answers",)}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_texts(tmp_path_factory.mktemp("rows"))
    write_rows(folder / "pairs.jsonl", PAIRS)
    write_rows(folder / "chats.jsonl", CHATS)
    write_rows(folder / "long.jsonl", [PAIRS[0], LONG, LONG])
    write_rows(folder / "wide.jsonl", [PAIRS[0], {"prompt": "x", "completion": "y" * 90}, LONG])
    (folder / "chat.jinja").write_text(TEMPLATE)
    return folder


def study_of(base: Path, train: str, *, rows: dict[str, Any] | None = None, **keys: Any) -> Any:
    """A study that trains on one file and validates on it; `training` and `benchmarks` as given."""
    others = {key: keys.pop(key) for key in ("training", "benchmarks") if key in keys}
    source = {"path": f"{train}.jsonl" if train != "texts" else "train.txt"}
    data = {
        "train": source,
        "validation": source,
        "rows": {"cut": "lines", "length": LENGTH, **(rows or {})},
        **keys,
    }
    return make_study(base, **{"benchmarks": (), "arm": "full", "data": data, **others})


@torch.no_grad()
def nats_of_answers(model: Path, tokenizer: Path, pairs: list[dict[str, str]]) -> list[float]:
    """Nats of each completion with its end, one row at a time."""
    network, known = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer
    encode = known.from_pretrained(tokenizer).encode
    nats = []
    for pair in pairs:
        n_prompt = len(encode(pair["prompt"]))
        ids = torch.tensor([encode(pair["prompt"] + pair["completion"] + END)])
        logits = network(ids).logits.double()[0, :-1].log_softmax(-1)
        nats.append(-float(logits.gather(1, ids[0, 1:, None])[n_prompt - 1 :].sum()))
    return nats


@pytest.mark.parametrize("implementation", ["fast", "reference"])
def test_answers_are_trained_validated_and_scored_as_a_loop_over_rows_computes_them(
    implementation: str, tiny_gpt2: Path, texts: Path, tmp_path: Path
) -> None:
    training = {**SOUND, "epochs": 1, "implementation": implementation}
    study = study_of(tiny_gpt2, "pairs", training=training, benchmarks=(ANSWERS,))
    case = Case(study, texts, tmp_path / "cache")
    folder = case.folder(tmp_path, implementation)
    result = case.execute(folder)
    expected = nats_of_answers(folder.best, tiny_gpt2, PAIRS)
    n_targets = [len(pair["completion"]) + 1 for pair in PAIRS]
    (epoch,) = read_records(folder.epochs, EpochRecord)
    assert epoch.validation_loss == pytest.approx(sum(expected) / sum(n_targets), abs=1e-5)
    assert result.train_tokens == sum(n_targets)
    stored = DocumentSums.model_validate_json(
        (folder.evaluations / "sums--answers.json").read_bytes()
    )
    assert stored.n_targets == tuple(n_targets)
    assert stored.nats == pytest.approx(expected, abs=1e-4)
    classes = {c.target_class: c.n_targets for c in stored.evaluation.classes}
    assert classes == {
        **{"prompt": 0, "header": 0, "end-of-turn": len(PAIRS)},
        "answer": sum(n_targets) - len(PAIRS),
    }


@pytest.fixture
def desk(tiny_gpt2: Path, texts: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    return tiny_gpt2, texts, tmp_path


def check(study: Any, texts: Path, tmp_path: Path) -> Any:
    return check_study(study, Places(texts, offline=True, cache=tmp_path / "cache"), CPU)


@pytest.mark.parametrize(
    ("train", "too_long", "counts"),
    [
        ("long", "cut-prompt", AnswerCounts("prompts and completions", 11, 2, 0)),
        ("long", "drop", AnswerCounts("prompts and completions", 5, 0, 2)),
        ("wide", "drop", AnswerCounts("prompts and completions", 5, 0, 2)),
    ],
)
def test_check_counts_rows_that_are_cut_or_left_out(
    train: str, too_long: str, counts: AnswerCounts, desk: tuple[Path, Path, Path]
) -> None:
    base, texts, tmp_path = desk
    training = {**SOUND, "rows_per_step": 1, "micro_batch": 1}
    study = study_of(base, train, rows={"too_long": too_long}, training=training)
    checked = check(study, texts, tmp_path)
    assert checked.lock.texts["train"].answers == counts
    assert checked.arms[0].layout.plan.n_rows == 3 - counts.n_left_out


def test_a_study_remembers_that_its_losses_are_those_of_answers(
    desk: tuple[Path, Path, Path],
) -> None:
    base, texts, tmp_path = desk
    folder = StudyFolder(tmp_path / "study")
    folder.path.mkdir()
    study = study_of(base, "pairs")
    start_study(study, folder)
    lock_study(check(study, texts, tmp_path).lock, folder)
    assert collect_results(folder).training_protocol == "answers"


def test_a_benchmark_of_plain_prompts_fits_a_study_of_messages(
    desk: tuple[Path, Path, Path],
) -> None:
    base, texts, tmp_path = desk
    keys = {"assistant_only_loss": True, "chat_template_path": "chat.jinja"}
    training = {**SOUND, "rows_per_step": 2}
    study = study_of(base, "chats", benchmarks=(ANSWERS,), training=training, **keys)
    counts = check(study, texts, tmp_path).lock.texts["sums--answers"].answers
    n_targets = sum(len(pair["completion"]) + 1 for pair in PAIRS)
    assert counts == AnswerCounts("prompts and completions", n_targets, 0, 0)


@pytest.mark.parametrize("train", ["pairs", "texts"])
def test_a_benchmark_of_messages_fits_a_study_of_plain_text(
    train: str, desk: tuple[Path, Path, Path]
) -> None:
    base, texts, tmp_path = desk
    asked = {"path": "chats.jsonl", "protocols": ("exact-match",)}
    chats = {"name": "chats", **asked, "generation": {"max_new_tokens": 3}}
    study = study_of(base, train, benchmarks=(chats,), chat_template_path="chat.jinja")
    lock = check(study, texts, tmp_path).lock
    assert lock.texts["chats--exact-match"].n_documents == len(CHATS)


def test_two_masks_of_the_same_tokens_are_two_corpora(
    tiny_gpt2: Path, texts: Path, tmp_path: Path
) -> None:
    keys = {"chat_template_path": "chat.jinja", "training": {**SOUND, "rows_per_step": 2}}
    every, answers = (
        check(study_of(tiny_gpt2, "chats", **keys, **only), texts, tmp_path).lock
        for only in ({}, {"assistant_only_loss": True})
    )
    assert every.corpora["train"] != answers.corpora["train"]
    counts = every.texts["train"]
    assert counts.answers.n_scored == counts.n_tokens - len(CHATS)  # not the first of each row
    said = [chat["messages"][1]["content"] for chat in CHATS]
    assert answers.texts["train"].answers.n_scored == sum(len(text) + 1 for text in said)


REFUSED: dict[str, tuple[type[UserError], str, dict[str, Any]]] = {
    "wide.jsonl, line 2: the answer.* needs a row of 92 tokens": (InputError, "wide", {}),
    "holds messages, and the tokenizer has no chat": (InputError, "chats", {}),
    "chat template .*none.jinja cannot be read": (
        InputError,
        "chats",
        {"chat_template_path": "none.jinja"},
    ),
    "data.rows.cut: stream": (ConfigError, "pairs", {"rows": {"cut": "stream"}}),
    "data.rows.end: scored": (ConfigError, "pairs", {"rows": {"end": "scored"}}),
    "data.rows.strip: false": (ConfigError, "pairs", {"rows": {"strip": False}}),
    "data.completion_only_loss: .* holds messages": (
        ConfigError,
        "chats",
        {"completion_only_loss": True, "chat_template_path": "chat.jinja"},
    ),
    "data.assistant_only_loss is for messages": (
        ConfigError,
        "pairs",
        {"assistant_only_loss": True},
    ),
    "data.chat_template_path is for messages, and no source": (
        ConfigError,
        "pairs",
        {"chat_template_path": "chat.jinja"},
    ),
    "training.padding: scored": (
        ConfigError,
        "pairs",
        {"training": {**SOUND, "padding": "scored"}},
    ),
    "data.validation: one of": (ConfigError, "pairs", {"validation": {"path": "test.txt"}}),
    "'rows-text' does not score them. Use answers": (
        ConfigError,
        "pairs",
        {"benchmarks": ({**ANSWERS, "protocols": ("rows-text",)},)},
    ),
    "'answers' does not score them. Use rows-text": (
        ConfigError,
        "texts",
        {"benchmarks": ({**ANSWERS, "path": "test.txt"},)},
    ),
    "data.completion_only_loss is for rows with": (
        ConfigError,
        "texts",
        {"completion_only_loss": False},
    ),
    "data.chat_template_path is for messages, and no": (
        ConfigError,
        "texts",
        {"chat_template_path": "chat.jinja"},
    ),
    "data.rows.too_long is for rows with": (ConfigError, "texts", {"rows": {"too_long": "drop"}}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_the_rows_is_refused(
    message: str, tiny_gpt2: Path, texts: Path, tmp_path: Path
) -> None:
    error, train, keys = REFUSED[message]
    with pytest.raises(error, match=message):
        check(study_of(tiny_gpt2, train, **keys), texts, tmp_path)


def test_new_keys_enter_the_identity_of_a_run_only_where_they_are_set(tiny_gpt2: Path) -> None:
    plain, default = (
        study_of(tiny_gpt2, "pairs", **keys)
        for keys in (
            {},
            {
                "completion_only_loss": None,
                "assistant_only_loss": False,
                "rows": {"too_long": "cut-prompt"},
            },
        )
    )
    changed = study_of(tiny_gpt2, "pairs", completion_only_loss=False)
    assert "only_loss" not in plain.model_dump_json() and "too_long" not in plain.model_dump_json()
    one, same, other = (expand_study(study)[0].identity for study in (plain, default, changed))
    assert one == same != other
