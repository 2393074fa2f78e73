"""`run`: from a study to its report."""

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorastudy.cli import options
from lorastudy.cli.options import (
    AllowDrift,
    AsJson,
    Device,
    Launch,
    Mirror,
    Nproc,
    Offline,
    Out,
    Overrides,
    Padded,
    Reference,
    Restart,
    SharedBy,
    StudyName,
)
from lorastudy.errors import InterruptedRunError, show_names
from lorastudy.interrupts import StopFlag, end_on_signals
from lorastudy.store.collect import list_strangers
from lorastudy.store.locks import read_lock
from lorastudy.store.resuming import Resuming
from lorastudy.study.open import open_study
from lorastudy.units import write_count

if TYPE_CHECKING:
    from lorastudy.config.budget import TrainingBudget
    from lorastudy.study.conduct import Execution
    from lorastudy.study.wanted import Wanted

Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Number of runs at the same time; default: one for each GPU, else 1."),
]
Arms = Annotated[list[str] | None, typer.Option(help="Execute only this arm (repeatable).")]
Seeds = Annotated[list[int] | None, typer.Option(help="Execute only this seed (repeatable).")]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPU threads of each process; default: its share of the cores, "
        "at most OMP_NUM_THREADS.",
    ),
]
_DECIDING = "Run until a question is decided"
Until = Annotated[
    bool,
    typer.Option(
        "--until-decided",
        help="Search learning rates, and add seeds only while the question is open.",
        rich_help_panel=_DECIDING,
    ),
]
MaxSeeds = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="With --until-decided: the most seeds an arm may get; default: 10.",
        rich_help_panel=_DECIDING,
    ),
]
MinSeeds = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="With --until-decided: the seeds of the first look; default: 2 or 3.",
        rich_help_panel=_DECIDING,
    ),
]
Question = Annotated[
    Literal["full-or-lora", "where", "all"] | None,
    typer.Option(
        help="With --until-decided: full fine-tuning or LoRA, where to put LoRA, or all pairs; "
        "default: that of the study, else full-or-lora.",
        rich_help_panel=_DECIDING,
    ),
]
Probe = Annotated[
    bool | None,
    typer.Option(
        "--probe/--no-probe",
        help="First try every arm's memory on the longest rows; by default only on CUDA.",
        show_default=False,
    ),
]


def run(
    study: StudyName,
    *,
    out: Out = None,
    jobs: Jobs = None,
    threads: Threads = None,
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    overrides: Overrides = None,
    arm: Arms = None,
    seed: Seeds = None,
    until_decided: Until = False,
    min_seeds: MinSeeds = None,
    max_seeds: MaxSeeds = None,
    question: Question = None,
    restart: Restart = False,
    allow_drift: AllowDrift = False,
    probe: Probe = None,
    is_reference: Reference = False,
    launch: Launch = "processes",
    nproc: Nproc = None,
    strategy: SharedBy = None,
    padded: Padded = False,
    as_json: AsJson = False,
) -> None:
    """Execute the missing runs of a study, then build the report. The same command resumes."""
    changes = [*(overrides or ()), *(("training.implementation=reference",) * is_reference)]
    opened = open_study(study, out=out, overrides=changes, mirror=mirror, offline=offline)
    from lorastudy.launch.local import visible_gpus, warm_up
    from lorastudy.study.conduct import Execution, with_plan
    from lorastudy.study.decision_plan import wish_for
    from lorastudy.study.wanted import Wanted

    wish = wish_for(until_decided, min_seeds, max_seeds, question)
    wanted = Wanted(opened, arm or (), seed or (), wish)
    warm_up()
    team = options.choose_team(launch, nproc, strategy, n_gpus=len(visible_gpus(device)))
    how = Execution(device, jobs, Resuming(restart, allow_drift), probe, team, threads)
    execute_and_finish(with_plan(wanted, how), how, with_padded=padded, as_json=as_json)


def execute_and_finish(
    wanted: "Wanted", how: "Execution", *, as_json: bool, with_padded: bool = False
) -> None:
    """Execute the wanted runs that are missing, then write and print the results.

    With `as_json`, progress goes to standard error.

    Raises:
        UserError: Not all of the wanted runs are done.
    """
    with options.progress_on(is_stderr=as_json):
        _execute(wanted, how)
    finish(wanted, with_padded=with_padded, as_json=as_json)


def _execute(wanted: "Wanted", how: "Execution") -> None:
    """Execute the wanted runs that are missing, and print their progress.

    Raises:
        UserError: See `begin` and `execute` of `study/conduct.py`.
    """
    from lorastudy.cli.live import show_progress
    from lorastudy.report.story import describe_plan
    from lorastudy.store.decisions import read_decisions
    from lorastudy.study.conduct import begin, execute
    from lorastudy.study.notes import list_texts

    missing, notes = begin(wanted, how)
    opened, to_come = wanted.opened, wanted.list_runs_to_come()
    path, lock = opened.folder.path, read_lock(opened.folder)
    of_all = write_count(len(wanted.list_runs()), "run")
    print(f"{opened.study.name}: {len(missing)} of {of_all} to execute in {path}")
    if to_come:
        more = write_count(len(to_come), "more run")
        print(f"{more} will follow, at the learning rates that these runs choose.")
    if wanted.grows:
        print(describe_plan(read_decisions(opened.folder)))
    if (budget := opened.study.training.budget) is not None:
        _say_budget(budget)
    print(*list_texts(lock), sep="\n")
    for note in (*opened.notes, *notes):
        print(f"Note: {note}")
    if strangers := list_strangers(opened.folder):
        print(f"Not runs of this study, and left out of its report: runs/{show_names(strangers)}")
    if missing:
        stop = StopFlag()
        stop.listen()
        try:
            show_progress(path, execute(wanted, missing, how, stop))
        except BrokenPipeError as error:
            raise InterruptedRunError(
                f"nobody reads the output any more; finished work is kept in {path}. Run the same "
                "command again to continue."
            ) from error


def _say_budget(budget: "TrainingBudget") -> None:
    """What a budget is for each arm, and whether its steps were measured undisturbed."""
    from lorastudy.config.budget import list_disturbed, write_plan

    print(write_plan(budget))
    if disturbed := list_disturbed(budget):
        print(
            f"Note: other programs used the CPU while the first steps of {', '.join(disturbed)} "
            "were measured, so too few steps are planned. For a fair plan, start the study in a "
            "new folder on a quiet machine."
        )


def finish(
    wanted: "Wanted",
    *,
    as_json: bool,
    with_padded: bool = False,
) -> None:
    """Write results and report, print them and the verdict, and raise an error if runs are missing.

    A signal ends it at once, since the runs are on the disk and the report can be written again.

    Raises:
        UserError: Not all of the wanted runs are done.
    """
    end_on_signals()
    from lorastudy.analysis.findings import make_findings
    from lorastudy.cli.show import print_results, print_verdict
    from lorastudy.report.build import write_report
    from lorastudy.study.conduct import refuse_unfinished, settle

    folder = wanted.opened.folder
    outcome = settle(folder)
    findings = make_findings(outcome.results, folder.path)
    page = write_report(findings, folder.path)
    if as_json:
        found = json.loads(outcome.results.model_dump_json(include={"runs", "missing"}))
        options.print_json({"folder": folder.path, "report": page, **found})
    else:
        print_results(findings, with_padded=with_padded)
        print(f"\nReport: {page}\n")
        print_verdict(findings, folder.path)
    refuse_unfinished(outcome, {run.run_id for run in wanted.list_runs()})
