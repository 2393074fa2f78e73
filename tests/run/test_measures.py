"""What is measured besides the scores: training rows in evaluation mode, and what is compared."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorastudy.config.study_file import dump_study
from lorastudy.data.rows import cut_lines
from lorastudy.errors import InputError
from lorastudy.evaluate.score import score_rows
from lorastudy.machine.memory import read_cpu_times
from lorastudy.model.adapters import load_adapter
from lorastudy.model.base import load_base
from lorastudy.model.scoring import make_scorer
from lorastudy.run.layout import MOST_SLICE_ROWS, choose_slice, lay_out_training
from lorastudy.store.collect import collect_results
from lorastudy.store.files import write_record, write_text
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.records import RunResult
from support.tiny_runs import (
    ARMS,
    CPU,
    OTHER,
    SOUND,
    TRAIN,
    Case,
    in_child,
    make_study,
    start_child,
    write_texts,
)


@pytest.mark.parametrize(
    ("n_train", "n_validation", "n_rows"), [(11, 3, 3), (3, 11, 3), (2000, 900, MOST_SLICE_ROWS)]
)
def test_slice_has_as_many_rows_as_validation_up_to_a_limit(
    n_train: int, n_validation: int, n_rows: int
) -> None:
    table = cut_lines(np.arange(0, 5 * n_train + 1, 5), 9, 0)
    chosen = choose_slice(table, n_validation)
    assert chosen.n_rows == n_rows
    assert np.all(np.diff(chosen.begins) > 0)
    assert set(chosen.begins.tolist()) <= set(table.begins.tolist())


def test_slice_is_the_same_for_every_arm_and_seed(tiny_gpt2: Path, tmp_path: Path) -> None:
    texts = write_texts(tmp_path)
    slices = []
    for arm, seed in (("lora", 3), ("full", 4)):
        case = Case(make_study(tiny_gpt2, SOUND, arm, seeds=(seed,)), texts, tmp_path / "cache")
        slices.append(lay_out_training(case.spec, case.reader).train_slice)
    assert slices[0].begins.tolist() == slices[1].begins.tolist()
    assert slices[0].n_rows == len(OTHER) < len(TRAIN)


def test_training_rows_are_measured_without_dropout_and_after_the_epoch(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    study = make_study(tiny_gpt2, {**SOUND, "epochs": 1}, "lora")
    case = Case(study, write_texts(tmp_path / "t"), tmp_path / "cache")
    folder = case.folder(tmp_path, "one")
    (epoch,) = case.execute(folder).epochs
    network = load_base(tiny_gpt2, device=CPU)
    load_adapter(network, folder.best)
    layout = lay_out_training(case.spec, case.reader)
    scores = score_rows(
        make_scorer(network, "float32"),
        layout.corpus.tokens,
        layout.train_slice,
        layout.padding,
        device=CPU,
    )
    assert epoch.train_loss_eval == pytest.approx(scores.sums.cross_entropy, rel=1e-6)
    assert epoch.train_loss_eval != pytest.approx(epoch.train_loss, rel=1e-6)


def make_study_folder(base: Path, parent: Path, **changes: Any) -> StudyFolder:
    folder = StudyFolder(parent / "study")
    arms = (ARMS["baseline"], ARMS["full"])
    study = make_study(base, SOUND, "lora", arms=arms, **changes)
    folder.path.mkdir()
    write_text(folder.study, dump_study(study))
    texts = write_texts(parent / "t")
    case = Case(study, texts, parent / "cache")
    case.execute(folder.run(case.spec.run_id))
    return folder


def test_benchmarks_of_neutral_text_are_named_in_the_results(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    near = {"name": "near", "path": "test.txt", "protocols": ("rows-text",)}
    far = {**near, "name": "far", "role": "forgetting"}
    folder = make_study_folder(tiny_gpt2, tmp_path, benchmarks=(near, far))
    results = collect_results(folder)
    assert (results.benchmarks, results.forgetting) == (("near", "far"), ("far",))


def change_tokenizer(folder: RunFolder, digest: str, run_id: str) -> RunResult:
    result = folder.read_result()
    assert result is not None
    changed = [e.model_copy(update={"tokenizer_digest": digest}) for e in result.evaluations]
    return result.model_copy(update={"run_id": run_id, "evaluations": tuple(changed)})


def test_runs_of_two_tokenizers_are_not_put_in_one_comparison(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    folder = make_study_folder(tiny_gpt2, tmp_path)
    (scored,) = folder.path.glob("runs/baseline-*")
    missing = collect_results(folder).missing
    other = folder.run(missing[0])
    other.path.mkdir(parents=True)
    shutil.copy(scored / "spec.json", other.spec)
    write_record(other.result, change_tokenizer(RunFolder(scored), "f" * 64, missing[0]))
    with pytest.raises(
        InputError, match=rf"different tokenizers: baseline-.*{missing[0]} \(ffffffff\)"
    ):
        collect_results(folder)


def test_results_written_before_tokenizers_were_recorded_are_still_read(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    folder = make_study_folder(tiny_gpt2, tmp_path)
    (path,) = folder.path.glob("runs/baseline-*/result.json")
    result = RunResult.model_validate_json(path.read_bytes())
    old = [
        e.model_dump(
            exclude={
                *("averaged_over", "n_unscored", "n_documents_cut", "n_words", "n_bytes"),
                *("word_perplexity", "byte_perplexity", "bits_per_byte", "accuracy"),
                "tokenizer_digest",
            }
        )
        for e in result.evaluations
    ]
    again = RunResult.model_validate({**result.model_dump(), "evaluations": old})
    assert [e.perplexity for e in again.evaluations] == [e.perplexity for e in result.evaluations]
    assert {e.tokenizer_digest for e in again.evaluations} == {None}


@pytest.mark.skipif(read_cpu_times() is None, reason="this system does not count it")
def test_a_run_that_shares_its_core_knows_that_it_waited(tiny_gpt2: Path, tmp_path: Path) -> None:
    case = Case(make_study(tiny_gpt2, SOUND), write_texts(tmp_path), tmp_path / "cache")
    folder = case.folder(tmp_path, "shared")
    core = {min(os.sched_getaffinity(0))}

    def spin() -> None:
        os.sched_setaffinity(0, core)
        while True:
            pass

    def train() -> None:
        os.sched_setaffinity(0, core)
        case.execute(folder)

    other = start_child(spin)
    try:
        assert in_child(train) == 0
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    result = folder.read_result()
    assert result is not None and result.waited_share is not None
    assert 0.2 < result.waited_share < 1
