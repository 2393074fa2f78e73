"""What a reader should do next: the command that settles a question, or takes the model away."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lorastudy.analysis.claims import arms_in_role
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.layout import least_seeds
from lorastudy.analysis.pairs import Pair
from lorastudy.analysis.planning import MOST_SEEDS
from lorastudy.analysis.standings import stand_on_test
from lorastudy.analysis.statistics import mean
from lorastudy.store.decisions import End

StepKind = Literal[
    "export", "finish", "add seeds", "set margin", "add documents", "add arms", "weigh tests",
    "change training", "relax limits",
]  # fmt: skip
_FIRST_SEEDS = 3  # that a study of one seed is extended to
_MOST_SEEDS = 20  # in all, that a reader is told to train


@dataclass(frozen=True, slots=True)
class NextStep:
    """What a reader should do next, and the command for it."""

    kind: StepKind
    around_folder: tuple[str, ...] = ()  # the command, cut where the study's folder stands
    n_seeds: int | None = None  # in all, of which the command adds some
    n_more: int | None = None  # that the command adds
    seconds: float | None = None  # of the runs that it adds, one after another; None: not known
    is_elsewhere: bool = False  # the arms were trained by other programs, so no command does it

    def write_command(self, folder: str = "DIR") -> str:
        """The command for a shell; empty if no command does it."""
        return "" if self.is_elsewhere else shlex.quote(folder).join(self.around_folder)


def plan_step(
    findings: Findings, outcome: str, recommended: str | None, pairs: Sequence[Pair]
) -> NextStep:
    """What settles the question, or, where it is settled, what takes the model away.

    Runs that are missing or failed come first. An open pair gets as many seeds as would separate
    a difference as large as the observed one, or show that it is within the margin, whichever
    are fewer, on its most demanding open test. Where that is more than anybody would train, the
    reader is asked which difference matters.

    Args:
        findings: Of the study.
        outcome: Of its recommendation.
        recommended: The arm; None: nothing is recommended.
        pairs: The two arms in question on every test.
    """
    return replace(_plan(findings, outcome, recommended, pairs), is_elsewhere=findings.is_elsewhere)


def _plan(
    findings: Findings, outcome: str, recommended: str | None, pairs: Sequence[Pair]
) -> NextStep:
    results, n_seeds = findings.results, len(findings.results.seeds)
    is_going = bool(findings.decisions) and not isinstance(findings.decisions[-1], End)
    if results.missing or is_going or any(run.status != "done" for run in results.runs):
        # a damaged run is never repeated without being asked for
        is_damaged = any(run.status == "damaged" for run in results.runs)
        return NextStep("finish", ("lorastudy run ", " --restart" if is_damaged else ""))
    if recommended is not None:
        return NextStep("export", ("lorastudy export ", f" {shlex.quote(recommended)} --to MODEL"))
    match outcome:
        case "nothing to compare":
            return NextStep("add arms", ("lorastudy extend ", " --arm ARM.yaml"))
        case "mixed":
            return NextStep("weigh tests")
        case "none fits":
            return NextStep("relax limits")
        case "base model":
            return NextStep("change training")
        case "one seed":
            return _add_seeds(findings, _FIRST_SEEDS)
        case "no verdict":
            n_arms = len(arms_in_role("every trained", findings.arms))
            return _add_seeds(findings, max(n_seeds + 1, least_seeds(n_arms)))
        case _:
            needed = [_seeds_to_settle(pair) for pair in pairs if stand_on_test(pair) == "open"]
            known = [n for n in needed if n is not None]
            if not known or len(known) < len(needed):
                return NextStep("add documents")
            step = _add_seeds(findings, max(n_seeds + 1, *known))
            if max(known) <= _MOST_SEEDS:
                return step
            decide = ("lorastudy decide ", " --margin NATS")
            return replace(step, kind="set margin", around_folder=decide)


def _seeds_to_settle(pair: Pair) -> int | None:
    """The seeds that separate an open pair or show equivalence; None: not by more seeds."""
    either = (pair.seeds_for_observed, pair.seeds_for_equivalence)
    return min((n for n in either if n is not None and n <= MOST_SEEDS), default=None)


def _add_seeds(findings: Findings, wanted: int) -> NextStep:
    n_more = wanted - len(findings.results.seeds)
    more = f" --seeds {n_more} && lorastudy run "
    of_arms = [
        [seconds for run in arm.runs if (seconds := run.total_seconds) is not None]
        for arm in arms_in_role("every trained", findings.arms)
    ]
    seconds = n_more * sum(map(mean, of_arms)) if all(of_arms) else None
    command: tuple[str, ...] = ("lorastudy extend ", more, "")
    if findings.decisions:  # the study adds seeds by itself, up to the number that it is allowed
        command = ("lorastudy run ", f" --until-decided --max-seeds {wanted}")
    return NextStep("add seeds", command, wanted, n_more, seconds)
