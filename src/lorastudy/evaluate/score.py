"""Score a model on rows: sums of nats and tokens for every row, then one average.

Rows are scored longest first, in batches of similar length. Sums are kept for each row in the
order of the table, so the result does not depend on the batches. Documents are scored separately:
a row never sees the tokens of another one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lorastudy.data.batches import (
    Batch,
    Padding,
    classes_of_targets,
    cut_by_length,
    make_batch,
)
from lorastudy.data.rows import IntArray, RowTable
from lorastudy.loss import LossSums
from lorastudy.machine.team import ALONE, Team
from lorastudy.model.sharing import AnyScorer
from lorastudy.protocols import PAPER_BATCH, Protocol

MAX_POSITIONS = 4900  # of an evaluation batch: the published study's 14 rows of 350

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class UnitSums:
    """Sums over the scored targets of each of U units: documents, or windows of joined text."""

    sum_nats: FloatArray  # (U,)
    n_scored: IntArray  # (U,)


@dataclass(frozen=True, slots=True)
class RowScores:
    """Sums over the scored targets of each of N rows."""

    sum_nats: FloatArray  # (N,)
    n_scored: IntArray  # (N,)
    class_nats: FloatArray  # (4,) by TARGET_CLASSES, or by ANSWER_CLASSES for rows with answers
    class_counts: IntArray  # (4,)
    seconds: float
    n_first_choices: IntArray | None = None  # (N,) targets that the model ranks first; if counted

    @property
    def sums(self) -> LossSums:
        """The sums over all rows."""
        return LossSums(float(self.sum_nats.sum()), int(self.n_scored.sum()))

    @property
    def accuracy(self) -> float | None:
        """Share of rows whose targets are all first choices; None if this was not counted."""
        if self.n_first_choices is None:
            return None
        return float(np.mean(self.n_first_choices == self.n_scored))

    def pooled_by(self, units: IntArray) -> UnitSums:
        """Rows of the same unit added up, in the order of units; (N,) -> (U,)."""
        _, index = np.unique(units, return_inverse=True)
        sum_nats = np.zeros(index.max(initial=-1) + 1)
        n_scored = np.zeros(len(sum_nats), dtype=np.int64)
        np.add.at(sum_nats, index, self.sum_nats)
        np.add.at(n_scored, index, self.n_scored)
        return UnitSums(sum_nats, n_scored)


@torch.no_grad()
def score_rows(
    scorer: AnyScorer,
    tokens: IntArray,
    table: RowTable,
    padding: Padding,
    *,
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
    max_positions: int = MAX_POSITIONS,
    count_first_choices: bool = False,
    team: Team = ALONE,
) -> RowScores:
    """Score every row of `table` in evaluation mode.

    A team distributes the batches and adds the sums up. Each row is scored once, in the same batch
    as with a single process, so the sums are the same.

    Args:
        scorer: The model and its precision.
        tokens: Flat corpus that the table points into.
        table: Rows to score.
        padding: How rows become rectangles, and whether padding is scored.
        device: Where the model is.
        poll: Called before every batch; may raise to stop.
        max_positions: Positions per batch, including padding.
        count_first_choices: Also count targets that are the model's most likely token.
        team: The processes that score together.
    """
    began = time.perf_counter()
    scorer.network.eval()
    meter = _RowMeter(table, count_first_choices=count_first_choices)
    for rows, counts in team.deal(cut_by_length(table, padding, max_positions=max_positions)):
        poll()
        batch = make_batch(tokens, table, rows, padding)
        nats, is_first = _score_batch(scorer, batch.to(device), count_first_choices)
        if counts:
            meter.add(batch, nats, is_first)
    return meter.add_up(team, seconds_since=began)


def _score_batch(
    scorer: AnyScorer, batch: Batch, count_first_choices: bool
) -> tuple[FloatArray, npt.NDArray[np.bool_] | None]:
    """Nats of every scored target (S,), row by row, and whether the model ranks it first."""
    if not count_first_choices:
        return scorer.score(batch).double().cpu().numpy(), None
    nats, is_first = scorer.score_choices(batch)
    return nats.double().cpu().numpy(), is_first.cpu().numpy()


class _RowMeter:
    """Sums over the targets that were scored so far, for every row and every class."""

    def __init__(self, table: RowTable, *, count_first_choices: bool) -> None:
        self._table = table
        self._sum_nats = np.zeros(table.n_rows)
        self._n_scored = np.zeros(table.n_rows, dtype=np.int64)
        self._n_first = np.zeros(table.n_rows, dtype=np.int64) if count_first_choices else None
        self._class_nats, self._class_counts = np.zeros(4), np.zeros(4, dtype=np.int64)

    def add(self, batch: Batch, nats: FloatArray, is_first: npt.NDArray[np.bool_] | None) -> None:
        """Add the targets of a batch: `nats` and `is_first` are (S,), row by row."""
        b, classes = batch.scored // batch.targets.shape[1], classes_of_targets(batch, self._table)
        rows, n_rows = batch.rows, len(batch.rows)
        self._sum_nats[rows] = np.bincount(b, nats, minlength=n_rows)
        self._n_scored[rows] = np.bincount(b, minlength=n_rows)
        if self._n_first is not None:
            self._n_first[rows] = np.bincount(b[is_first], minlength=n_rows)
        self._class_nats += np.bincount(classes, nats, minlength=4)
        self._class_counts += np.bincount(classes, minlength=4)

    def add_up(self, team: Team, *, seconds_since: float) -> RowScores:
        """The sums over all members of the team; `seconds_since` is when they began."""
        return RowScores(
            sum_nats=team.add(self._sum_nats),
            n_scored=team.add(self._n_scored),
            class_nats=team.add(self._class_nats),
            class_counts=team.add(self._class_counts),
            seconds=time.perf_counter() - seconds_since,
            n_first_choices=None if self._n_first is None else team.add(self._n_first),
        )


def average_nats(protocol: Protocol, scores: RowScores) -> float:
    """The protocol's cross-entropy: a mean over tokens or documents, or of batch means.

    For a mean over documents, rows must be documents; the mean is in nats per document.

    Raises:
        InputError: No token was scored.
    """
    pooled = scores.sums.cross_entropy
    if protocol.average == "tokens":
        return pooled
    if protocol.average == "documents":
        return float(scores.sum_nats.mean())
    return float(batch_means(scores).mean())


def batch_means(scores: RowScores) -> FloatArray:
    """Nats per target for every 14 neighbouring rows, as the published study averaged."""
    starts = np.arange(0, len(scores.sum_nats), PAPER_BATCH)
    means: FloatArray = np.add.reduceat(scores.sum_nats, starts) / np.add.reduceat(
        scores.n_scored, starts
    )
    return means
