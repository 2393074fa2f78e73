"""Conduct a study on this machine: execute the missing runs, then say how far the study is."""

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace

from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec
from lorastudy.errors import (
    ConfigError,
    EnvironmentDriftError,
    InterruptedRunError,
    OwnedError,
    SomeRunsFailedError,
    StorageError,
    UserError,
    show_names,
)
from lorastudy.interrupts import StopFlag
from lorastudy.launch.assignment import TeamOptions
from lorastudy.launch.local import LocalEngine, visible_gpus
from lorastudy.run.setup import refuse_divided, refuse_team
from lorastudy.store.collect import read_study, write_results
from lorastudy.store.decisions import list_asks, read_decisions
from lorastudy.store.folders import StudyFolder
from lorastudy.store.records import RunResult, StudyResults
from lorastudy.store.resuming import Resuming
from lorastudy.study.budget import list_unplanned, plan_budget
from lorastudy.study.decision_plan import UntilDecided, start_plan
from lorastudy.study.progress import DecisionTaken, Look, Progress
from lorastudy.study.start import Begun, missing_runs, start_or_continue
from lorastudy.study.until_decided import decide
from lorastudy.study.wanted import Wanted
from lorastudy.threads import refuse_threads


@dataclass(frozen=True, slots=True)
class Execution:
    """How the runs of a study are executed on this machine."""

    device: str = "auto"
    jobs: int | None = None  # runs at the same time; None: one for each GPU or team, else one
    resuming: Resuming = field(default_factory=Resuming)
    probe: bool | None = None  # None: only on CUDA, and not for teams
    team: TeamOptions | None = None  # None: one process for each run
    threads: int | None = None  # of each process on a CPU; None: its share of the cores


def take_stage(missing: Iterable[RunSpec], study: Study) -> tuple[RunSpec, ...]:
    """The runs of `missing` that can be executed now, in any order.

    An arm whose tuning runs are among them may get another learning rate, so its other runs wait.
    """
    runs = tuple(missing)
    tuned = {run.arm.name for run in runs if run.seed in study.tuning_seeds}
    return tuple(run for run in runs if run.seed in study.tuning_seeds or run.arm.name not in tuned)


def with_plan(wanted: Wanted, how: Execution) -> Wanted:
    """What is wanted, where it is known what the study's budget means for each arm.

    Without a budget, nothing changes. Otherwise this comes before `begin`.

    Raises:
        ConfigError: The budget cannot be met, or not be planned for a team.
        UserError: See `check_study`.
    """
    budget, unplanned = wanted.opened.study.training.budget, list_unplanned(wanted.opened.study)
    if budget is None or not unplanned:
        return wanted
    if how.team is not None and budget.kind in ("seconds", "peak_memory"):
        raise ConfigError(
            f"training.budget.{budget.kind} is planned for runs of one process, and --launch "
            f"torchrun shares each run of {show_names(unplanned)} among several. Use a budget of "
            "tokens, steps or flops."
        )
    return replace(wanted, opened=plan_budget(wanted.opened, how.device))


def begin(wanted: Wanted, how: Execution) -> Begun:
    """Check the study, and start its folder or check that it may continue.

    Raises:
        UserError: See `start_or_continue`.
    """
    refuse_threads(how.threads)
    opened, probe = wanted.opened, how.probe
    if how.team is not None:
        training, arms = opened.study.training, opened.study.arms
        refuse_team(how.team.size, training, *arms)
        if how.team.strategy == "fsdp2":
            refuse_divided(training, *arms)
        probe = False  # an arm that needs a team does not fit alone
    begun = start_or_continue(
        opened,
        wanted.list_runs(),
        to_come=wanted.list_runs_to_come(),
        device=how.device,
        again=how.resuming.restart,
        probe=probe,
    )
    if not wanted.grows:
        return begun
    start_plan(opened.folder, wanted.until_decided or UntilDecided())
    decide(opened.folder)
    missing = missing_runs(wanted.list_runs(), opened.folder, again=how.resuming.restart)
    return begun._replace(missing=missing)


_Attempt = tuple[str, int | None]  # a run id, and the epoch after which it was to stop


