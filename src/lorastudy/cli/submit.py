"""`submit`: hand the missing runs of a study to an engine."""

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorastudy.cli import options
from lorastudy.cli.options import AsJson, Device, Mirror, Offline, Out, Overrides, StudyName
from lorastudy.cli.run import execute_and_finish, finish
from lorastudy.errors import ConfigError
from lorastudy.launch.command import FOLLOWS_INPUT, ray_command, run_command
from lorastudy.launch.slurm import SlurmOptions, sbatch_command, submit_runs
from lorastudy.study.open import OpenedStudy, open_study
from lorastudy.units import write_count

if TYPE_CHECKING:
    from lorastudy.study.progress import Look
    from lorastudy.study.wanted import Wanted

Engine = Literal["local", "slurm", "ray", "sky"]
Commands = Mapping[str, tuple[str, ...]]  # command lines by run id

Minutes = Annotated[int, typer.Option(min=1, help="slurm: time limit of a run.")]
Partition = Annotated[str | None, typer.Option(help="slurm: partition.")]
MemoryGb = Annotated[int | None, typer.Option(min=1, help="slurm: memory for a run.")]
Address = Annotated[
    str | None, typer.Option(help="ray: address of a cluster; without it, this machine.")
]
OnlyPrint = Annotated[
    bool, typer.Option("--print", help="Only print a command for each missing run.")
]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked of an engine."""

    engine: Engine
    wishes: SlurmOptions  # cores, GPUs and runs at the same time are meant for every engine
    address: str | None  # of a Ray cluster
    device: str
    as_json: bool


def submit(
    study: StudyName,
    *,
    engine: Annotated[Engine, typer.Option(help="The program that executes the runs.")],
    out: Out = None,
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    overrides: Overrides = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of runs at the same time.")] = 16,
    cpus: Annotated[int, typer.Option(min=1, help="Cores for each run.")] = 2,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs for each run.")] = 0,
    minutes: Minutes = 240,
    partition: Partition = None,
    memory_gb: MemoryGb = None,
    address: Address = None,
    only_print: OnlyPrint = False,
    as_json: AsJson = False,
) -> None:
    """Hand the missing runs of a study to Slurm or Ray. The same command resumes.

    Every engine starts `lorastudy run-one`, and must see the folder of the study.
    """
    opened = open_study(study, out=out, overrides=overrides or (), mirror=mirror, offline=offline)
    _refuse_conducted(opened, engine)
    wishes = SlurmOptions(
        minutes=minutes,
        partition=partition,
        gpus=gpus,
        cpus=cpus,
        memory_gb=memory_gb,
        at_once=jobs,
    )
    asked = _Asked(engine, wishes, address, device, as_json)
    if only_print:
        _print_plan(opened, asked)
    elif engine == "local":
        _run_here(opened, asked)
    else:
        _hand_over(opened, asked)


def _refuse_conducted(opened: OpenedStudy, engine: Engine) -> None:
    """An engine executes runs that are known; `run` chooses them as it goes, or measures first."""
    study, budget = opened.study, opened.study.training.budget
    is_measured = budget is not None and budget.kind == "seconds"
    if engine != "local" and is_measured and not all(map(study.is_planned, study.arms)):
        raise ConfigError(
            "training.budget.seconds is planned on the machine that trains, and an engine chooses "
            f"it later. Start the study there with `lorastudy run`, and submit its folder: "
            f"{opened.folder.path}."
        )
    if engine != "local" and opened.folder.decisions.exists():
        raise ConfigError(
            f"{opened.folder.path} runs until its question is decided, which only "
            f"`lorastudy run {opened.folder.path}` can conduct."
        )


def _run_here(opened: OpenedStudy, asked: _Asked) -> None:
    from lorastudy.launch.local import warm_up
    from lorastudy.study.conduct import Execution, with_plan
    from lorastudy.study.wanted import Wanted

    wanted, how = Wanted(opened), Execution(device=asked.device, jobs=asked.wishes.at_once)
    warm_up()
    execute_and_finish(with_plan(wanted, how), how, as_json=asked.as_json)


def _hand_over(opened: OpenedStudy, asked: _Asked) -> None:
    if asked.engine == "sky":
        raise ConfigError("--engine sky only writes a task file: add --print, then `sky launch`.")
    from lorastudy.study.conduct import Execution, with_plan
    from lorastudy.study.wanted import Wanted

    wanted = with_plan(Wanted(opened), Execution(device=asked.device))
    commands = _start(wanted, asked)
    if asked.engine == "slurm":
        _hand_to_slurm(wanted, commands, asked)
        return
    with options.progress_on(is_stderr=asked.as_json):
        # the second stage, if any, has the runs at the learning rates that the first one chose
        done: set[str] = set()
        while stage := {i: command for i, command in commands.items() if i not in done}:
            _run_on_ray(wanted.opened, stage, asked)
            done |= set(stage)
            if not wanted.opened.study.tuning_seeds:
                break
            commands = _start(wanted, asked)
    finish(wanted, as_json=asked.as_json)


def _start(wanted: "Wanted", asked: _Asked) -> Commands:
    """Start the study's folder, and return the command lines of the runs that can start now."""
    from lorastudy.study.conduct import Execution, begin, take_stage

    opened = wanted.opened
    missing = take_stage(begin(wanted, Execution(device=asked.device)).missing, opened.study)
    print(
        f"{opened.study.name}: {len(missing)} of {len(wanted.list_runs())} runs to {asked.engine}",
        file=sys.stderr if asked.as_json else sys.stdout,
    )
    given = ("--device", asked.device, "--threads", str(asked.wishes.cpus))
    return {r.run_id: run_command(opened.folder.path, r.run_id, given) for r in missing}


