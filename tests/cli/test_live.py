"""What people see while a study runs: a table that fits the terminal, or plain lines."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from lorastudy.cli.live import make_status_table, print_lines
from lorastudy.config.spec import RunSpec, expand_study
from lorastudy.config.study_file import dump_study, load_study, preset_text
from lorastudy.store.collect import RunOverview, read_overview
from lorastudy.store.files import write_record, write_text
from lorastudy.store.folders import StudyFolder
from lorastudy.store.lines import append_record
from lorastudy.store.records import EpochRecord, Manifest, StepRecord
from lorastudy.store.status import RunStatus
from lorastudy.study import progress
from lorastudy.study.progress import Progress

MIB = 1024**2
DEMO = expand_study(load_study(preset_text("demo"), "demo"))
PAPER = expand_study(load_study(preset_text("paper-sound"), "paper-sound", ["tuning_seeds=[]"]))


def step_record(number: int, seconds: float = 2.0) -> StepRecord:
    return StepRecord(
        step=number,
        epoch=1 + number // 100,
        loss=3.25,
        n_tokens=700,
        n_positions=700,
        learning_rate=1e-3,
        gradient_norm=1.0,
        seconds=seconds,
        peak_memory_bytes=9003 * MIB,
    )


def epoch_record(number: int) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        step=100 * number,
        train_loss=3.5,
        validation_loss=3.125,
        learning_rate=1e-3,
        train_seconds=200.0,
    )


def overview_of(spec: RunSpec, status: str) -> RunOverview:
    is_started = status != "missing"
    state = RunStatus(
        run_id=spec.run_id,
        status=status,  # type: ignore[arg-type]
        last_step=step_record(150) if is_started else None,
        last_epoch=epoch_record(1) if is_started else None,
        reason=None,
        seconds_left=11098.6 if status == "running" else None,
    )
    return RunOverview(spec, state)


def shown(overview: tuple[RunOverview, ...], width: int, most_rows: int | None = None) -> str:
    output = io.StringIO()
    table = make_status_table(overview, "studies/x", width=width, most_rows=most_rows)
    Console(file=output, width=width).print(table)
    return output.getvalue()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_nothing_is_cut_off_however_wide_the_terminal_is(width: int) -> None:
    runs = tuple(overview_of(spec, "running") for spec in PAPER[1:6])
    text = shown(runs, width)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    for value in ("running", "2/8", "3.250", "3.125", "3:04:59"):
        assert text.count(value) >= len(runs), value
    assert (runs[0].spec.run_id in text) == (width >= 100)
    assert "3e-05" in text and "0.0001" in text  # the arm has several


def test_long_names_push_out_what_matters_least() -> None:
    runs = tuple(overview_of(spec, "running") for spec in PAPER)
    text = shown(runs, 80)
    assert "lora-2-attention-projection" in text and "3:04:59" in text
    assert "9,003" not in text and max(len(line) for line in text.splitlines()) <= 80


def test_a_small_study_shows_everything_on_80_columns() -> None:
    runs = tuple(overview_of(spec, "running") for spec in DEMO)
    text = shown(runs, 80)
    for value in ("lora-4", "2/2", "150", "3.250", "3.125", "350", "3:04:59", "9,003"):
        assert value in text


def test_of_many_runs_those_are_shown_that_something_happens_with() -> None:
    states = ["done"] * 20 + ["running", "failed", "done", "running"] + ["missing"] * 31
    runs = tuple(overview_of(*pair) for pair in zip(PAPER, states, strict=True))
    text = shown(runs, 120, most_rows=5)
    assert text.count("running") == 3 and text.count("failed") == 2  # rows, and the count below
    assert PAPER[22].run_id in text and PAPER[19].run_id in text  # the latest that are done
    assert PAPER[0].run_id not in text
    assert "55 runs: 2 running, 1 failed, 21 done, 31 missing; 50 of them not shown" in text


@pytest.fixture
def started(tmp_path: Path) -> tuple[StudyFolder, RunSpec]:
    """A demo's folder in which one run has a manifest that promises 70 steps."""
    folder = StudyFolder(tmp_path)
    study = load_study(preset_text("demo"), "demo")
    write_text(folder.study, dump_study(study))
    spec = expand_study(study)[1]
    run = folder.run(spec.run_id)
    write_record(run.spec, spec)
    write_record(run.manifest, Manifest.model_validate({**MANIFEST, "run_id": spec.run_id}))
    return folder, spec