def _list_attempts(runs: Iterable[RunSpec], wanted: Wanted) -> dict[_Attempt, RunSpec]:
    """The runs as they are asked for now: one that stopped at an epoch may be asked to go on."""
    until: dict[str, int | None] = {}
    if wanted.grows:
        folder = wanted.opened.folder
        asks = list_asks(read_study(folder), read_decisions(folder))
        until = {ask.spec.run_id: ask.until_epoch for ask in asks}
    return {(run.run_id, until.get(run.run_id)): run for run in runs}


def execute(
    wanted: Wanted, missing: tuple[RunSpec, ...], how: Execution, stop: StopFlag
) -> Generator[Look, None, None]:
    """Execute the runs that `begin` returned, and report on them about once per second.

    Where these choose learning rates or decide a question, the runs that follow are executed too.
    Runs that fail are left as rows. When the iterator is closed, or left by an error, all
    processes stop at a checkpoint before it returns.

    Raises:
        InterruptedRunError: `stop` was requested.
        StorageError: A run's failure could not be written, or the folder is gone.
    """
    if not missing:
        return
    opened, gpus = wanted.opened, visible_gpus(how.device)
    jobs = how.jobs or max(1, len(gpus) // (how.team.size if how.team else 1))
    engine = LocalEngine(
        opened.folder,
        opened.places,
        how.device,
        jobs,
        stop,
        resuming=how.resuming,
        gpus=gpus,
        team=how.team,
        threads=how.threads,
    )
    progress, tried = Progress(opened.folder), set[_Attempt]()
    try:
        yield progress.look()
        while stage := take_stage(missing, opened.study):
            tried |= set(_list_attempts(stage, wanted))
            with closing(engine.execute(stage)) as waiting:
                for _ in waiting:
                    if progress.is_due():
                        yield progress.look()
            yield progress.look()
            if wanted.grows:
                decisions = tuple(map(DecisionTaken, decide(opened.folder)))
                yield replace(progress.look(), events=decisions)
            # what this stage made possible; runs that failed in it are not tried again
            has_more = wanted.grows or opened.study.tuning_seeds
            follow = _list_attempts(wanted.list_runs() if has_more else (), wanted)
            new = (run for attempt, run in follow.items() if attempt not in tried)
            missing = missing_runs(new, opened.folder)
    except ConfigError as error:  # it was a study's folder when this began
        raise StorageError(
            f"{opened.folder.path} was deleted or edited during its runs. {error}"
        ) from error


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state of a study after runs were executed."""

    results: StudyResults
    owned: frozenset[str]  # ids of missing runs that another process executes


def settle(folder: StudyFolder) -> Outcome:
    """Bring `results.json` up to date, and find missing runs that another process owns.

    An owner writes its result before it releases the run. A run that is first missing, then not
    owned, and then has a result, ended during this check, so the check is repeated.
    """
    while True:
        results = write_results(folder)
        owned = frozenset(run_id for run_id in results.missing if folder.run(run_id).is_owned())
        free = set(results.missing) - owned
        if not any(folder.run(run_id).read_result() for run_id in free):
            return Outcome(results, owned)


def refuse_unfinished(outcome: Outcome, chosen: set[str]) -> None:
    """Check that all `chosen` run ids are done.

    Raises:
        UserError: Some failed, belong to other processes, or were stopped; see the exit code.
    """
    bad = [r for r in outcome.results.runs if r.status != "done" and r.run_id in chosen]
    if bad:
        raise _error_for(bad)(
            f"{len(bad)} of {len(chosen)} runs did not finish:\n"
            + "\n".join(f"  {r.run_id}  {r.status}: {r.reason}" for r in bad)
        )
    missing = sorted(chosen & set(outcome.results.missing))
    if outcome.owned & chosen:
        raise OwnedError(
            f"{show_names(missing)}: executed by another process. Run the same command again "
            "when it is done."
        )
    if missing:
        raise InterruptedRunError(
            f"{show_names(missing)}: stopped before the end. Run the same command again."
        )


def _error_for(failed: list[RunResult]) -> type[UserError]:
    """The error for failed runs; a more special one if all of them have the same outside cause."""
    codes = {run.exit_code for run in failed}
    for error in (EnvironmentDriftError, StorageError):
        if codes == {error.exit_code}:
            return error
    return SomeRunsFailedError
