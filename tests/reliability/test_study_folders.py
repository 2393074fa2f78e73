"""The folder of a started study: edited, extended, moved, deleted, locked, of another version."""

import contextlib
import errno
import json
import multiprocessing
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from lorastudy import interrupts
from lorastudy.launch import local, worker
from lorastudy.launch.assignment import Assignment
from lorastudy.store import collect
from lorastudy.store.folders import StudyFolder
from support.command_line import call, stamps
from support.forked_studies import call_study, in_run, start_study
from support.tiny_runs import KILLED, start_child, wait_for_child

ONE_RUN = ("--arm", "lora", "--seed", "0")


@pytest.fixture(scope="module")
def finished(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose baseline and first LoRA run are done."""
    folder = tmp_path_factory.mktemp("finished") / "study"
    command = ("run", study_file, "--out", folder, "--jobs", 2, "--seed", 0)
    assert call_study(*command, "--arm", "lora", "--arm", "baseline").code == 0
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "study")
    return tmp_path / "study"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def id_of(folder: Path, arm: str, seed: int) -> str:
    runs = json.loads(call("status", folder, "--json").out)["runs"]
    return next(r["run_id"] for r in runs if (r["arm"], r["seed"]) == (arm, seed))


def lora_run(folder: Path) -> Path:
    (path,) = (folder / "runs").glob("lora-s0-*")
    return path


@pytest.mark.parametrize("command", ["run", "status", "table", "report", "run-one", "extend"])
def test_an_edited_study_file_of_a_started_study_is_refused_with_the_difference(
    folder: Path, command: str
) -> None:
    edit(folder / "study.yaml", "rank: 2", "rank: 3")
    before = stamps(folder)
    extra = {"run-one": [lora_run(folder).name], "extend": ["--seeds", 1]}.get(command, [])
    answer = call(command, folder, *extra)
    assert answer.code == 2
    assert "arms.lora.rank: 2 -> 3" in answer.err and "`lorastudy extend`" in answer.err
    assert stamps(folder) == before


def test_another_study_file_for_a_started_study_is_refused_with_the_difference(
    folder: Path, study_file: Path
) -> None:
    answer = call("run", study_file, "--out", folder, "--set", "training.epochs=3")
    assert answer.code == 2
    assert "training.epochs: 2 -> 3" in answer.err and "`lorastudy extend`" in answer.err


def test_an_extended_study_runs_only_what_is_new(folder: Path, tmp_path: Path) -> None:
    before = stamps(folder / "runs")
    arm = tmp_path / "more.yaml"
    arm.write_text(
        "{name: wider, method: lora, placement: [attention], rank: 3, alpha: 4, "
        "learning_rates: [1.0e-2]}\n"
    )
    assert call("extend", folder, "--arm", arm).code == 0
    answer = call_study("run", folder, "--seed", 0, "--arm", "wider", "--arm", "lora")
    assert answer.code == 0 and "1 of 2 runs to execute" in answer.out, answer.err
    after = stamps(folder / "runs")
    assert before.items() < after.items()
    assert all(name.startswith("wider-s0-") for name in after.keys() - before.keys())
    assert call("fsck", folder).code == 0


def test_an_extension_that_is_killed_halfway_is_as_if_it_had_not_begun(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "write_text", lambda *_: os._exit(KILLED))
    assert wait_for_child(start_study("extend", folder, "--seeds", 2)) == KILLED
    monkeypatch.undo()
    runs = json.loads(call("status", folder, "--json").out)["runs"]
    assert len(runs) == 5
    assert call("extend", folder, "--seeds", 2).code == 0
    runs = json.loads(call("status", folder, "--json").out)["runs"]
    assert len(runs) == 9 and {run["seed"] for run in runs} == {0, 1, 2, 3}


@pytest.mark.parametrize("name", ["result.json", "manifest.json", "epochs.jsonl"])
def test_a_folder_written_by_a_newer_version_is_left_to_that_version(
    folder: Path, name: str
) -> None:
    path = lora_run(folder) / name
    lines = (
        [json.loads(line) for line in path.read_text().splitlines()]
        if name[-1] == "l"
        else [json.loads(path.read_text())]
    )
    path.write_text("".join(json.dumps({**line, "invented_later": 1}) + "\n" for line in lines))
    before = stamps(folder / "runs")
    answer = call("fsck", folder)
    assert answer.code == 74
    assert f"{path} was written by a newer version" in answer.err.replace(": line 1 ", " ")
    assert "invented_later" in answer.err and "Use that version" in answer.err
    assert stamps(folder / "runs") == before


def test_a_folder_written_by_an_older_version_keeps_what_is_done_and_names_what_is_not_its(
    folder: Path,
) -> None:
    """Older versions wrote fewer keys, and gave runs other identities."""
    lock = json.loads((folder / "study.lock.json").read_text())
    for key in ("studies", "environment", "seal"):
        del lock[key]
    (folder / "study.lock.json").write_text(json.dumps(lock))
    (folder / "runs" / "lora-s0-01234567").mkdir()
    answer = call_study("run", folder, *ONE_RUN)
    assert answer.code == 0 and "0 of 1 run to execute" in answer.out
    assert "left out of its report: runs/lora-s0-01234567" in answer.out


def test_a_folder_that_lost_its_lock_is_not_continued_with_other_inputs(
    folder: Path, study_file: Path, tmp_path: Path
) -> None:
    (folder / "study.lock.json").unlink()
    moved = Path(shutil.copytree(study_file.parent, tmp_path / "moved")) / "study.yaml"
    edit(moved.parent / "texts/train.txt", "boat", "ship")
    answer = call_study("run", moved, "--out", folder, *ONE_RUN)
    assert answer.code == 3, answer.out
    assert "lock.json is missing" in answer.err and "train_digest differ" in answer.err
    assert not (folder / "study.lock.json").exists()
    edit(moved.parent / "texts/train.txt", "ship", "boat")
    assert call_study("run", moved, "--out", folder, *ONE_RUN).code == 0
    assert (folder / "study.lock.json").is_file()


def test_a_signal_is_heard_where_nothing_can_be_raised() -> None:
    class Ending:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def end() -> None:
        interrupts.end_on_signals()
        Ending()

    assert wait_for_child(start_child(end)) == 75


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_terminal_that_closes_asks_for_a_stop_unless_nohup_ignores_it(is_ignored: bool) -> None:
    def end() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
        flag = interrupts.StopFlag()
        with interrupts.signals_blocked():
            signal.raise_signal(signal.SIGHUP)
            flag.listen()
        assert flag.requested != is_ignored
        terminal, output = pty.openpty()
        os.dup2(output, 2)
        os.close(terminal)  # from here on, writing to it is an error
        interrupts.end_on_signals()
        ending = contextlib.nullcontext() if is_ignored else pytest.raises(SystemExit, match="75")
        with ending:
            signal.raise_signal(signal.SIGHUP)
        assert is_ignored or os.write(2, b"goes nowhere")

    assert wait_for_child(start_child(end)) == 0


def test_a_signal_lets_output_go_nowhere_whose_reader_has_ended() -> None:
    def end() -> None:
        interrupts.StopFlag().listen()
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            os.write(1, b"to nobody")
        signal.raise_signal(signal.SIGTERM)
        assert os.write(1, b"goes nowhere")

    assert wait_for_child(start_child(end)) == 0


def test_a_signal_that_a_library_passes_over_ends_the_program_all_the_same() -> None:
    def end() -> None:
        interrupts.end_on_signals()
        passing_over = contextlib.suppress(SystemExit)  # as some imports do
        with pytest.raises(SystemExit, match="75"), interrupts.ending_as_asked(), passing_over:
            signal.raise_signal(signal.SIGTERM)

    assert wait_for_child(start_child(end)) == 0


def test_a_file_in_place_of_a_runs_folder_is_said_in_a_sentence(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work_aloud(assignment: Assignment, parent: Connection) -> None:
        sys.stderr = sys.__stderr__
        worker.work(assignment, parent)

    monkeypatch.setattr(local, "_work", work_aloud)
    run = lora_run(folder)
    shutil.rmtree(run)
    run.write_text("")
    answer = call_study("run", folder, *ONE_RUN)
    said = answer.out + answer.err + "".join(capfd.readouterr())
    assert answer.code == 74 and "A file stands where a folder is needed" in said
    assert "Traceback" not in said


def test_a_run_that_holds_the_files_of_another_is_named_beside_every_number(folder: Path) -> None:
    (baseline,) = (folder / "runs").glob("baseline-s0-*")
    run = lora_run(folder)
    shutil.rmtree(run)
    shutil.copytree(baseline, run)
    for command in (("table", folder), ("export", folder, "lora", "--to", folder / "new")):
        said = call(*command).err
        assert f"{run.name}: result.json is that of {baseline.name}. Restore it" in said, command


def test_a_study_folder_that_is_moved_goes_on_where_it_lies(folder: Path, tmp_path: Path) -> None:
    run_id = id_of(folder, "full", 0)
    count = iter(range(10**9))

    def interrupt(point: str) -> None:
        if point == "train:after-optimizer" and next(count) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    assert call_study("run-one", folder, run_id, handler=interrupt).code == 75
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    folder.rename(moved)
    assert call("run-one", moved, run_id).code == 0
    assert call("fsck", moved).code == 0
    texts = [p.read_text() for p in moved.rglob("*.json*") if p.name not in (".places.json",)]
    assert not [text for text in texts if str(folder) in text]


def test_a_study_folder_that_is_deleted_in_flight_is_a_storage_error(folder: Path) -> None:
    def delete() -> None:
        shutil.rmtree(folder)

    handler = in_run("full", "train:after-optimizer", 3, delete)
    answer = call_study("run", folder, "--arm", "full", "--seed", 0, handler=handler)
    assert answer.code == 74, answer.err
    assert not (folder / "results.json").exists()


@pytest.fixture
def read_only(folder: Path) -> Iterator[Path]:
    """The folder mounted so that nobody, root included, may write in it."""
    bind = ["mount", "--bind", str(folder), str(folder)]
    try:
        mounted = subprocess.run(bind, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("this process may not mount a file system")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_folder_can_be_read_and_is_not_run(read_only: Path) -> None:
    for command in ("status", "table", "fsck"):
        assert call(command, read_only).code == 0, command
    for command in (("run", read_only, "--seed", 0), ("report", read_only)):
        answer = call_study(*command)
        assert answer.code == 74, command
        assert "Read-only file system" in answer.err and str(read_only) in answer.err


@pytest.mark.parametrize("name", ["study.yaml", "result.json"])
def test_what_this_user_may_not_read_is_said_in_a_sentence(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Path.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:  # root may read everything
        if path.name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    for command in ("status", "table", "fsck", "report"):
        answer = call(command, folder)
        assert answer.code == 74 and len(answer.err.splitlines()) == 1, command
        assert "Permission denied" in answer.err and name in answer.err


def test_a_run_whose_folder_may_not_be_read_is_named_and_the_others_are_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lora_run(folder)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != run)  # root may read everything
    for command in ("table", "status", "fsck", "decide"):
        answer = call(command, folder)
        said = f"{run.name}: its folder cannot be read: Permission denied."
        assert said in (answer.out if command == "status" else answer.err), command
        assert answer.code == (74 if command == "fsck" else 0), command
        assert command != "table" or "baseline" in answer.out
    runs = json.loads(call("table", folder, "--format", "json").out)["runs"]
    assert {r["arm"]: r["status"] for r in runs} == {"baseline": "done", "lora": "damaged"}


def test_a_baseline_that_was_interrupted_keeps_its_threads(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = StudyFolder(folder).run(next((folder / "runs").glob("baseline-*")).name)
    for path in (run.result, run.evaluations / "tale--paper-padded.json"):
        path.unlink()
    asked: list[int] = []
    monkeypatch.setattr(worker.torch, "set_num_threads", asked.append)
    answer = call("run-one", folder, run.path.name, "--threads", 7)
    assert answer.code == 0, answer.err
    assert set(asked) == {1}  # as this session runs its tests, and never 7


def test_a_run_whose_failure_cannot_be_written_ends_with_74_and_others_go_on(
    folder: Path,
) -> None:
    def take_nothing_more(point: str) -> None:
        """The first run's folder becomes a file, so that not even its failure can be written."""
        is_first = multiprocessing.current_process().name == run.path.name
        if is_first and point == "train:after-optimizer":
            shutil.rmtree(run.path)
            run.path.write_text("no folder any more")

    run = StudyFolder(folder).run(id_of(folder, "full", 0))
    answer = call_study("run", folder, "--arm", "full", handler=take_nothing_more)
    assert answer.code == 74, answer.err
    assert len(list((folder / "runs").glob("full-s1-*/result.json"))) == 1, answer.err


def test_a_run_that_was_lost_with_the_fork_server_says_so(folder: Path) -> None:
    handler = in_run("full", "train:after-optimizer", 0, lambda: os._exit(255))
    answer = call_study("run", folder, "--arm", "full", "--seed", 0, handler=handler)
    assert answer.code == 5 and "the fork server that had started it was killed" in answer.err
