"""How long runs will take: what is counted, and how measured parts become whole runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lorastudy.config.models import Study, Training
from lorastudy.data.batches import Padding
from lorastudy.data.rows import RowTable, cut_stream
from lorastudy.launch.attempt import TriedArm
from lorastudy.machine.speed import MachineSpeed
from lorastudy.model.adapters import attach_arm
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.base import describe_base, load_base
from lorastudy.run.probe import ProbedSeconds
from lorastudy.store.locks import ProbedArm
from lorastudy.store.places import Places
from lorastudy.study.check import StudyCheck, check_study
from lorastudy.study.run_seconds import predict_study
from lorastudy.study.work import Passage, Work, count_epoch, count_evaluation
from support.tiny_runs import ARMS, make_study, write_texts

CPU = torch.device("cpu")
ROWS, LENGTH = 4, 9
TRAINING = Training(epochs=1, rows_per_step=ROWS, micro_batch=ROWS)


def table_of_rows() -> RowTable:
    return cut_stream([0, ROWS * LENGTH], LENGTH)


@pytest.mark.parametrize("arm", ["baseline", "full", "lora"])
def test_arithmetic_of_an_arm_is_what_torch_counts(tiny_gpt2: Path, arm: str) -> None:
    (spec,) = make_study(tiny_gpt2, arms=(ARMS[arm],)).arms
    base, network = describe_base(tiny_gpt2), load_base(tiny_gpt2, device=CPU)
    model = attach_arm(network, spec, resolve_arm(spec, base), seed=0)
    ids = torch.zeros((ROWS, LENGTH - 1), dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        logits = network(input_ids=ids, use_cache=False).logits
        if model.n_trained:
            logits.sum().backward()
    if model.n_trained:
        sizes = {"trained_parameters": model.n_trained}
        sizes["added_parameters"] = 0 if arm == "full" else model.n_trained
        work = count_epoch(base, spec, TRAINING, table_of_rows(), Padding(0), **sizes)
    else:
        work = count_evaluation(base, table_of_rows(), Padding(0), 0)
    # of two layers, the lower one passes no gradient on where only adapters are trained
    rel = 0.07 if arm == "lora" else 0.05
    assert work.flops == pytest.approx(counter.get_total_flops(), rel=rel)


def test_work_takes_the_time_of_its_three_kinds() -> None:
    work = Work(flops=6.0, passed_bytes=10.0, operations=3.0) + Work(flops=2.0)
    assert (work * 2).seconds_at(MachineSpeed(4.0, 5.0, 1.0)) == 2 * (8 / 4 + 10 / 5 + 3 / 1)


def test_padding_counts_where_it_is_scored() -> None:
    table = RowTable(0, *(np.array(part) for part in ([0, 3], [3, 9], [0, 3], [0, 1])))
    masked, scored = (
        Passage.of(table, padding, positions_at_once=5) for padding in (Padding(0), Padding(0, 10))
    )
    # rows of 3 and 6 tokens and a prefix; the last token of a row is only a target
    assert (masked.n_positions, masked.n_scored, masked.n_pairs) == (9, 9, (9 + 36) / 2)
    assert (scored.n_positions, scored.n_pairs, scored.n_batches) == (20, 100, 4)


@pytest.fixture(scope="module")
def checked(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, StudyCheck]:
    folder = tmp_path_factory.mktemp("checked")
    places = Places(write_texts(folder / "texts"), offline=True, cache=folder / "cache")
    study = make_study(tiny_gpt2, arms=(ARMS["baseline"], ARMS["lora"]))
    return study, check_study(study, places, CPU)


def tried(**changes: object) -> dict[str, TriedArm]:
    nothing = ProbedSeconds(*[0.0] * 8, {})
    seconds = replace(nothing, **changes)
    return {name: TriedArm(ProbedArm(arm=name, fits=True, peak_memory_bytes={}), seconds)
            for name in ("baseline", "lora")}  # fmt: skip


def test_measured_parts_become_those_of_a_whole_run(checked: tuple[Study, StudyCheck]) -> None:
    study, check = checked
    _, lora = check.arms
    names = dict.fromkeys(check.scored, 0.25)
    parts = tried(
        set_up=1.0, first_steps=2.0, per_target=0.5, per_validated_token=0.125,
        checkpoint=3.0, best=4.0, restore=5.0, per_scored_token=names,
    )  # fmt: skip
    found = predict_study(study, check, parts)
    epochs, layout = study.training.epochs, lora.layout
    held_out = layout.validation_table.n_tokens() + layout.train_slice.n_tokens()
    seconds = found.by_arm["lora"]
    assert seconds.training == 2.0 + 0.5 * layout.table.n_scored.sum() * epochs
    assert seconds.validation == 0.125 * held_out * epochs
    assert seconds.checkpoints == (3.0 + 4.0) * epochs + 5.0
    assert seconds.scoring == 0.25 * sum(rows.table.n_tokens() for rows in check.scored.values())
    assert seconds.total == 1.0 + sum(
        (seconds.training, seconds.validation, seconds.checkpoints, seconds.scoring)
    )
    baseline = found.by_arm["baseline"]
    assert baseline.total == 1.0 + baseline.scoring
    assert found.total == baseline.total + len(study.seeds) * seconds.total


def test_runs_that_choose_a_learning_rate_are_counted_without_scores(
    checked: tuple[Study, StudyCheck],
) -> None:
    study, check = checked
    rates = {"learning_rates": (0.1, 0.2, 0.3)}
    arms = (study.arms[0], study.arms[1].model_copy(update=rates))
    tuned = study.model_copy(update={"arms": arms, "tuning_seeds": (7, 8), "seeds": (0,)})
    parts = tried(set_up=1.0, per_scored_token=dict.fromkeys(check.scored, 0.25))
    found = predict_study(tuned, check, parts)
    scoring = found.by_arm["lora"].scoring
    assert found.n_runs == {"baseline": 1, "lora": 3 * 2 + 1}
    assert scoring > 0 and found.total == pytest.approx(8 * 1.0 + 2 * scoring)


def test_an_arm_that_did_not_fit_is_predicted_from_shapes(
    checked: tuple[Study, StudyCheck],
) -> None:
    study, check = checked
    fits, short = tried(set_up=1.0, per_scored_token=dict.fromkeys(check.scored, 0.0)).values()
    known = {"baseline": fits, "lora": replace(short, seconds=None)}
    found = predict_study(study, check, known).by_arm
    assert found["baseline"].total == 1.0
    assert found["lora"].training > 0
