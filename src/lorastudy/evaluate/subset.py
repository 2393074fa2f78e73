"""A random part of a large benchmark, and how far its loss may be from that of the whole.

Units are documents, or windows where a protocol joins all text into one document. The same units
are drawn for every arm and seed, so that arms can still be compared document by document.
"""

import math

import numpy as np

from lorastudy.data.rows import IntArray, RowTable
from lorastudy.evaluate.score import FloatArray, RowScores, batch_means
from lorastudy.protocols import PAPER_BATCH, Protocol
from lorastudy.seeds import open_stream


def units_of(protocol: Protocol, table: RowTable) -> IntArray:
    """The unit of each row, (N,): its document, or the row itself if all text is joined."""
    return np.arange(table.n_rows) if protocol.joins_documents else table.documents


def draw_subset(protocol: Protocol, table: RowTable, n_units: int) -> RowTable:
    """The rows of `n_units` random units, in their order; all rows if there are no more units.

    The draw depends only on the table: the same table gives the same documents.
    """
    units = units_of(protocol, table)
    known = np.unique(units)
    drawn = open_stream(0, "benchmark-sample").permutation(known)[:n_units]
    return table.select(np.flatnonzero(np.isin(units, drawn)))


def estimate_error(
    protocol: Protocol, scores: RowScores, table: RowTable, n_population: int
) -> float | None:
    """Standard error of the subset's cross-entropy as an estimate for the whole benchmark.

    It is that of a ratio of two sums over units drawn without replacement (W. Cochran, Sampling
    Techniques, 3rd edition, section 6.4), in the unit of `average_nats`. None if there is only one
    unit.

    Args:
        protocol: How the scores were averaged.
        scores: Sums of the rows of `table`.
        table: The rows that were scored.
        n_population: Number of units of the whole benchmark.
    """
    nats, counts = _sums_of_units(protocol, scores, units_of(protocol, table))
    n = len(nats)
    if n < 2:
        return None
    of = n_population / PAPER_BATCH if protocol.average == "batch-means" else n_population
    residuals = nats - nats.sum() / counts.sum() * counts
    left_out = max(0.0, 1.0 - n / of)
    return math.sqrt(left_out * n / (n - 1) * float(residuals @ residuals)) / float(counts.sum())


def _sums_of_units(
    protocol: Protocol, scores: RowScores, units: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Numerator and denominator of the protocol's average, per unit."""
    if protocol.average == "batch-means":
        means = batch_means(scores)
        return means, np.ones(len(means))
    pooled = scores.pooled_by(units)
    if protocol.average == "documents":
        return pooled.sum_nats, np.ones(len(pooled.sum_nats))
    return pooled.sum_nats, pooled.n_scored.astype(np.float64)
