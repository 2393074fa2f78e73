"""How often the 95 % intervals of the report cover the truth, on synthetic studies.

Seeds and documents are crossed, as in a study: d[s, i] = targets of i x (0 + seed s + document i
+ rest of s and i). Documents have 5 tokens or more, lognormal with deviation 0.8; their effect has
Student's t with 5 degrees of freedom; seeds and rest are normal. `seeds : documents` is how much
of the squared error of the mean seeds add to that of documents; the rest's deviation is that of
a document's effect times 0, 0.5 or 1. Columns are percentages of studies whose interval covers 0:

    report      interval_of: t quantiles weighted by both variances
    satterth.   the same variance with Satterthwaite's degrees of freedom
    bootstrap   the two-level percentile bootstrap, 400 of the studies
    seeds       paired t over seeds, documents taken as fixed
    documents   t over documents of the mean over seeds, seeds taken as fixed

Run from the root of the repository; results.txt beside this file is what it printed:

    python benchmarks/coverage_202611/coverage.py > results.txt
"""

import math
from collections.abc import Iterator
from itertools import product

import numpy as np
from scipy.special import stdtrit

from lorastudy.analysis.bootstrap import bootstrap_interval, resample_documents
from lorastudy.analysis.paired import Difference, interval_of, measure_difference
from lorastudy.analysis.statistics import Interval

N_STUDIES, N_BOOTSTRAPPED = 4000, 400
SEEDS, DOCUMENTS = (2, 3, 5, 10), (50, 200, 500)
RATIOS, RESTS = (0.0, 0.3, 1.0, 3.0, 30.0), (0.0, 0.5, 1.0)
NAMES = ("report", "satterth.", "bootstrap", "seeds", "documents")


def draw_study(
    rng: np.random.Generator, n_seeds: int, m: int, ratio: float, rest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Targets (m) and differences in nats (S, m) of two arms that are alike."""
    targets = np.maximum(5, rng.lognormal(4, 0.8, m)).round()
    effective = targets.sum() ** 2 / np.square(targets).sum()
    of_seeds = rng.normal(0, math.sqrt(ratio * n_seeds / effective), (n_seeds, 1))
    of_documents = rng.standard_t(5, m) / math.sqrt(5 / 3)
    return targets, (of_seeds + of_documents + rng.normal(0, rest, (n_seeds, m))) * targets


def all_intervals(
    targets: np.ndarray, nats: np.ndarray, *, is_bootstrapped: bool
) -> Iterator[tuple[str, Interval | None]]:
    """The interval of every method by name."""
    found = measure_difference(targets, nats)
    mean, n, m = found.mean, found.n_seeds, found.n_documents
    yield "report", interval_of(found)
    yield "satterth.", satterthwaite_interval(found)
    yield "seeds", interval_of(Difference(mean, n, 0, found.seed_variance, None))
    yield "documents", interval_of(Difference(mean, n, m, None, found.document_variance))
    if is_bootstrapped:
        runs = resample_documents(targets, {str(s): row for s, row in enumerate(nats)})
        yield "bootstrap", bootstrap_interval(np.stack(list(runs.values())), np.zeros((n, 1)))


def satterthwaite_interval(found: Difference) -> Interval:
    """What is reported, but with one t quantile for both parts."""
    seeds, documents, both = found.seed_variance, found.document_variance, found.variance
    assert seeds is not None and documents is not None and both is not None
    parts = seeds**2 / (found.n_seeds - 1) + documents**2 / (found.n_documents - 1)
    margin = float(stdtrit(both**2 / parts, 0.975)) * math.sqrt(both)
    return Interval(found.mean - margin, found.mean + margin)


def measure_cell(n_seeds: int, m: int, ratio: float, rest: float) -> dict[str, float]:
    """Percentages of studies covered, by method."""
    rng = np.random.default_rng([n_seeds, m, round(10 * ratio), round(10 * rest)])
    covered, tried = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)
    for study in range(N_STUDIES):
        targets, nats = draw_study(rng, n_seeds, m, ratio, rest)
        for name, interval in all_intervals(targets, nats, is_bootstrapped=study < N_BOOTSTRAPPED):
            assert interval is not None
            covered[name] += interval.low <= 0 <= interval.high
            tried[name] += 1
    return {name: 100 * covered[name] / tried[name] for name in NAMES}


def main() -> None:
    """Print a line a cell, then the range of each method by number of seeds."""
    print(f"{'seeds':>5} {'docs':>5} {'seeds:docs':>10} {'rest':>5}", *(f"{n:>10}" for n in NAMES))
    cells: dict[tuple[int, float], list[dict[str, float]]] = {}
    for n_seeds, m, rest, ratio in product(SEEDS, DOCUMENTS, RESTS, RATIOS):
        found = measure_cell(n_seeds, m, ratio, rest)
        cells.setdefault((n_seeds, rest), []).append(found)
        shown = (f"{found[name]:>10.1f}" for name in NAMES)
        print(f"{n_seeds:>5} {m:>5} {ratio:>10g} {rest:>5g}", *shown, flush=True)
    print("\nmean of the cells, and the lowest and the highest")
    for (n_seeds, rest), found in cells.items():
        ranges = (
            f"{name} {np.mean([f[name] for f in found]):.1f} "
            f"({min(f[name] for f in found):.1f}-{max(f[name] for f in found):.1f})"
            for name in NAMES
        )
        print(f"{n_seeds:>3} seeds, rest {rest:g}:  " + "   ".join(ranges))


if __name__ == "__main__":
    main()
