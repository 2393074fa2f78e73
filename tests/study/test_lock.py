"""What every run of a study has to match is all that decides what is read and scored."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lorastudy.errors import ConfigError, InputError
from lorastudy.store.folders import StudyFolder
from lorastudy.store.locks import StudyLock, read_lock
from lorastudy.store.places import Places, default_cache
from lorastudy.study.check import check_study
from lorastudy.study.notes import note_overlaps
from lorastudy.study.start import lock_study
from support.tiny_runs import CPU, make_study, write_texts

TASK = {
    "name": "sums",
    "path": "sums.jsonl",
    "protocols": ("exact-match",),
    "generation": {"max_new_tokens": 9},
}


def lock_of(base: Path, texts: Path, **changes: Any) -> StudyLock:
    return check_study(
        make_study(base, **changes), Places(texts, offline=True, cache=texts / "cache"), CPU
    ).lock


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


TEMPLATE = "{% for message in messages %}{{ message['content'] }}{{ eos_token }}{% endfor %}"


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("tokenizer_config.json", "bos_token", "<second>"),
        ("tokenizer_config.json", "chat_template", TEMPLATE + " "),
        ("generation_config.json", "eos_token_id", [256, 65]),
        ("generation_config.json", "repetition_penalty", 1.5),
    ],
)
def test_settings_that_change_what_is_read_or_written_are_seen(
    file: str, key: str, value: object, tiny_gpt2: Path, tmp_path: Path
) -> None:
    base, texts = tmp_path / "base", write_texts(tmp_path / "texts")
    shutil.copytree(tiny_gpt2, base)
    turns = {"user": "1+1", "assistant": "2"}
    messages = [{"role": role, "content": said} for role, said in turns.items()]
    (texts / "sums.jsonl").write_text(json.dumps({"messages": messages}))
    change(base / "tokenizer_config.json", chat_template=TEMPLATE)
    added = json.loads((base / "tokenizer.json").read_text())["added_tokens"]
    change(
        base / "tokenizer.json",
        added_tokens=[*added, {**added[0], "id": 257, "content": "<second>"}],
    )
    before, folder = lock_of(base, texts, benchmarks=(TASK,)), StudyFolder(tmp_path / "study")
    folder.path.mkdir()
    lock_study(before, folder)
    change(base / file, **{key: value})
    after = lock_of(base, texts, benchmarks=(TASK,))
    assert after.tokenizer_digest == before.tokenizer_digest
    with pytest.raises(InputError, match=r"settings_digest differ from study\.lock\.json"):
        lock_study(after, folder)
    folder.lock.unlink()
    lock_study(before.model_copy(update={"settings_digest": None}), folder)  # an older folder
    assert lock_study(after, folder) == read_lock(folder)


def test_a_cache_in_a_home_folder_that_is_not_known_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORASTUDY_CACHE", "~/texts")
    assert default_cache() == Path.home() / "texts"
    for name in ("LORASTUDY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # a container's user without one
    with pytest.raises(ConfigError, match="with the environment variable LORASTUDY_CACHE"):
        default_cache()


def test_documents_that_two_sources_of_a_mixture_share_are_noted(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    texts = write_texts(tmp_path)
    (texts / "link.txt").symlink_to("train.txt")
    sources = [{"path": f"{name}.txt", "weight": 1} for name in ("test", "train", "link")]
    rows = {"cut": "lines", "length": 48}
    data = {
        "train": {"mixture": tuple(sources)},
        "validation": {"path": "validation.txt"},
        "rows": rows,
    }
    notes = list(note_overlaps(lock_of(tiny_gpt2, texts, data=data)))
    assert [note for note in notes if "mixture" in note] == [
        "11 documents of link.txt are also in train.txt: what two sources of data.train.mixture "
        "share is trained on more often than their weights say."
    ]
