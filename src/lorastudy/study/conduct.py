"""Conduct a study on this machine: execute the missing runs, then say how far the study is."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec, list_runs_to_come
from lorastudy.errors import (
    ConfigError,
    EnvironmentDriftError,
    InterruptedRunError,
    OwnedError,
    SomeRunsFailedError,
    StorageError,
    UserError,
)
from lorastudy.interrupts import StopFlag
from lorastudy.launch.assignment import TeamOptions
from lorastudy.launch.local import LocalEngine, visible_gpus
from lorastudy.run.setup import refuse_team
from lorastudy.store.collect import write_results
from lorastudy.store.folders import StudyFolder
from lorastudy.store.rates import list_runs, read_rates
from lorastudy.store.records import RunResult, StudyResults
from lorastudy.store.resuming import Resuming
from lorastudy.study.open import OpenedStudy
from lorastudy.study.progress import Look, Progress
from lorastudy.study.start import missing_runs, start_or_continue
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """The runs of a study that are asked for: those of some arms and seeds, or all of them.

    The tuning runs of an arm are always among them, since its other runs need their outcome.
    """

    opened: OpenedStudy
    arms: Sequence[str] = ()
    seeds: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Check that the study has these arms and seeds.

        Raises:
            ConfigError: It does not.
        """
        study = self.opened.study
        known_arms = [arm.name for arm in study.arms]
        known_seeds = sorted((*study.seeds, *study.tuning_seeds))
        asked: tuple[tuple[str, Sequence[object], Sequence[object]], ...] = (
            ("--arm", self.arms, known_arms),
            ("--seed", self.seeds, known_seeds),
        )
        for flag, values, known in asked:
            for value in values:
                if value not in known:
                    raise ConfigError(
                        f"{flag} {value}: the study does not have this. It has: "
                        f"{', '.join(map(str, known))}."
                    )

    def list_runs(self) -> tuple[RunSpec, ...]:
        """Those that exist now: the others get their ids when learning rates are chosen."""
        return self._choose(list_runs(self.opened.study, self.opened.folder))

    def list_runs_to_come(self) -> tuple[RunSpec, ...]:
        """Those whose learning rate is not chosen yet, with a stand-in for the rate."""
        study = self.opened.study
        return self._choose(list_runs_to_come(study, read_rates(study, self.opened.folder)))

    def _choose(self, runs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
        seeds = (*self.seeds, *self.opened.study.tuning_seeds)
        return tuple(
            run
            for run in runs
            if (not self.arms or run.arm.name in self.arms)
            and (not self.seeds or run.seed in seeds)
        )


def take_stage(missing: Iterable[RunSpec], study: Study) -> tuple[RunSpec, ...]:
    """The runs of `missing` that can be executed now, in any order.

    An arm whose tuning runs are among them may get another learning rate, so its other runs wait.
    """
    runs = tuple(missing)
    tuned = {run.arm.name for run in runs if run.seed in study.tuning_seeds}
    return tuple(run for run in runs if run.seed in study.tuning_seeds or run.arm.name not in tuned)


def begin(wanted: Wanted, how: Execution) -> tuple[RunSpec, ...]:
    """Check the study, start its folder or check that it may continue; return the missing runs.

    Raises:
        UserError: See `start_or_continue`.
    """
    refuse_threads(how.threads)
    probe = how.probe
    if how.team is not None:
        refuse_team(how.team.size, wanted.opened.study.training, *wanted.opened.study.arms)
        probe = False  # an arm that needs a team does not fit alone
    return start_or_continue(
        wanted.opened,
        wanted.list_runs(),
        to_come=wanted.list_runs_to_come(),
        device=how.device,
        again=how.resuming.restart,
        probe=probe,
    )


def execute(
    wanted: Wanted, missing: tuple[RunSpec, ...], how: Execution, stop: StopFlag
) -> Generator[Look, None, None]:
    """Execute the runs that `begin` returned, and report on them about once per second.

    Where these choose learning rates, the runs that follow from the choice are executed as well.
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
    progress, tried = Progress(opened.folder), set[str]()
    try:
        yield progress.look()
        while stage := take_stage(missing, opened.study):
            tried |= {run.run_id for run in stage}
            with closing(engine.execute(stage)) as waiting:
                for _ in waiting:
                    if progress.is_due():
                        yield progress.look()
            yield progress.look()
            # what this stage made possible; runs that failed in it are not tried again
            follow = [run for run in wanted.list_runs() if run.run_id not in tried]
            missing = missing_runs(follow, opened.folder) if opened.study.tuning_seeds else ()
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
            f"{', '.join(missing)}: executed by another process. Run the same command again "
            "when it is done."
        )
    if missing:
        raise InterruptedRunError(
            f"{', '.join(missing)}: stopped before the end. Run the same command again."
        )


def _error_for(failed: list[RunResult]) -> type[UserError]:
    """The error for failed runs; a more special one if all of them have the same outside cause."""
    codes = {run.exit_code for run in failed}
    for error in (EnvironmentDriftError, StorageError):
        if codes == {error.exit_code}:
            return error
    return SomeRunsFailedError
