"""The sums per document from which a study's scores are made, with notes on missing ones."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lorastudy.analysis.paired import Clusters, FloatArray, cluster_windows
from lorastudy.analysis.summary import ArmSummary, ScoreKey, score_key
from lorastudy.errors import StorageError
from lorastudy.store.document_sums import DocumentSums, read_document_sums
from lorastudy.store.folders import StudyFolder
from lorastudy.store.records import EvaluationRecord
from lorastudy.units import write_count

NO_SUMS = (
    "sums by document (evaluations/ of the run folders) were not found, so differences have "
    "no interval and nothing is called separated."
)
WINDOWS = (
    "documents are windows of the joined text; since neighbours resemble each other, about {} "
    "neighbouring windows count as one document."
)
BATCH_MEANS = (
    "differences are over all targets, while the score is a mean of means of 14 rows; "
    "they disagree where the last of these is smaller."
)
_TOLERANCE = 1e-6  # relative
_MOST_NOTES = 3


@dataclass(frozen=True, slots=True)
class ScoreSums:
    """Sums by document of all runs under one score; the same documents in every run."""

    weights: FloatArray  # (m) divisors of the nats: scored targets, or one per document
    nats_of_runs: Mapping[str, FloatArray]  # by run id (m); runs without a file are left out
    notes: tuple[str, ...]
    clusters: Clusters | None = None  # (m) of neighbouring windows; None: all by themselves
    is_task: bool = False  # documents are items, and nats are 1 for a wrong answer


def read_sums(key: ScoreKey, arms: tuple[ArmSummary, ...], study_dir: Path | None) -> ScoreSums:
    """The sums under `key` of every run that the report counts."""
    wanted = [
        (a.arm, r, e) for a in arms for r in a.runs for e in r.evaluations if score_key(e) == key
    ]
    found: dict[str, FloatArray] = {}
    weights: FloatArray | None = None
    places: list[str] = []
    problems: list[str] = []
    is_exact, has_windows = True, False
    for arm, run, evaluation in wanted:
        if study_dir is None or not math.isfinite(evaluation.loss):
            continue
        try:
            sums = read_document_sums(StudyFolder(study_dir).run(run.run_id), evaluation)
        except StorageError as error:
            problems.append(f"{arm}, seed {run.seed}: {_shorten(str(error), study_dir)}")
            continue
        own, is_exact_here = _weights(sums, evaluation)
        own_places = [item.place for item in sums.items]
        if weights is None:
            weights, places = own, own_places
        if not np.array_equal(own, weights) or own_places != places:
            problems.append(f"{arm}, seed {run.seed}: other documents than the runs before it.")
            continue
        is_exact = is_exact and is_exact_here
        has_windows = has_windows or sums.unit == "window"
        found[run.run_id] = np.asarray(sums.losses, dtype=np.float64)
    if not found:
        damaged = [problem for problem in problems if not problem.endswith(" is missing.")]
        notes = [NO_SUMS, *_list_problems(damaged)] if wanted else []
        return ScoreSums(np.zeros(0), {}, tuple(notes))
    notes = [*_list_problems(problems), *([] if is_exact else [BATCH_MEANS])]
    weights = np.zeros(0) if weights is None else weights
    clusters = cluster_windows(len(weights)) if has_windows else None
    notes += [WINDOWS.format(int((clusters == 0).sum()))] if clusters is not None else []
    return ScoreSums(weights, found, tuple(notes), clusters, key.is_task)


def _weights(sums: DocumentSums, evaluation: EvaluationRecord) -> tuple[FloatArray, bool]:
    """The divisors of nats, and whether the ratio of sums is then the score itself."""
    targets = np.asarray(sums.weights, dtype=np.float64)
    total = math.fsum(sums.losses)
    for weights in (targets, np.ones(len(targets))):
        if sums.unit == "item" or math.isclose(
            total / float(weights.sum()), evaluation.loss, rel_tol=_TOLERANCE
        ):
            return weights, True
    return targets, False


def _list_problems(problems: list[str]) -> list[str]:
    notes = [f"left out: {problem}" for problem in problems[:_MOST_NOTES]]
    if len(problems) > _MOST_NOTES:
        notes.append(f"left out: {write_count(len(problems) - _MOST_NOTES, 'more run')}.")
    return notes


def _shorten(message: str, study_dir: Path) -> str:
    """The first sentence without the folder, so that a moved study gives the same report."""
    return message.replace(f"{study_dir}/", "").split("\n")[0].split(". ")[0].rstrip(".") + "."
