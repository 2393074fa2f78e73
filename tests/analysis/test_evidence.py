"""Evidence of run folders: when timings are unreliable, what is stored, what memory is made of."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lorastudy.analysis.evidence import (
    Evidence,
    measure_pace,
    read_evidence,
    stored_size,
    timing_doubts,
)
from lorastudy.analysis.findings import make_findings
from lorastudy.analysis.summary import ArmSummary, summarise_arms
from lorastudy.report.figures.bars import split_memory
from lorastudy.report.page.integrity import describe_resumes, list_warnings
from lorastudy.store.lines import append_record
from lorastudy.store.records import ResumeRecord, RunResult, StepRecord
from support.made_results import MIB, make_results, make_run


def make_steps(seconds_and_positions: Sequence[tuple[float, int]]) -> list[StepRecord]:
    return [
        StepRecord(
            step=step,
            epoch=1,
            loss=3.0,
            n_tokens=50,
            n_positions=n_positions,
            learning_rate=1e-3,
            gradient_norm=1.0,
            seconds=seconds,
        )
        for step, (seconds, n_positions) in enumerate(seconds_and_positions, 1)
    ]


def test_steps_that_are_slow_for_their_length_are_found() -> None:
    pace = measure_pace(make_steps([(9.0, 100)] + [(1.0, 100)] * 30 + [(3.0, 100)] * 6))
    assert pace.slow_tenth == 3.0 and pace.is_uneven


def test_long_steps_that_take_long_are_no_sign_of_other_programs() -> None:
    pace = measure_pace(make_steps([(1.0, 100), (5.0, 500)] * 20))
    assert pace.slow_tenth == pytest.approx(1.0) and not pace.is_uneven


def test_few_steps_tell_nothing_of_their_pace() -> None:
    assert measure_pace(make_steps([(1.0, 100)] * 20)) is None


def arm_of(runs: Sequence[RunResult], folder: Path | None = None) -> tuple[ArmSummary, Evidence]:
    results = make_results(runs, arms=("full",))
    return summarise_arms(results)[0], read_evidence(results, folder)


@pytest.mark.parametrize(("speeds", "n_doubts"), [((100.0, 109.0), 0), ((100.0, 111.0), 1)])
def test_seeds_of_different_speed_put_seconds_in_doubt(
    speeds: tuple[float, ...], n_doubts: int
) -> None:
    runs = [make_run("full", s, tokens_per_second=speed) for s, speed in enumerate(speeds)]
    assert len(timing_doubts(*arm_of(runs))) == n_doubts


@pytest.mark.parametrize(("share", "n_doubts"), [(None, 0), (0.04, 0), (0.05, 1)])
def test_threads_that_waited_for_a_core_put_seconds_in_doubt(
    share: float | None, n_doubts: int
) -> None:
    assert len(timing_doubts(*arm_of([make_run("full", 0, waited_share=share)]))) == n_doubts


def test_stored_size_is_that_of_the_files_or_else_counted(tmp_path: Path) -> None:
    run = make_run("full", 0, trainable_parameters=10)
    counted = stored_size(*arm_of([run], tmp_path))
    (tmp_path / "runs" / run.run_id / "best").mkdir(parents=True)
    weights = tmp_path / "runs" / run.run_id / "best" / "model.safetensors"
    weights.write_bytes((2).to_bytes(8, "little") + b"{}")
    measured = stored_size(*arm_of([run], tmp_path))
    assert (counted.n_bytes, counted.is_measured) == (40, False)
    assert (measured.n_bytes, measured.is_measured) == (10, True)


def test_memory_is_split_into_what_can_be_counted_and_the_rest() -> None:
    arm, _ = arm_of([make_run("full", 0, total_parameters=2 * MIB, trainable_parameters=MIB)])
    assert split_memory(arm, 100.0) == (8.0, 12.0, 80.0)  # 4 bytes each; 12 each trained
    assert split_memory(arm, 19.0) == ()


def test_an_interrupted_run_is_named_with_the_step_it_went_on_from(tmp_path: Path) -> None:
    run = make_run("full", 0)
    path = tmp_path / "runs" / run.run_id / "resumes.jsonl"
    for step in (7, 12):
        path.parent.mkdir(parents=True, exist_ok=True)
        append_record(path, ResumeRecord(step=step))
    _, evidence = arm_of([run], tmp_path)
    assert describe_resumes(evidence) == (f"{run.run_id} continued after step 7, 12.",)


def test_a_damaged_manifest_is_told_and_stops_nothing(tmp_path: Path) -> None:
    name = f"runs/{make_results().runs[1].run_id}/manifest.json"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("{}")
    warnings = list_warnings(make_findings(make_results(), tmp_path))
    told = [text for text in warnings if "Not read" in text]
    assert len(told) == 1 and told[0].startswith(f"Not read: {name} is not a readable Manifest")
