"""The two-level bootstrap: seeds and documents resampled together, for comparison.

Each replicate draws documents with replacement, the same ones for every arm and seed, and
seeds with replacement, the same ones for both arms of a pair (A. B. Owen, Ann. Appl. Stat. 1
(2007) 386-411). It needs no formula for a variance, which makes it a check, and it decides
nothing. Below five seeds its percentile interval is far too short (with two it covers as
little as 62 %, benchmarks/coverage_202611), so it is not computed there (decision 0019).
"""

from collections.abc import Mapping

import numpy as np

from lorastudy.analysis.paired import FloatArray
from lorastudy.analysis.statistics import CONFIDENCE, Interval
from lorastudy.seeds import open_stream

N_RESAMPLES = 2000
LEAST_SEEDS = 5  # below it there is no bootstrap
_SEED = 0  # of all resampling, so that a report is the same every time
_AT_ONCE = 4_000_000  # counts of drawn documents held in memory
_DECIMALS = 9  # nats; differences from the order of sums are far smaller


def resample_documents(
    weights: FloatArray, nats_of_runs: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Cross-entropies on resampled documents, by run: (m) becomes (N_RESAMPLES)."""
    m, names = len(weights), list(nats_of_runs)
    columns = np.column_stack([weights, *(nats_of_runs[name] for name in names)])
    generator = open_stream(_SEED, "resampled-documents", m)
    sums = np.empty((N_RESAMPLES, columns.shape[1]))
    step = max(1, _AT_ONCE // m)
    for begin in range(0, N_RESAMPLES, step):
        end = min(begin + step, N_RESAMPLES)
        drawn = generator.integers(m, size=(end - begin, m)) + m * np.arange(end - begin)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=m * (end - begin)).reshape(-1, m)
        sums[begin:end] = counts @ columns
    ratios = sums[:, 1:] / sums[:, :1]
    return {name: ratios[:, column] for column, name in enumerate(names)}


def bootstrap_interval(first: FloatArray, second: FloatArray) -> Interval:
    """The percentile interval of first minus second; both (S seeds, n_resamples)."""
    n_seeds = len(first)
    generator = open_stream(_SEED, "resampled-seeds", n_seeds)
    drawn = generator.integers(n_seeds, size=(n_seeds, N_RESAMPLES))
    means = np.take_along_axis(first - second, drawn, axis=0).mean(axis=0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(round(float(low), _DECIMALS), round(float(high), _DECIMALS))
