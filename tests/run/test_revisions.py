"""Branches of the hub become commits in the lock, and a started study keeps to these commits."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch

from lorastudy.config.models import BaseModelRef, Study, TrainSource, ValidationSource
from lorastudy.config.study_file import load_study, preset_text
from lorastudy.errors import InputError
from lorastudy.model import base_folder
from lorastudy.store.files import write_record
from lorastudy.store.folders import StudyFolder
from lorastudy.store.places import Places
from lorastudy.study.check import check_study
from lorastudy.study.notes import note_study
from lorastudy.study.open import stored_places

MODEL, DATA = "b" * 40, "a" * 40
CPU = torch.device("cpu")


@pytest.fixture
def hub(tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A hub with one model and one data set; `asked` keeps the revisions that were asked for."""
    state = SimpleNamespace(asked=set())
    snapshot = tmp_path / "snapshots" / MODEL
    shutil.copytree(tiny_gpt2, snapshot)
    rows = datasets.Dataset.from_dict({"text": ["a boat came in", "ten fish", "one song"] * 9})
    rows.info.download_checksums = {f"hf://datasets/owner/name@{DATA}/train.parquet": {}}

    def load_dataset(*_: object, revision: str, **__: object) -> datasets.Dataset:
        state.asked.add(revision)
        return rows

    def snapshot_download(*_: object, revision: str, **__: object) -> str:
        state.asked.add(revision)
        return str(snapshot)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(base_folder, "snapshot_download", snapshot_download)
    return state


def make_study() -> Study:
    study = load_study(preset_text("demo"), "demo", ["benchmarks=[]", "data.rows.length=20"])
    named = {"id": "owner/name", "split": "train"}
    sources = {"train": TrainSource(**named), "validation": ValidationSource(**named)}
    data = study.data.model_copy(update=sources)
    return study.model_copy(update={"data": data, "base_model": BaseModelRef(id="owner/model")})


def test_a_study_is_locked_to_commits_and_asks_for_them_again(
    hub: SimpleNamespace, tmp_path: Path
) -> None:
    study, places = make_study(), Places(tmp_path, cache=tmp_path / "cache")
    lock = check_study(study, places, CPU).lock
    assert lock.revisions == {"models/owner/model@main": MODEL, "datasets/owner/name@main": DATA}
    assert hub.asked == {"main"}
    folder = StudyFolder(tmp_path / "study")
    write_record(folder.lock, lock)
    hub.asked.clear()
    pinned = stored_places(folder, None, offline=False).revisions
    again = check_study(study, replace(places, revisions=pinned), CPU).lock
    assert hub.asked == {MODEL, DATA}
    assert again == lock


def test_weights_that_a_run_would_fetch_are_noted_and_others_that_are_missing_are_refused(
    hub: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "snapshots" / MODEL / "model.safetensors").unlink()
    study = load_study(preset_text("demo"), "demo", ["benchmarks=[]", "data.rows.length=20"])
    study = study.model_copy(update={"base_model": BaseModelRef(id="owner/model")})
    places = Places(tmp_path, offline=True, cache=tmp_path / "cache")
    (note,) = (n for n in note_study(study, check_study(study, places, CPU)) if "weights" in n)
    assert note.startswith("The weights of owner/model are not in the local cache")
    with pytest.raises(InputError, match=r"no \.safetensors file"):
        check_study(study, replace(places, offline=False), CPU)
