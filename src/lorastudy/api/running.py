"""`lorastudy.run`: conduct a study as an iterator of events."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lorastudy.analysis.findings import make_findings
from lorastudy.api.study import Study, open_for
from lorastudy.interrupts import StopFlag
from lorastudy.launch.local import warm_up
from lorastudy.report.build import write_report
from lorastudy.store.decisions import AskedQuestion
from lorastudy.store.resuming import Resuming
from lorastudy.study.conduct import Execution, begin, execute, settle, with_plan
from lorastudy.study.decision_plan import wish_for
from lorastudy.study.progress import (
    DecisionTaken,
    EpochEnded,
    RunDisturbed,
    RunEnded,
    RunStarted,
    StepDone,
    Validated,
)
from lorastudy.study.wanted import Wanted


@dataclass(frozen=True, slots=True)
class StudyStarted:
    """The study was checked, and its folder was started or found."""

    name: str
    folder: Path
    n_runs: int  # that were asked for
    missing: tuple[str, ...]  # ids of those that will be executed first


@dataclass(frozen=True, slots=True)
class StudyFinished:
    """All runs that were asked for were executed as far as they could be, and reported."""

    name: str
    folder: Path
    report: Path  # the page
    done: tuple[str, ...]  # run ids of the whole study
    failed: tuple[str, ...]
    missing: tuple[str, ...]


Event = (
    StudyStarted
    | RunStarted
    | StepDone
    | RunDisturbed
    | Validated
    | EpochEnded
    | RunEnded
    | DecisionTaken
    | StudyFinished
)


def run(
    study: Study | str | Path,
    *,
    out: str | Path | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    mirror: str | Path | None = None,
    offline: bool = False,
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (),
    restart: bool = False,
    allow_drift: bool = False,
    until_decided: bool = False,
    min_seeds: int | None = None,
    max_seeds: int | None = None,
    question: AskedQuestion | None = None,
) -> Generator[Event, None, None]:
    """Execute the runs of a study that are missing, then write its report.

    Nothing happens before the first event is asked for. What is finished is not repeated. When
    the loop is left, every run stops at a checkpoint, and the same call continues from there. A run
    that fails is an event, and the others go on.

    Args:
        study: A study, or what `load_study` takes.
        out: Folder of the study; studies/NAME by default.
        jobs: Runs at the same time; by default one for each GPU, else one.
        threads: CPU threads of each run; by default its share of the cores.
        device: auto, cpu or cuda.
        mirror: Folder laid out like the hub, looked at before the cache and the hub.
        offline: Never ask the hub.
        arms: Names of the only arms to execute; by default all.
        seeds: The only seeds to execute; by default all.
        restart: Train unfinished runs again from their start.
        allow_drift: Resume in another environment; the report shows it.
        until_decided: Search learning rates, and add seeds, only where the question is open.
        min_seeds: With `until_decided`: the seeds of the first look; by default as few as allow a
            verdict.
        max_seeds: With `until_decided`: the most seeds that an arm may get; by default 10.
        question: With `until_decided`: "full-or-lora", "where", "all" or the names of two arms; by
            default that of the study, else "full-or-lora".

    Raises:
        StudyError: Mistakes in the study, or another study was started in `out`.
        lorastudy.errors.UserError: Whatever else can be known to be wrong before training.
    """
    opened = open_for(study, out=out, mirror=mirror, offline=offline)
    wish = wish_for(until_decided, min_seeds, max_seeds, question)
    wanted = Wanted(opened, arms, seeds, wish)
    how = Execution(device, jobs, Resuming(restart, allow_drift), threads=threads)
    warm_up()
    wanted = with_plan(wanted, how)
    missing = begin(wanted, how).missing
    name, folder = opened.study.name, opened.folder
    n_runs = len(wanted.list_runs()) + len(wanted.list_runs_to_come())
    yield StudyStarted(name, folder.path, n_runs, tuple(run.run_id for run in missing))
    with closing(execute(wanted, missing, how, StopFlag())) as looks:
        for look in looks:
            yield from look.events
    results = settle(folder).results
    page = write_report(make_findings(results, folder.path), folder.path)
    yield StudyFinished(
        name=name,
        folder=folder.path,
        report=page,
        done=tuple(run.run_id for run in results.runs if run.status == "done"),
        failed=tuple(run.run_id for run in results.runs if run.status != "done"),
        missing=results.missing,
    )