MANIFEST = {
    **dict.fromkeys(("base_digest", "tokenizer_digest", "train_digest", "validation_digest"), "0"),
    **dict.fromkeys(("trainable_parameters", "total_parameters", "warmup_steps", "train_rows"), 1),
    "modules": (),
    "optimizer_steps": 70,
    "train_targets_per_epoch": 1,
    "text_share": 0.5,
    "environment": {
        "lorastudy": "0", "python": "3", "libraries": {}, "device": "cpu",
        "precision": "float32", "threads": 1, "attention": "sdpa", "micro_batch": 1,
    },
}  # fmt: skip


def test_time_left_is_the_latest_pace_times_the_steps_to_go(
    started: tuple[StudyFolder, RunSpec],
) -> None:
    folder, spec = started
    run = folder.run(spec.run_id)
    for number in range(1, 31):
        append_record(run.steps, step_record(number, seconds=9.0 if number <= 10 else 2.0))
    assert status_of(folder, spec).seconds_left is None  # nobody works on it
    with run.claim():
        assert status_of(folder, spec).seconds_left == 2.0 * 40


def status_of(folder: StudyFolder, spec: RunSpec) -> RunStatus:
    return next(r.status for r in read_overview(folder) if r.spec.run_id == spec.run_id)


def test_a_log_gets_one_line_per_epoch_and_change_of_state(
    started: tuple[StudyFolder, RunSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, spec = started
    run, progress = folder.run(spec.run_id), Progress(folder)
    print_lines(progress.look().events)
    assert capsys.readouterr().out == ""
    append_record(run.steps, step_record(35))
    append_record(run.epochs, epoch_record(1))
    with run.claim():
        print_lines(progress.look().events)
        append_record(run.epochs, epoch_record(1))  # as a run that was resumed repeats it
        print_lines(progress.look().events)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{spec.run_id}  running"
    assert "validation 3.1250 nats/token" in second and "1:10 left" in second


def test_a_run_whose_threads_wait_for_cores_says_so_once_while_it_trains(
    started: tuple[StudyFolder, RunSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, spec = started
    run, progress = folder.run(spec.run_id), Progress(folder)
    said = "its threads had to wait"
    progress.look()

    def look_after(number: int, waited_seconds: float) -> str:
        measured = {"ran_seconds": 3.0, "waited_seconds": waited_seconds}
        append_record(run.steps, step_record(number).model_copy(update=measured))
        print_lines(progress.look().events)
        return capsys.readouterr().out

    with run.claim():
        assert said not in look_after(1, 0.0) + look_after(2, 0.5)  # as on a quiet machine
        assert f"{said} 44 % of the time" in look_after(3, 6.5)
        assert said not in look_after(4, 6.5)


def test_a_file_gets_whole_lines(started: tuple[StudyFolder, RunSpec], tmp_path: Path) -> None:
    from support.command_line import call

    text = call("status", Path(tmp_path)).out
    assert all(run.spec.run_id in text for run in read_overview(started[0]))
    assert "…" not in text and "16 runs: 1 interrupted, 15 missing" in text


def test_following_a_study_in_which_nothing_runs_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StudyFolder(tmp_path)
    write_text(folder.study, dump_study(load_study(preset_text("demo"), "demo")))
    monkeypatch.setattr(progress, "_IDLE_SECONDS", 0.2)
    monkeypatch.setattr(progress, "_LOOK_SECONDS", 0.05)
    looks = list(progress.follow_study(folder))
    assert len(looks) > 2
    assert {run.status.status for run in looks[-1].overview} == {"missing"}


def test_a_name_that_is_too_long_for_the_terminal_cuts_no_number() -> None:
    arm = DEMO[-1].arm.model_copy(update={"name": "n" * 64})
    run = overview_of(DEMO[-1].model_copy(update={"arm": arm}), "running")
    text = shown((run,), 80)
    assert "…" not in text and "3:04:59" in text and "3.125" in text
