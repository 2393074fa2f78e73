"""Whoever starts the runs, the study comes out the same; and runs survive their starters."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml

from lorastudy.config.spec import expand_study
from lorastudy.config.study_file import load_study
from lorastudy.errors import OwnedError
from lorastudy.interrupts import StopFlag
from lorastudy.launch.command import RunProcess, run_command
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.study.open import open_study
from lorastudy.study.start import start_or_continue
from support.command_line import call, lines_of, until, write_study
from support.tiny_runs import digest_run, start_child, wait_for_child

ROOT = Path(__file__).resolve().parents[2]
LORA = "lora"
pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(autouse=True)
def children_find_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))


@pytest.fixture(scope="module")
def study_file(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose lora run takes long enough to be interrupted in its middle."""
    path = write_study(tmp_path_factory.mktemp("engines"), tiny_gpt2)
    text = (
        path.read_text().replace("epochs: 2", "epochs: 14").replace("seeds: [0, 1]", "seeds: [0]")
    )
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def local(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The lora run as the local engine does it, on one thread as in the other engines here."""
    out = tmp_path_factory.mktemp("local") / "out"
    assert call("run", study_file, "--out", out, "--arm", LORA, "--threads", 1).code == 0
    return run_of(out)


def run_of(study: Path) -> RunFolder:
    (path,) = (study / "runs").glob("lora-*")
    return RunFolder(path)


def start_study(study_file: Path, out: Path) -> str:
    """Start the folder without executing anything; the id of its lora run."""
    opened = open_study(str(study_file), out=out, offline=True)
    runs = start_or_continue(opened, expand_study(opened.study), device="cpu").missing
    (run_id,) = (run.run_id for run in runs if run.arm.name == LORA)
    return run_id


def executing(run_id: str) -> list[psutil.Process]:
    """Processes that execute the run."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "run-one" in words and run_id in words:
            found.append(process)
    return found


def is_in_its_middle(run: RunFolder) -> bool:
    return run.steps.is_file() and len(lines_of(run.steps)) > 3 and not run.result.exists()


def test_a_run_gives_up_at_a_checkpoint_when_its_starter_is_killed(
    study_file: Path, local: RunFolder, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_id = start_study(study_file, out)
    run = StudyFolder(out).run(run_id)
    command = (*run_command(out, run_id), "--threads", "1")
    starter = os.fork()
    if starter == 0:
        RunProcess(command).execute()
        os._exit(0)
    until(lambda: is_in_its_middle(run))
    os.kill(starter, signal.SIGKILL)
    os.waitpid(starter, 0)
    until(lambda: not run.is_owned())
    assert not run.result.exists() and any(run.checkpoints.iterdir())

    assert call("run-one", out, run_id, "--threads", 1).code == 0
    assert digest_run(run) == digest_run(local)


def test_a_run_that_another_process_owns_is_waited_for(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, go_on = threading.Event(), threading.Event()

    def wait(_seconds: float) -> None:
        refused.set()
        assert go_on.wait(120)

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=wait)
    monkeypatch.setattr("lorastudy.launch.command.time", clock)
    out = tmp_path / "out"
    run_id = start_study(study_file, out)
    run = StudyFolder(out).run(run_id)
    codes: list[int] = []
    with run.claim():
        waiting = threading.Thread(
            target=lambda: codes.append(RunProcess(run_command(out, run_id)).execute())
        )
        waiting.start()
        assert refused.wait(120)
        assert waiting.is_alive() and not run.result.exists()
    go_on.set()
    waiting.join(120)
    assert codes == [0] and run.result.exists()


def test_submitit_requeues_a_preempted_run_which_goes_on(
    study_file: Path, local: RunFolder, tmp_path: Path
) -> None:
    pytest.importorskip("submitit")
    from submitit.local.local import LocalJobEnvironment

    from lorastudy.launch.slurm import SlurmOptions, submit_runs

    out = tmp_path / "out"
    run_id = start_study(study_file, out)
    run = StudyFolder(out).run(run_id)
    command = (*run_command(out, run_id), "--threads", "1")
    (job,) = submit_runs([command], out / "slurm", SlurmOptions(minutes=5), cluster="local")
    until(lambda: is_in_its_middle(run))
    controller = psutil.Process(int(job.job_id))
    (task,) = controller.children()
    task.send_signal(LocalJobEnvironment._usr_sig())  # what Slurm sends ahead of a preemption
    until(lambda: not task.is_running() or task.status() == psutil.STATUS_ZOMBIE)
    assert not run.result.exists(), "it was preempted too late for this test to say anything"
    assert job.result() == 0
    assert "Requeued" in job.stderr() + job.stdout()
    assert digest_run(run) == digest_run(local)


def test_ray_executes_what_is_missing_and_nothing_twice(
    study_file: Path, local: RunFolder, tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray")
    from lorastudy.launch.ray_engine import RayOptions, execute_on_ray

    out = tmp_path / "out"
    run_id = start_study(study_file, out)
    run = StudyFolder(out).run(run_id)
    commands = {run_id: (*run_command(out, run_id), "--threads", "1")}
    driver = os.fork()
    if driver == 0:
        os.setsid()
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        list(execute_on_ray(commands, RayOptions()))
        os._exit(0)
    until(lambda: is_in_its_middle(run), 120)
    for process in executing(run_id):  # the whole machine is lost, not the driver alone
        process.kill()
    os.killpg(driver, signal.SIGKILL)
    os.waitpid(driver, 0)
    assert not run.result.exists()

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    assert {run_id: 0} in execute_on_ray(commands, RayOptions())
    assert digest_run(run) == digest_run(local)
    before = run.result.stat().st_mtime_ns
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    assert {run_id: 0} in execute_on_ray(commands, RayOptions())
    assert run.result.stat().st_mtime_ns == before


def test_torchrun_with_one_process_gives_the_digest_of_the_local_engine(
    study_file: Path, local: RunFolder, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--arm", LORA, "--threads", 1, "--launch", "torchrun", "--nproc", 1)
    assert call("run", study_file, "--out", out, *options).code == 0
    assert digest_run(run_of(out)) == digest_run(local)


def stop_a_member(out: Path) -> None:
    """Tell one of the two processes that execute the lora run to stop, when it is in its middle."""
    until(lambda: any(out.glob("runs/lora-*/steps.jsonl")), 240)
    run = run_of(out)
    until(lambda: is_in_its_middle(run), 240)
    members = [p for p in executing(run.path.name) if "torch.distributed.run" not in p.cmdline()]
    assert len(members) == 2
    max(members, key=lambda p: p.pid).terminate()


def test_a_team_under_torchrun_stops_when_one_process_is_told_to_and_goes_on(
    study_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("run", study_file, "--out", out, "--arm", LORA, "--launch", "torchrun", "--nproc", 2)
    stopping = threading.Thread(target=stop_a_member, args=(out,))
    stopping.start()
    assert call(*command).code == 75
    stopping.join()
    run = run_of(out)
    assert run.read_result() is None and any(run.checkpoints.iterdir())
    assert not executing(run.path.name)

    assert call(*command).code == 0
    assert [line["step"] for line in lines_of(run.steps)] == list(range(1, 43))
    environment = json.loads(run.manifest.read_text())["environment"]
    assert (environment["world_size"], environment["strategy"]) == (2, "ddp")


def test_a_storm_of_restarts_executes_every_run_once(
    study_file: Path, local: RunFolder, tmp_path: Path
) -> None:
    """After a preemption eight workers start at once, each with every run before it."""
    out, log = tmp_path / "out", tmp_path / "steps"
    opened = open_study(str(study_file), out=out, offline=True)
    ids = [
        run.run_id
        for run in start_or_continue(opened, expand_study(opened.study), device="cpu").missing
    ]
    folder = StudyFolder(out)

    def execute_all() -> None:
        from lorastudy import faults
        from lorastudy.launch.worker import execute_by_id

        def count(point: str) -> None:
            if point == "train:after-optimizer":
                with log.open("a") as stream:
                    stream.write("x")

        faults.handler = count
        for run_id in ids:
            with suppress(OwnedError):
                execute_by_id(
                    folder, run_id, opened.places, device="cpu", threads=1, stop=StopFlag()
                )

    first = start_child(execute_all)
    until(lambda: log.exists() and len(log.read_text()) > 10)
    os.kill(first, signal.SIGKILL)
    wait_for_child(first)
    interrupted = next(folder.run(i) for i in ids if folder.run(i).checkpoints.is_dir())
    done = int(max(interrupted.checkpoints.glob("step-*")).name.removeprefix("step-"))
    log.write_text("")

    workers = [start_child(execute_all) for _ in range(8)]
    assert [wait_for_child(worker) for worker in workers] == [0] * 8
    assert all(folder.run(run_id).read_result().status == "done" for run_id in ids)
    assert len(log.read_text()) == 2 * 42 - done
    assert digest_run(run_of(out)) == digest_run(local)


@pytest.mark.parametrize("engine", ["slurm", "ray"])
def test_an_engine_that_is_not_installed_names_its_package(
    engine: str, study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"slurm": "submitit", "ray": "lorastudy.launch.ray_engine"}[engine]
    monkeypatch.setitem(sys.modules, module, None)
    answer = call("submit", study_file, "--engine", engine, "--out", tmp_path / "out")
    assert answer.code == 2 and "pip install" in answer.err


def test_what_every_engine_starts_can_be_printed(study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "a folder; with (signs)"
    slurm = ("--minutes", 90, "--partition", "gpu a", "--gpus", 2, "--memory-gb", 8, "--cpus", 3)
    ray = ("--address", "http://head:8265", "--gpus", 1)
    for engine, given in (("local", ()), ("slurm", slurm), ("ray", ray)):
        answer = call("submit", study_file, "--engine", engine, "--print", "--out", out, *given)
        lines = [shlex.split(line) for line in answer.out.splitlines()]
        assert len(lines) == 3 and not out.exists()
        if engine == "slurm":
            options = {"--time=90", "--partition=gpu a", "--gpus-per-node=2", "--mem=8G"}
            assert all(line[0] == "sbatch" and options < set(line) for line in lines)
            lines = [shlex.split(line[-1].removeprefix("--wrap=")) for line in lines]
        elif engine == "ray":
            assert all(line[:3] == ["ray", "job", "submit"] for line in lines)
            lines = [line[line.index("--") + 1 :] for line in lines]
        for line in lines:
            assert line[1:4] == ["-m", "lorastudy", "run-one"] and line[4] == str(out)
            assert "--while-input-is-open" not in line


def test_printed_commands_work_and_are_of_missing_runs_only(
    study_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a folder"
    short = ("--set", "training.epochs=1", "--set", "seeds=[0]")
    call("run", study_file, "--out", out, "--arm", "baseline", "--device", "cpu", *short)
    plan = ("submit", out, "--engine", "local", "--print", "--device", "cpu", "--json")
    first, *others = json.loads(call(*plan).out)["commands"]
    assert len(others) == 1
    in_a_shell = subprocess.run(["sh", "-c", first], check=False, stdin=subprocess.DEVNULL)
    assert in_a_shell.returncode == 0
    assert json.loads(call(*plan).out)["commands"] == others


def test_submitting_locally_is_running(study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    short = ("--set", "training.epochs=1", "--set", "seeds=[0]")
    answer = call(
        *("submit", study_file, "--engine", "local", "--out", out, "--jobs", 10**18, *short)
    )
    assert answer.code == 0 and (out / "report" / "index.html").is_file()


def test_a_sky_task_holds_the_study_and_the_command_that_continues_it(study_file: Path) -> None:
    answer = call("submit", study_file, "--engine", "sky", "--print", "--gpus", 2)
    assert answer.code == 0
    task = yaml.safe_load(answer.out)
    head, *study, end, command = task["run"].rstrip("\n").split("\n")
    assert head.endswith(f"<<'{end}'")
    assert load_study("\n".join(study), "sky") == load_study(study_file.read_text(), "file")
    assert command == "./run lorastudy run study.yaml --out /study --jobs 2"
    assert task["resources"]["accelerators"] == "A100:2"
    assert task["file_mounts"]["/study"]["mode"] == "MOUNT_CACHED"


def test_sky_is_never_started_from_here(study_file: Path) -> None:
    answer = call("submit", study_file, "--engine", "sky")
    assert answer.code == 2 and "--print" in answer.err
