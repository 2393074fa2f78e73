"""`run` and `check`: from a study file to a finished study."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorastudy.cli import options
from lorastudy.cli.completion import complete_presets
from lorastudy.cli.live import watch_study
from lorastudy.cli.options import (
    AllowDrift,
    AsJson,
    Device,
    Launch,
    Mirror,
    Nproc,
    Offline,
    OpenedStudy,
    Overrides,
    Reference,
    Restart,
    SharedBy,
)
from lorastudy.config.spec import RunSpec, expand_study
from lorastudy.errors import (
    ConfigError,
    EnvironmentDriftError,
    InterruptedRunError,
    OwnedError,
    SomeRunsFailedError,
    StorageError,
    UserError,
)
from lorastudy.store.collect import list_strangers, write_results
from lorastudy.store.folders import StudyFolder
from lorastudy.store.records import RunResult, StudyLock, StudyResults
from lorastudy.store.resuming import Resuming

if TYPE_CHECKING:
    from lorastudy.launch.assignment import TeamOptions
    from lorastudy.study.check import ArmCheck, StudyCheck

StudyName = Annotated[
    str,
    typer.Argument(
        help="Preset, YAML file, or study folder.",
        metavar="STUDY",
        autocompletion=complete_presets,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("run")(run)
    app.command("check")(check)


def run(
    study: StudyName,
    *,
    out: Annotated[Path | None, typer.Option(help="Folder; default studies/NAME.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at the same time; default: one for each GPU, else 1."),
    ] = None,
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    overrides: Overrides = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm (repeatable).")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only this seed (repeatable).")] = None,
    restart: Restart = False,
    allow_drift: AllowDrift = False,
    probe: Annotated[
        bool | None,
        typer.Option(
            "--probe/--no-probe",
            help="Try every arm's memory on the longest rows first; without it, on CUDA only.",
            show_default=False,
        ),
    ] = None,
    is_reference: Reference = False,
    launch: Launch = "processes",
    nproc: Nproc = None,
    strategy: SharedBy = None,
    as_json: AsJson = False,
) -> None:
    """Execute what is missing of a study, then report. The same command resumes.

    STUDY is a preset (demo, paper, paper-sound), a YAML file, or the folder of a started study.
    With --json progress goes to standard error.
    """
    options.check_device(device)
    if is_reference:
        overrides = [*(overrides or []), "training.implementation=reference"]
    opened = options.open_study(study, out=out, overrides=overrides, mirror=mirror, offline=offline)
    chosen = _choose_runs(expand_study(opened.study), arm or [], seed or [])
    from lorastudy.launch.local import visible_gpus, warm_up

    warm_up()
    gpus = visible_gpus(device)
    team = options.choose_team(launch, nproc, strategy, n_gpus=len(gpus))
    resuming = Resuming(restart=restart, allow_drift=allow_drift)
    with options.progress_on(is_stderr=as_json):
        execute_locally(
            opened,
            chosen,
            jobs=jobs or max(1, len(gpus) // (team.size if team else 1)),
            device=device,
            resuming=resuming,
            probe=probe if team is None else False,  # an arm that needs a team does not fit alone
            gpus=gpus,
            team=team,
        )
    finish(opened.folder, chosen, as_json=as_json)


def _choose_runs(
    runs: tuple[RunSpec, ...], arms: list[str], seeds: list[int]
) -> tuple[RunSpec, ...]:
    known_arms = list(dict.fromkeys(r.arm.name for r in runs))
    known_seeds = sorted({r.seed for r in runs})
    for wanted, known, flag in ((arms, known_arms, "--arm"), (seeds, known_seeds, "--seed")):
        for value in wanted:
            if value not in known:
                raise ConfigError(
                    f"{flag} {value}: the study has no such one. It has: "
                    f"{', '.join(map(str, known))}."
                )
    return tuple(
        r for r in runs if (not arms or r.arm.name in arms) and (not seeds or r.seed in seeds)
    )


def execute_locally(
    opened: OpenedStudy,
    runs: tuple[RunSpec, ...],
    *,
    jobs: int,
    device: str,
    resuming: Resuming,
    probe: bool | None = None,
    gpus: tuple[str, ...] = (),
    team: "TeamOptions | None" = None,
) -> None:
    """Execute what is missing of `runs` on this machine, `jobs` at a time.

    Raises:
        UserError: See `start_or_continue`; also when a signal came.
    """
    from lorastudy.interrupts import StopFlag
    from lorastudy.launch.local import LocalEngine
    from lorastudy.run.setup import refuse_team

    if team is not None:
        refuse_team(team.size, opened.study.training)
    missing = start_or_continue(opened, runs, device=device, again=resuming.restart, probe=probe)
    folder = opened.folder
    print(f"{opened.study.name}: {len(missing)} of {len(runs)} runs to execute in {folder.path}")
    if strangers := list_strangers(folder):
        print(f"No run of this study, and left out of its report: runs/{', '.join(strangers)}")
    if not missing:
        return
    stop = StopFlag()
    stop.listen()
    engine = LocalEngine(
        folder,
        opened.places,
        device,
        jobs,
        stop,
        watch=lambda: None,
        resuming=resuming,
        gpus=gpus,
        team=team,
    )
    try:
        with watch_study(folder) as watcher:
            engine.watch = watcher.look
            engine.execute(missing)
    except ConfigError as error:  # it was a study's folder when this began
        raise StorageError(
            f"{folder.path} was deleted or edited during its runs. {error}"
        ) from error


def start_or_continue(
    opened: OpenedStudy,
    runs: tuple[RunSpec, ...],
    *,
    device: str,
    again: bool = False,
    probe: bool | None = None,
) -> tuple[RunSpec, ...]:
    """Check the study, write or compare its folder, and return those of `runs` that are missing.

    With `again` those that diverged count as missing too. `probe` tries every arm's memory
    first; None: on a device with memory of its own, where running out ends a run for good.

    Raises:
        UserError: Anything that can be known to be wrong before the first training step.
    """
    from lorastudy.machine.environment import choose_device
    from lorastudy.machine.memory import total_bytes
    from lorastudy.model.base import check_weights, quieten_libraries
    from lorastudy.store.files import read_record, write_record
    from lorastudy.study.check import (
        check_study,
        lock_study,
        missing_runs,
        refuse_full_disk,
        refuse_oversized,
        remember_places,
        start_study,
    )

    quieten_libraries()
    study, folder, where = opened.study, opened.folder, choose_device(device)
    checked = check_study(study, opened.places, where)
    if missing := missing_runs(runs, folder, again=again):
        check_weights(checked.reader.base.folder)
        refuse_full_disk(missing, checked.arms, folder.path)
        if probe is None:
            refuse_oversized(missing, checked.arms, total_bytes=total_bytes(where))
    start_study(study, folder)
    lock = lock_study(checked.lock, folder)
    remember_places(opened.places, folder)
    if missing and (where.type == "cuda" if probe is None else probe):
        from lorastudy.launch.probe import probe_study

        probed = probe_study(lock, missing, folder, opened.places, device)
        now = read_record(folder.lock, StudyLock)  # it may have been extended meanwhile
        found = {"probed": probed.probed, "micro_batch": probed.micro_batch}
        write_record(folder.lock, now.model_copy(update=found))
    return missing


def finish(folder: StudyFolder, chosen: tuple[RunSpec, ...], *, as_json: bool = False) -> None:
    """Write results and report, print them, and say by the exit code what is missing.

    Raises:
        UserError: Not all of `chosen` are done.
    """
    from lorastudy.analysis.findings import make_findings
    from lorastudy.cli.show import print_table
    from lorastudy.report.build import write_report

    results, owned = _settle(folder)
    findings = make_findings(results, folder.path)
    page = write_report(findings, folder.path)
    if as_json:
        found = json.loads(results.model_dump_json(include={"runs", "missing"}))
        options.print_json({"folder": folder.path, "report": page, **found})
    else:
        print_table(findings)
        print(f"\nReport: {page}")
    _refuse_unfinished(results, owned, {run.run_id for run in chosen})


def _settle(folder: StudyFolder) -> tuple[StudyResults, set[str]]:
    """`results.json` brought up to date, and which of the missing runs another process owns.

    An owner writes its result before it gives the run free: a run that is missing, then not
    owned, and has a result after that, ended while this looked, so it looks again.
    """
    while True:
        results = write_results(folder)
        owned = {run_id for run_id in results.missing if folder.run(run_id).is_owned()}
        free = set(results.missing) - owned
        if not any(folder.run(run_id).read_result() for run_id in free):
            return results, owned


def _refuse_unfinished(results: StudyResults, owned: set[str], chosen: set[str]) -> None:
    """Exit with the contract's code where runs failed or are in other hands."""
    bad = [r for r in results.runs if r.status != "done" and r.run_id in chosen]
    if bad:
        raise _error_for(bad)(
            f"{len(bad)} of {len(chosen)} runs did not finish:\n"
            + "\n".join(f"  {r.run_id}  {r.status}: {r.reason}" for r in bad)
        )
    missing = sorted(chosen & set(results.missing))
    if owned & chosen:
        raise OwnedError(
            f"{', '.join(missing)}: executed by another process. Run the same command again "
            "when it is done."
        )
    if missing:
        raise InterruptedRunError(
            f"{', '.join(missing)}: stopped before the end. Run the same command again."
        )


