"""What a study that ran until its question was decided trained, beside its full grid."""

from dataclasses import dataclass

from lorastudy.analysis.findings import Findings
from lorastudy.store.decisions import Plan, Search


@dataclass(frozen=True, slots=True)
class Spending:
    """Scored targets that were trained on."""

    search_tokens: int  # to choose learning rates
    seeds_tokens: int  # with seeds that are reported
    grid_tokens: int  # of every listed rate with every tuning seed, and every arm with all seeds
    n_seeds: int  # that the grid has

    @property
    def tokens(self) -> int:
        """All that were trained on."""
        return self.search_tokens + self.seeds_tokens

    @property
    def share(self) -> float:
        """Of the full grid."""
        return self.tokens / self.grid_tokens


def measure_spending(findings: Findings) -> Spending | None:
    """What was spent; None while no run is finished, or for a study that does not decide itself.

    All runs of a study train on the same number of tokens, if they are trained to their end.
    """
    results, study, decisions = findings.results, findings.study, findings.decisions
    plans = [e for e in decisions if isinstance(e, Plan)]
    of_runs = [run.train_tokens for run in results.runs if run.train_tokens]
    if not plans or not of_runs or study is None:
        return None
    search = [r for r in (*results.runs, *results.stopped) if r.seed in results.tuning_seeds]
    reported = [run for run in results.runs if run.seed not in results.tuning_seeds]
    # rates that the search added were not in the grid
    n_listed = sum(len(e.rates) for e in decisions if isinstance(e, Search) and e.why == "first")
    n_trained = sum(arm.method != "baseline" for arm in study.arms)
    n_seeds = plans[-1].most_seeds
    return Spending(
        search_tokens=sum(run.train_tokens or 0 for run in search),
        seeds_tokens=sum(run.train_tokens or 0 for run in reported),
        grid_tokens=max(of_runs) * (n_listed * len(results.tuning_seeds) + n_trained * n_seeds),
        n_seeds=n_seeds,
    )
