"""Arms, seeds and learning rates added to a study file extend a started study."""

from pathlib import Path

import pytest

from lorastudy.config.models import Study
from lorastudy.config.spec import expand_study
from lorastudy.config.study_file import dump_study, load_study, preset_text
from lorastudy.config.two_studies import extends
from lorastudy.errors import ConfigError
from lorastudy.store.collect import read_study
from lorastudy.store.folders import StudyFolder
from lorastudy.store.locks import StudyLock, read_lock, write_lock
from lorastudy.study.extend import extend_folder
from lorastudy.study.start import start_study

ARM = "{name: more, method: full, learning_rates: [1e-5]}"
ADDED = [
    "seeds=[0, 1, 2, 3]",
    "arms.full.learning_rates=[1e-5, 1e-3, 1e-2]",
    f"arms=[{ARM}, {{name: baseline, method: baseline}}]",
]
CHANGED = [
    "seeds=[1, 0, 2]",
    "seeds=[2, 0, 1]",
    "seeds=[0]",
    "arms.full.learning_rates=[1e-2]",
    "arms.lora-1.rank=2",
    "benchmarks=[]",
    "training.epochs=3",
]


def load(*overrides: str) -> Study:
    return load_study(preset_text("demo"), "demo", overrides)


def small(*overrides: str) -> Study:
    return load("arms=[{name: baseline, method: baseline}]", *overrides)


@pytest.mark.parametrize("override", ADDED)
def test_an_extension_keeps_every_run(override: str) -> None:
    before = small() if "more" in override else load()
    after = load(override)
    assert extends(before, after) and not extends(after, before)
    ids = [{run.run_id for run in expand_study(study)} for study in (before, after)]
    assert ids[0] < ids[1]


@pytest.mark.parametrize("override", CHANGED)
def test_anything_else_is_another_study(override: str) -> None:
    assert not extends(load(), load(override))


@pytest.fixture
def started(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path)
    start_study(load(), folder)
    write_lock(
        folder, StudyLock(base_digest="", tokenizer_digest="", corpora={}, studies=(load(),))
    )
    return folder


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
def test_a_study_is_not_started_among_the_files_of_a_model(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=f"it has {name}"):
        start_study(load(), StudyFolder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("is_in_place", [True, False])
def test_a_started_study_takes_what_was_added_to_its_file(
    *, is_in_place: bool, started: StudyFolder
) -> None:
    after = load("seeds=[0, 1, 2, 5]")
    if is_in_place:
        started.study.write_text(dump_study(after))
        assert read_study(started) == after
    start_study(after, started)
    assert read_study(started) == after
    assert read_lock(started).studies == (load(), after)


def test_a_command_that_read_the_study_before_it_was_extended_goes_on(
    started: StudyFolder,
) -> None:
    extend_folder(started, [], n_seeds=1)
    after = read_study(started)
    start_study(load(), started)
    assert read_study(started) == after != load()
    with pytest.raises(ConfigError, match="other settings"):
        start_study(load("seeds=[0]"), started)  # never a state of this study


def test_a_changed_rank_in_the_file_is_still_refused(started: StudyFolder) -> None:
    started.study.write_text(dump_study(load("arms.lora-1.rank=2")))
    with pytest.raises(ConfigError, match=r"arms\.lora-1\.rank"):
        read_study(started)
