"""What a study can find out, before it starts: which differences seeds and documents separate.

A plan needs three numbers: how far differences of two arms spread over seeds, over documents, and
over both together. They are those of an earlier study, or of one that comes with this program. The
errors are those that the verdict of the report will use.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from pathlib import Path
from statistics import median

from lorastudy.analysis.findings import read_findings
from lorastudy.analysis.layout import ARMS_FOR_RARE, prior_freedom
from lorastudy.analysis.paired import Difference, cluster_windows
from lorastudy.analysis.pairs import Comparison
from lorastudy.analysis.planning import documents_needed, seeds_needed, smallest_difference
from lorastudy.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations of a difference of two trained arms, in the unit of the score."""

    seeds: float  # of one seed, over endlessly many documents
    documents: float  # of one document, weighted by its targets, over endlessly many seeds
    both: float  # of one seed on one document, besides
    source: str  # where the numbers are from


# `benchmarks/spread_202611` prints it
DEFAULT_SPREAD = Spread(0.014, 0.16, 0.05, "five arms of the demo")
# of 0/1 answers at an accuracy of 0.5, where they vary most; `benchmarks/coverage_tasks_202611`
TASK_SPREAD = Spread(0.01, 0.24, 0.52, "simulated tasks with half of the answers right")


@dataclass(frozen=True, slots=True)
class Score:
    """A planned score: a benchmark under a protocol."""

    benchmark: str
    protocol: str
    n_documents: int  # or windows, of joined documents
    is_joined: bool  # windows of one text, whose neighbours are alike
    is_task: bool = False  # its documents are items with right and wrong answers


@dataclass(frozen=True, slots=True)
class Outlook:
    """What one planned score can find out."""

    benchmark: str
    protocol: str
    n_documents: int  # or windows, of joined documents
    n_seeds: int
    n_pairs: int  # that are judged together
    spread: Spread  # that is expected
    # nats per target; None: so few seeds, or a single document, allow no verdict
    smallest_difference: float | None
    # for the wanted difference; None: none is wanted, or documents are too few
    seeds_needed: int | None  # MOST_SEEDS + 1: more than that
    documents_needed: int | None  # without which no number of seeds is enough; None: they are


def look_out(
    score: Score,
    spread: Spread,
    *,
    n_seeds: int,
    n_trained: int,
    n_arms: int,
    wanted: float | None = None,
) -> Outlook:
    """What `score` can find out with these seeds and two or more arms, `n_trained` of them trained.

    Pairs are judged at the strictest level of Holm's adjustment over all of them, with a chance
    of 80 %.
    """
    n_pairs, found, needed = comb(n_arms, 2), None, None
    if n_seeds > 1 and score.n_documents > 1:
        planned = _plan_difference(score, spread, n_seeds, n_trained)
        found = smallest_difference(planned, n_pairs=n_pairs)
    if wanted is not None:
        planned = _plan_difference(score, spread, 2, n_trained)
        needed = seeds_needed(planned, wanted, n_pairs=n_pairs)
    return Outlook(
        benchmark=score.benchmark,
        protocol=score.protocol,
        n_documents=score.n_documents,
        n_seeds=n_seeds,
        n_pairs=n_pairs,
        spread=spread,
        smallest_difference=found,
        seeds_needed=needed,
        documents_needed=None
        if wanted is None or needed is not None
        else documents_needed(spread.documents, wanted, n_pairs=n_pairs),
    )


def _plan_difference(score: Score, spread: Spread, n_seeds: int, n_trained: int) -> Difference:
    """A difference of two trained arms with errors as they will be."""
    n_documents = score.n_documents
    common = float(max(n_trained - 1, 1) * (n_seeds - 1))
    shared = spread.both**2 / (n_seeds * n_documents)
    of_seeds = spread.seeds**2 / n_seeds + shared
    has_rare = n_seeds == 2 and n_trained >= ARMS_FOR_RARE
    return Difference(
        mean=0.0,
        n_seeds=n_seeds,
        n_documents=n_documents,
        seed_variance=of_seeds,
        document_variance=spread.documents**2 / n_documents + shared,
        shared_variance=shared,
        common_freedom=common,
        seed_freedom=min(prior_freedom(n_trained, n_seeds) + n_seeds - 1, common),
        n_clusters=int(cluster_windows(n_documents)[-1]) + 1 if score.is_joined else None,
        n_arms=n_trained,
        rare_variance=of_seeds if has_rare else None,
    )


@dataclass(frozen=True, slots=True)
class Spreads:
    """The spread that is expected under each score."""

    by_score: Mapping[tuple[str, str], Spread]  # benchmark and protocol
    of_others: Spread
    of_tasks: Spread = TASK_SPREAD

    def of(self, score: Score) -> Spread:
        """That of one score."""
        others = self.of_tasks if score.is_task else self.of_others
        return self.by_score.get((score.benchmark, score.protocol), others)


ASSUMED_SPREADS = Spreads({}, DEFAULT_SPREAD)


def read_spreads(folder: Path) -> Spreads:
    """The spreads in the finished study in `folder`: the median over pairs of trained arms.

    Scores that it does not have are expected to spread as its first scores together.

    Raises:
        ConfigError: It is not the folder of a study, or no two trained arms have two seeds.
    """
    findings = read_findings(folder, with_bootstrap=False)
    constant = {arm.arm for arm in findings.arms if arm.is_baseline}
    by_score = {
        (one.key.benchmark, one.key.protocol): list(_list_differences([one], constant))
        for one in findings.comparisons
    }
    texts, tasks = (
        [one for one in findings.main if one.key.is_task is is_task] for is_task in (False, True)
    )
    of_tasks = list(_list_differences(tasks, constant))
    first = list(_list_differences(texts or findings.main, constant))
    if not first:
        raise ConfigError(
            f"--like {folder}: no two trained arms of it have two seeds in common, so it says "
            "nothing about the spread over seeds. Name a study with several seeds, or leave "
            "--like out."
        )
    source = str(folder)
    return Spreads(
        by_score={key: _take_median(found, source) for key, found in by_score.items() if found},
        of_others=_take_median(first, source),
        of_tasks=_take_median(of_tasks, source) if of_tasks else TASK_SPREAD,
    )


def _take_median(differences: Sequence[Difference], source: str) -> Spread:
    return Spread(
        seeds=median(sqrt(_alone(d.seed_variance, d) * d.n_seeds) for d in differences),
        documents=median(sqrt(_alone(d.document_variance, d) * d.n_documents) for d in differences),
        both=median(sqrt(d.shared_variance * d.n_seeds * d.n_documents) for d in differences),
        source=source,
    )


def _alone(variance: float | None, difference: Difference) -> float:
    """The part of a measured variance that seeds and documents do not share."""
    return max((variance or 0.0) - difference.shared_variance, 0.0)


def _list_differences(
    comparisons: Sequence[Comparison], constant: set[str]
) -> Iterable[Difference]:
    """Those of two trained arms over at least two seeds."""
    for comparison in comparisons:
        for pair in comparison.pairs:
            difference = pair.difference
            if {pair.first, pair.second} & constant or difference is None:
                continue
            if difference.n_seeds > 1 and difference.n_documents > 1:
                yield difference