def _error_for(failed: list[RunResult]) -> type[UserError]:
    """Some runs failed; unless all of them wait for the same thing outside of the runs."""
    codes = {run.exit_code for run in failed}
    for error in (EnvironmentDriftError, StorageError):
        if codes == {error.exit_code}:
            return error
    return SomeRunsFailedError


def check(
    study: StudyName,
    *,
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Validate everything short of loading weights: modules, counts, steps, memory."""
    options.check_device(device)
    opened = options.open_study(
        study, out=None, overrides=overrides, mirror=mirror, offline=offline
    )
    from lorastudy.machine.environment import choose_device
    from lorastudy.model.base import quieten_libraries
    from lorastudy.study.check import check_study, count_overlap

    quieten_libraries()
    checked = check_study(opened.study, opened.places, choose_device(device))
    overlap = count_overlap(opened.study, checked.reader)
    if as_json:
        shared = [asdict(part) for part in overlap if part.documents]
        options.print_json({**_describe_check(checked), "overlap": shared})
    else:
        from lorastudy.cli.show import print_check

        print_check(opened.study, checked)
        for part in (part for part in overlap if part.documents):
            print(
                f"{part.documents:,} of the {part.of:,} documents of {part.benchmark} are in the "
                "training split: its scores show memory too."
            )


def _describe_check(checked: "StudyCheck") -> dict[str, Any]:
    return {
        "arms": [_describe_arm(arm, checked) for arm in checked.arms],
        "n_runs": checked.n_runs,
        "available_bytes": checked.available_bytes,
    }


def _describe_arm(arm: "ArmCheck", checked: "StudyCheck") -> dict[str, Any]:
    plan, schedule = arm.layout.plan, arm.layout.schedule
    return {
        "name": arm.spec.arm.name,
        "method": arm.spec.arm.method,
        "trainable_parameters": arm.trainable_parameters,
        "total_parameters": checked.reader.base.total_parameters + arm.adapter_parameters,
        "modules": list(arm.placement.paths),
        "optimizer_steps": plan.n_steps if arm.trains else 0,
        "warmup_steps": schedule.n_warmup if arm.trains else 0,
        "train_rows": plan.n_rows,
        "predicted_peak_bytes": arm.peak.total,
        "predicted_disk_bytes": arm.disk_bytes,
        "fits": arm.peak.total <= checked.available_bytes,
    }
