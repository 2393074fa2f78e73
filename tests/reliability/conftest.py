"""The run that faults are done to, and what it gives when it is left alone."""

from pathlib import Path

import pytest

from lorastudy.store.folders import RunFolder
from support.tiny_runs import SOUND, Case, make_study, write_texts


@pytest.fixture(scope="module")
def case(flat_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    parent = tmp_path_factory.mktemp("inputs")
    return Case(make_study(flat_gpt2, SOUND, "lora"), write_texts(parent), parent / "cache")


@pytest.fixture(scope="module")
def whole(case: Case, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = case.folder(tmp_path_factory.mktemp("whole"), "whole")
    assert case.child(folder) == 0
    return folder
