"""What each learning rate of an arm gave: how much depends on the choice.

The rate of an arm is chosen on validation alone (decision 0006), with tuning seeds if the
study has them (decision 0020). Scores of the other rates are shown here and nowhere else, and
play no part in the choice; tuning runs have none.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lorastudy.analysis.statistics import Estimate, estimate_mean
from lorastudy.analysis.summary import ArmSummary, ScoreKey, score_key
from lorastudy.store.rates import best_validation
from lorastudy.store.records import RunResult, StudyResults

# The one rate that the published study gives each method (its section on training).
PAPER_RATES = {"full": 1e-4, "lora": 1e-3}


@dataclass(frozen=True, slots=True)
class RateSummary:
    """One arm at one learning rate, over its finished seeds."""

    arm: str
    learning_rate: float
    is_chosen: bool
    is_paper: bool  # of several rates, the one that the published study used
    is_at_end: bool  # chosen, and the lowest or highest of several
    n_expected: int
    validation_loss: Estimate | None  # of the best validation of each run, nats per target
    validation_accuracy: Estimate | None  # of the same; None: the loss chose
    scores: Mapping[ScoreKey, Estimate | None]  # what is shown of every score

    def restrict(self, keys: Container[ScoreKey]) -> "RateSummary":
        """The same with the perplexities of `keys` alone."""
        kept = {key: value for key, value in self.scores.items() if key in keys}
        return replace(self, scores=kept)


def summarise_rates(
    results: StudyResults, arms: Iterable[ArmSummary], keys: Sequence[ScoreKey]
) -> tuple[RateSummary, ...]:
    """Every rate of every trained arm, ascending, arms in the study's order."""
    return tuple(_summarise(results, arms, keys))


def _summarise(
    results: StudyResults, arms: Iterable[ArmSummary], keys: Sequence[ScoreKey]
) -> Iterator[RateSummary]:
    for arm in arms:
        runs = [run for run in (*results.runs, *results.stopped) if run.arm == arm.arm]
        rates = sorted({r.learning_rate for r in runs if r.learning_rate is not None})
        for rate in rates:
            of_rate = [run for run in runs if run.learning_rate == rate]
            is_chosen, is_one_of_several = rate == arm.learning_rate, len(rates) > 1
            done = [run for run in of_rate if run.status == "done"]
            # what chose the rate: the tuning runs, if there are any, as far as they were trained
            tuning = [run for run in arm.tuning if run.learning_rate == rate]
            best = [found for run in tuning or done if (found := best_validation(run)) is not None]
            accuracies = [found.accuracy for found in best if found.accuracy is not None]
            yield RateSummary(
                arm=arm.arm,
                learning_rate=rate,
                is_chosen=is_chosen,
                is_paper=is_one_of_several and rate == PAPER_RATES.get(of_rate[0].method),
                is_at_end=is_chosen and is_one_of_several and rate in (rates[0], rates[-1]),
                n_expected=len(results.tuning_seeds if arm.is_tuned else results.seeds),
                validation_loss=estimate_mean([found.loss for found in best]),
                validation_accuracy=estimate_mean(accuracies),
                scores={key: _estimate_score(done, key) for key in keys},
            )


def _estimate_score(runs: list[RunResult], key: ScoreKey) -> Estimate | None:
    return estimate_mean([e.shown for run in runs for e in run.evaluations if score_key(e) == key])