def _hand_to_slurm(wanted: "Wanted", commands: Commands, asked: _Asked) -> None:
    folder, to_come = wanted.opened.folder.path, wanted.list_runs_to_come()
    numbers: list[str] = []
    if commands:
        try:
            jobs = submit_runs(list(commands.values()), folder / "slurm", asked.wishes)
        except ImportError as error:
            raise _not_installed("slurm", "submitit") from error
        numbers = [job.job_id for job in jobs]
    if asked.as_json:
        options.print_json({"folder": folder, "submitted": numbers})
        return
    if numbers:
        print(f"Submitted: {', '.join(numbers)}")
    if to_come:
        print(
            f"{write_count(len(to_come), 'more run')} will follow, at the learning rates that "
            "these runs choose: when these have ended, type the same command again."
        )
    print(f"Follow them:  lorastudy status {folder} --watch\nThen:  lorastudy report {folder}")


def _run_on_ray(opened: OpenedStudy, commands: Commands, asked: _Asked) -> None:
    from lorastudy.cli.live import show_progress

    codes: dict[str, int] = {}
    show_progress(opened.folder.path, _execute_on_ray(opened, commands, asked, codes))
    for code, count in sorted(Counter(codes.values()).items()):
        print(f"{write_count(count, 'run')} ended with exit code {code}")


def _execute_on_ray(
    opened: OpenedStudy, commands: Commands, asked: _Asked, codes: dict[str, int]
) -> "Iterator[Look]":
    """Follow the study while its runs are executed; `codes` receives their exit codes."""
    try:
        from lorastudy.launch.ray_engine import RayOptions, execute_on_ray
    except ImportError as error:
        raise _not_installed("ray", "ray") from error
    from lorastudy.study.progress import Progress

    progress = Progress(opened.folder)
    yield progress.look()
    wishes = RayOptions(address=asked.address, cpus=asked.wishes.cpus, gpus=asked.wishes.gpus)
    for ended in execute_on_ray(commands, wishes):
        codes |= ended
        yield progress.look()


def _not_installed(engine: str, package: str) -> ConfigError:
    return ConfigError(
        f"--engine {engine} needs the package {package}, which is not installed. "
        f"Install it:  ./run python -m pip install {package}"
    )


def _print_plan(opened: OpenedStudy, asked: _Asked) -> None:
    is_sky, wishes = asked.engine == "sky", asked.wishes
    if is_sky:
        from lorastudy.launch.sky import make_sky_task

        plan = make_sky_task(opened.study, gpus=wishes.gpus, cpus=wishes.cpus).splitlines()
    else:
        plan = _plan_commands(opened, asked)
        if not opened.folder.lock.is_file():
            folder = shlex.quote(str(opened.folder.path))
            print(
                "These commands need the study's folder, which does not exist yet. Both `submit` "
                f"without --print and `lorastudy run STUDY --out {folder}` make it.",
                file=sys.stderr,
            )
    if asked.as_json:
        options.print_json({"engine": asked.engine, "sky_task" if is_sky else "commands": plan})
    else:
        print("\n".join(plan))


def _plan_commands(opened: OpenedStudy, asked: _Asked) -> list[str]:
    """One line for a shell per missing run, with the options of the engine's own program."""
    from lorastudy.study.conduct import Execution, take_stage, with_plan
    from lorastudy.study.start import missing_runs
    from lorastudy.study.wanted import Wanted

    wishes = asked.wishes
    given = ["--device", asked.device, "--threads", str(wishes.cpus)]
    if opened.places.mirror is not None:
        given += ["--mirror", str(opened.places.mirror.resolve())]
    given += ["--offline"] * opened.places.offline
    plan = []
    wanted = with_plan(Wanted(opened), Execution(device=asked.device))
    missing = missing_runs(wanted.list_runs(), opened.folder)
    for run in take_stage(missing, opened.study):
        # a printed command has no parent whose end it would have to notice
        parts = run_command(opened.folder.path, run.run_id, given)
        command = [part for part in parts if part != FOLLOWS_INPUT]
        if asked.engine == "slurm":
            command = sbatch_command(command, run.run_id, wishes)
        elif asked.engine == "ray":
            command = ray_command(
                command, address=asked.address, cpus=wishes.cpus, gpus=wishes.gpus
            )
        plan.append(shlex.join(command))
    return plan
