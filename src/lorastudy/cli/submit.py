"""`submit`: hand the missing runs of a study to an engine."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from lorastudy.cli import options
from lorastudy.cli.live import watch_study
from lorastudy.cli.options import AsJson, Device, Mirror, Offline, OpenedStudy, Overrides
from lorastudy.cli.studies import StudyName, execute_locally, finish, start_or_continue
from lorastudy.config.spec import RunSpec, expand_study
from lorastudy.errors import ConfigError
from lorastudy.launch.command import run_command
from lorastudy.store.resuming import Resuming

Engine = Literal["local", "slurm", "ray", "sky"]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("submit")(submit)


def submit(
    study: StudyName,
    *,
    engine: Annotated[Engine, typer.Option(help="Who executes the runs.")],
    out: Annotated[Path | None, typer.Option(help="Folder; default studies/NAME.")] = None,
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    overrides: Overrides = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 16,
    cpus: Annotated[int, typer.Option(min=1, help="Cores of a run.")] = 2,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of a run.")] = 0,
    minutes: Annotated[int, typer.Option(min=1, help="slurm: time limit of a run.")] = 240,
    partition: Annotated[str | None, typer.Option(help="slurm: partition.")] = None,
    memory_gb: Annotated[int | None, typer.Option(min=1, help="slurm: memory of a run.")] = None,
    address: Annotated[
        str | None, typer.Option(help="ray: address of a cluster; without it, this machine.")
    ] = None,
    only_print: Annotated[
        bool, typer.Option("--print", help="Only print what would be started.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hand the missing runs of a study to an engine. The same command resumes.

    Every engine starts `lorastudy run-one DIR RUN_ID`, which may be started any number of times.
    The study's folder must lie where all machines see it.
    """
    options.check_device(device)
    opened = options.open_study(study, out=out, overrides=overrides, mirror=mirror, offline=offline)
    if only_print:
        _print_plan(opened, engine, gpus=gpus, cpus=cpus, as_json=as_json)
        return
    if engine == "sky":
        raise ConfigError("--engine sky only writes a task file: add --print, then `sky launch`.")
    runs = expand_study(opened.study)
    if engine == "local":
        with options.progress_on(is_stderr=as_json):
            _run_here(opened, runs, jobs=jobs, device=device)
        finish(opened.folder, runs, as_json=as_json)
        return
    missing = start_or_continue(opened, runs, device=device)
    _say(f"{opened.study.name}: {len(missing)} of {len(runs)} runs to {engine}", as_json=as_json)
    given = ("--device", device, "--threads", str(cpus))
    commands = {r.run_id: run_command(opened.folder.path, r.run_id, given) for r in missing}
    if engine == "ray":
        with options.progress_on(is_stderr=as_json):
            _on_ray(opened, commands, address=address, cpus=cpus, gpus=gpus)
        finish(opened.folder, runs, as_json=as_json)
        return
    numbers = _to_slurm(
        opened,
        list(commands.values()),
        minutes=minutes,
        partition=partition,
        gpus=gpus,
        cpus=cpus,
        memory_gb=memory_gb,
        jobs=jobs,
    )
    if as_json:
        options.print_json({"folder": opened.folder.path, "submitted": numbers})
    else:
        _say_submitted(opened, numbers)


def _run_here(opened: OpenedStudy, runs: tuple[RunSpec, ...], *, jobs: int, device: str) -> None:
    from lorastudy.launch.local import visible_gpus

    gpus = visible_gpus(device)
    execute_locally(opened, runs, jobs=jobs, device=device, resuming=Resuming(), gpus=gpus)


def _to_slurm(
    opened: OpenedStudy,
    commands: list[tuple[str, ...]],
    *,
    minutes: int,
    partition: str | None,
    gpus: int,
    cpus: int,
    memory_gb: int | None,
    jobs: int,
) -> list[str]:
    """Numbers of the jobs, none where nothing was missing."""
    try:
        from lorastudy.launch.slurm import SlurmOptions, submit_runs
    except ImportError as error:
        raise _not_installed("slurm", "submitit") from error
    settings = SlurmOptions(
        minutes=minutes,
        partition=partition,
        gpus=gpus,
        cpus=cpus,
        memory_gb=memory_gb,
        at_once=jobs,
    )
    if not commands:
        return []
    return [job.job_id for job in submit_runs(commands, opened.folder.path / "slurm", settings)]


def _say(line: str, *, as_json: bool) -> None:
    print(line, file=sys.stderr if as_json else sys.stdout)


def _say_submitted(opened: OpenedStudy, numbers: list[str]) -> None:
    if numbers:
        print(f"Submitted: {', '.join(numbers)}")
    print(
        f"Follow them:  lorastudy status {opened.folder.path} --watch\n"
        f"Then:  lorastudy report {opened.folder.path}"
    )


def _on_ray(
    opened: OpenedStudy,
    commands: dict[str, tuple[str, ...]],
    *,
    address: str | None,
    cpus: int,
    gpus: int,
) -> None:
    try:
        from lorastudy.launch.ray_engine import RayOptions, execute_on_ray
    except ImportError as error:
        raise _not_installed("ray", "ray") from error
    settings = RayOptions(address=address, cpus=cpus, gpus=gpus)
    with watch_study(opened.folder) as watcher:
        codes = execute_on_ray(commands, settings, watcher.look)
    for code, count in sorted(Counter(codes.values()).items()):
        print(f"{count} runs ended with exit code {code}")


def _not_installed(engine: str, package: str) -> ConfigError:
    return ConfigError(
        f"--engine {engine} needs the package {package}, which is not installed. "
        f"Install it:  ./run python -m pip install {package}"
    )


def _print_plan(
    opened: OpenedStudy, engine: Engine, *, gpus: int, cpus: int, as_json: bool
) -> None:
    runs: tuple[RunSpec, ...] = expand_study(opened.study)
    if engine == "sky":
        from lorastudy.launch.sky import make_sky_task

        plan = make_sky_task(opened.study, gpus=gpus, cpus=cpus).splitlines()
    else:
        plan = [" ".join(run_command(opened.folder.path, run.run_id)[2:]) for run in runs]
    if as_json:
        options.print_json({"engine": engine, "sky_task" if engine == "sky" else "commands": plan})
    else:
        print("\n".join(plan))
