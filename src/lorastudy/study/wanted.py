"""The runs of a study that a command asks for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lorastudy.config.spec import RunSpec
from lorastudy.errors import ConfigError, show_names
from lorastudy.store.collect import read_study
from lorastudy.store.decisions import read_decisions
from lorastudy.store.rates import list_runs, list_to_come
from lorastudy.study.decision_plan import UntilDecided, plan_study, refuse_looked_at
from lorastudy.study.extend import refuse_changes
from lorastudy.study.open import OpenedStudy


@dataclass(frozen=True, slots=True)
class Wanted:
    """The runs of a study that are asked for: those of some arms and seeds, or all of them.

    The tuning runs of an arm are always among them, since its other runs need their outcome.
    """

    opened: OpenedStudy
    arms: Sequence[str] = ()
    seeds: Sequence[int] = ()
    until_decided: UntilDecided | None = None  # None: only if the folder was started like this

    def __post_init__(self) -> None:
        """Check that the study has these arms and seeds.

        Raises:
            ConfigError: It does not, or it chooses arms and seeds itself.
        """
        study = self.opened.study
        if self.grows:
            refuse_changes(self.opened.folder, study)
            decisions = read_decisions(self.opened.folder)
            plan_study(study, self.until_decided or UntilDecided(), decisions)
            if not decisions:
                refuse_looked_at(self.opened.folder, study)
            for flag, chosen in (("--arm", self.arms), ("--seed", self.seeds)):
                if chosen:
                    raise ConfigError(
                        f"{flag}: a study that runs until its question is decided chooses its arms "
                        f"and seeds itself. Leave {flag} out."
                    )
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
                        f"{flag} {value}: the study does not have this {flag[2:]}. It has: "
                        f"{show_names(known)}."
                    )

    @property
    def grows(self) -> bool:
        """Whether decisions say which runs the study has."""
        return self.until_decided is not None or self.opened.folder.decisions.exists()

    def list_runs(self) -> tuple[RunSpec, ...]:
        """Those that exist now: the others get their ids when learning rates are chosen."""
        folder = self.opened.folder
        study = read_study(folder) if folder.decisions.exists() else self.opened.study
        return self._choose(list_runs(study, folder))

    def list_runs_to_come(self) -> tuple[RunSpec, ...]:
        """Those whose learning rate is not chosen yet, with a stand-in for the rate."""
        return self._choose(list_to_come(self.opened.study, self.opened.folder))

    def _choose(self, runs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
        seeds = (*self.seeds, *self.opened.study.tuning_seeds)
        return tuple(
            run
            for run in runs
            if (not self.arms or run.arm.name in self.arms)
            and (not self.seeds or run.seed in seeds)
        )
