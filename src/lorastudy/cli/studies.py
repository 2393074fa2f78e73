"""`run`, `init`, `check`: from a study file to a finished study."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorastudy.cli import options
from lorastudy.cli.live import watch_study
from lorastudy.cli.options import AsJson, Device, Mirror, Offline, OpenedStudy, Overrides
from lorastudy.errors import (
    ConfigError,
    InterruptedRunError,
    OwnedError,
    SomeRunsFailedError,
)
from lorastudy.spec import RunSpec, expand_study
from lorastudy.store.collect import write_results
from lorastudy.store.files import write_text
from lorastudy.store.folders import StudyFolder
from lorastudy.store.records import StudyResults
from lorastudy.study_file import preset_text

if TYPE_CHECKING:
    from lorastudy.study import ArmCheck, StudyCheck

StudyName = Annotated[
    str, typer.Argument(help="Preset, YAML file, or study folder.", metavar="STUDY")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("run")(run)
    app.command("init")(init)
    app.command("check")(check)


def run(
    study: StudyName,
    out: Annotated[Path | None, typer.Option(help="Folder; default studies/NAME.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    overrides: Overrides = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm (repeatable).")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only this seed (repeatable).")] = None,
) -> None:
    """Execute what is missing of a study, then report. The same command resumes.

    Examples:  lorastudy run demo  |  lorastudy run my-study.yaml --set training.epochs=2
    """
    options.check_device(device)
    opened = options.open_study(study, out=out, overrides=overrides, mirror=mirror, offline=offline)
    chosen = _choose_runs(expand_study(opened.study), arm or [], seed or [])
    from lorastudy.launch.local import warm_up

    warm_up()
    _execute(opened, chosen, jobs=jobs, device=device)
    _finish(opened.folder, chosen)


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


def _execute(opened: OpenedStudy, runs: tuple[RunSpec, ...], *, jobs: int, device: str) -> None:
    from lorastudy.environment import choose_device
    from lorastudy.interrupts import StopFlag
    from lorastudy.launch.local import LocalEngine
    from lorastudy.model.base import check_weights, quieten_libraries
    from lorastudy.study import check_study, lock_study, missing_runs, remember_places, start_study

    quieten_libraries()
    study, folder = opened.study, opened.folder
    checked = check_study(study, opened.places, choose_device(device))
    if missing := missing_runs(runs, folder):
        check_weights(checked.reader.base.folder)
    start_study(study, folder)
    lock_study(checked.lock, folder)
    remember_places(opened.places, folder)
    print(f"{study.name}: {len(missing)} of {len(runs)} runs to execute in {folder.path}")
    if not missing:
        return
    stop = StopFlag()
    stop.listen()
    with watch_study(folder) as watcher:
        LocalEngine(folder, opened.places, device, jobs, stop, watcher.look).execute(missing)


def _finish(folder: StudyFolder, chosen: tuple[RunSpec, ...]) -> None:
    from lorastudy.cli.show import print_table
    from lorastudy.report.build import write_report

    results = write_results(folder)
    page = write_report(results, folder.path)
    print_table(results, folder.path)
    print(f"\nReport: {page}")
    _refuse_unfinished(folder, results, {run.run_id for run in chosen})


def _refuse_unfinished(folder: StudyFolder, results: StudyResults, chosen: set[str]) -> None:
    """Exit with the contract's code where runs failed or are in other hands."""
    bad = [r for r in results.runs if r.status != "done" and r.run_id in chosen]
    if bad:
        raise SomeRunsFailedError(
            f"{len(bad)} of {len(chosen)} runs did not finish:\n"
            + "\n".join(f"  {r.run_id}  {r.status}: {r.reason}" for r in bad)
        )
    missing = sorted(chosen & set(results.missing))
    if any(folder.run(run_id).is_owned() for run_id in missing):
        raise OwnedError(
            f"{', '.join(missing)}: executed by another process. Run the same command again "
            "when it is done."
        )
    if missing:
        raise InterruptedRunError(
            f"{', '.join(missing)}: stopped before the end. Run the same command again."
        )


def init(
    preset: Annotated[str, typer.Argument(help="demo, paper or paper-sound.")],
    out: Annotated[Path | None, typer.Option(help="File; default PRESET.yaml.")] = None,
) -> None:
    """Write a commented study file to start from."""
    path = out or Path(f"{preset}.yaml")
    text = preset_text(preset)
    if path.exists():
        raise ConfigError(f"{path} exists already. Give another name with --out.")
    write_text(path, text)
    print(f"Wrote {path}. Edit it, then:  lorastudy check {path}")


def check(
    study: StudyName,
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
    from lorastudy.environment import choose_device
    from lorastudy.model.base import quieten_libraries
    from lorastudy.study import check_study

    quieten_libraries()
    checked = check_study(opened.study, opened.places, choose_device(device))
    if as_json:
        print(json.dumps(_describe_check(checked), indent=1))
    else:
        from lorastudy.cli.show import print_check

        print_check(opened.study, checked)


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
        "fits": arm.peak.total <= checked.available_bytes,
    }
