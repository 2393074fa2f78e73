"""What run folders say in addition to `results.json`: resolved modules, speed, bytes.

    manifest.json      modules, digests, environment
    steps.jsonl        seconds of every step -> pace; losses in stretches of steps
    resumes.jsonl      where an interrupted run continued
    best/              where the weights are
    best/*.safetensors bytes that have to be kept to use the arm
    study.lock.json    digests that every run matched; tokens of the base model
    best/config.json   the same tokens, for locks of early versions, if a whole model is stored

All of these may be missing, since a report can be made from `results.json` alone. A file that
exists but cannot be read is named in the report, and stops nothing since no result depends on it.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel

from lorastudy.analysis.summary import ArmSummary
from lorastudy.config.spec import RunSpec
from lorastudy.errors import StorageError
from lorastudy.store.collect import list_doubts
from lorastudy.store.files import read_record
from lorastudy.store.folders import BEST, RunFolder, StudyFolder
from lorastudy.store.lines import read_records
from lorastudy.store.locks import StudyLock, read_lock
from lorastudy.store.records import Manifest, ResumeRecord, RunResult, StepRecord, StudyResults
from lorastudy.store.weights import measure_stored_bytes

SLOW_TENTH = 1.5  # times the median pace, from which a run is called uneven
SEEDS_APART = 1.1  # fastest over slowest seed, from which an arm's seeds are called apart
CONTENDED = 0.05  # of the time that its threads were ready to run, from which they waited too long
_MOST_STRETCHES = 60  # of the losses that are drawn
_FEWEST_STEPS = 20  # a slow tenth of fewer is one or two steps
FLOAT32_BYTES = 4

_Model = TypeVar("_Model", bound=BaseModel)
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds per computed position over the steps of one run, relative to their median."""

    slow_tenth: float  # 90th percentile over the median

    @property
    def is_uneven(self) -> bool:
        """Whether a tenth of the steps took much longer than their length explains."""
        return self.slow_tenth >= SLOW_TENTH


@dataclass(frozen=True, slots=True)
class StepLoss:
    """The training loss of a stretch of neighbouring steps."""

    step: int  # the last one
    loss: float  # nats per target, over all targets of the stretch


@dataclass(frozen=True, slots=True)
class RunEvidence:
    """What one run's folder says; a part is None if its file is missing."""

    run: RunResult
    manifest: Manifest | None
    pace: Pace | None  # None: too few steps as well
    stored_bytes: int | None  # weight files of best/
    losses: tuple[StepLoss, ...] = ()  # in order; empty: no steps are stored
    resumed_after: tuple[int, ...] = ()  # steps from which it continued, one for each interruption
    weights: str | None = None  # folder of its weights, as seen from the study's; None: unknown


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the folder of a study says."""

    runs: tuple[RunEvidence, ...]
    lock: StudyLock | None
    doubts: tuple[str, ...] = ()  # sentences: files that were changed, or are not verified
    problems: tuple[str, ...] = ()  # files that exist but cannot be read
    vocabulary_size: int | None = None  # of the base model; None: not known

    def of_arm(self, arm: ArmSummary) -> tuple[RunEvidence, ...]:
        """The evidence of the runs that the report counts for `arm`."""
        counted = {run.run_id for run in arm.runs}
        return tuple(found for found in self.runs if found.run.run_id in counted)


@dataclass(frozen=True, slots=True)
class StoredSize:
    """Bytes to store in addition to the base model, or instead of it."""

    n_bytes: int
    is_measured: bool  # files of best/; else 4 bytes per trained parameter


def read_evidence(results: StudyResults, study_dir: Path | None) -> Evidence:
    """The evidence in `study_dir` for every run of `results`; None: there is no folder."""
    if study_dir is None:
        return Evidence(tuple(RunEvidence(run, None, None, None) for run in results.runs), None)
    study, problems = StudyFolder(study_dir), list[str]()
    lock = _attempt(lambda: read_lock(study), problems) if study.lock.is_file() else None
    runs = tuple(_read_run(run, study.run(run.run_id), problems) for run in results.runs)
    told = (f"{problem.replace(f'{study_dir}/', '').splitlines()[0]}." for problem in problems)
    doubts = list_doubts(study) if study.study.is_file() else []
    size = lock.vocabulary_size if lock else None
    size = size or _read_vocabulary_size(results, study)
    return Evidence(runs, lock, tuple(doubts), tuple(told), size)


def measure_pace(steps: Sequence[StepRecord]) -> Pace | None:
    """How even the speed of a run was; None if it has too few steps."""
    pace = [step.seconds / step.n_positions for step in steps[1:] if step.n_positions]
    if len(pace) < _FEWEST_STEPS or (median := float(np.median(pace))) <= 0:
        return None
    return Pace(slow_tenth=float(np.quantile(pace, 0.9)) / median)


def stored_size(arm: ArmSummary, evidence: Evidence) -> StoredSize | None:
    """What has to be stored to use the arm; None if nothing is trained or it is not known."""
    if arm.is_baseline or arm.trainable_parameters is None:
        return None
    measured = [e.stored_bytes for e in evidence.of_arm(arm) if e.stored_bytes is not None]
    if measured:
        return StoredSize(max(measured), is_measured=True)
    return StoredSize(FLOAT32_BYTES * arm.trainable_parameters, is_measured=False)


def timing_doubts(arm: ArmSummary, evidence: Evidence) -> tuple[str, ...]:
    """Signs that the arm's seconds also depend on something else, in a few words each."""
    uneven = [e.run.seed for e in evidence.of_arm(arm) if e.pace is not None and e.pace.is_uneven]
    speeds = [run.tokens_per_second for run in arm.runs if run.tokens_per_second]
    doubts = []
    if uneven:
        seeds = ", ".join(map(str, uneven))
        doubts.append(f"seed {seeds}: a tenth of the steps took {SLOW_TENTH:g} times as long")
    if len(speeds) > 1 and max(speeds) >= SEEDS_APART * min(speeds):
        percent = 100 * (max(speeds) / min(speeds) - 1)
        doubts.append(f"the fastest seed was {percent:.0f} % faster than the slowest")
    waited = max((run.waited_share or 0.0 for run in arm.runs), default=0.0)
    if waited >= CONTENDED:
        doubts.append(f"threads waited for the CPU {waited:.0%} of the time")
    if len(devices := {run.device for run in arm.runs if run.device}) > 1:
        doubts.append(f"seeds ran on {len(devices)} kinds of device")
    return tuple(doubts)


def find_doubts(arms: Iterable[ArmSummary], evidence: Evidence) -> dict[str, tuple[str, ...]]:
    """The arms whose timings are unreliable, with the reasons."""
    found = {arm.arm: timing_doubts(arm, evidence) for arm in arms}
    return {arm: doubts for arm, doubts in found.items() if doubts}


def _read_vocabulary_size(results: StudyResults, study: StudyFolder) -> int | None:
    """Tokens of the base model, as `config.json` of a stored whole model has them."""
    for run in results.runs:
        try:
            content = json.loads((study.run(run.run_id).best / "config.json").read_bytes())
        except (OSError, ValueError):
            continue
        size = content.get("vocab_size") if isinstance(content, dict) else None
        if isinstance(size, int) and size > 0:
            return size
    return None


def join_steps(steps: Sequence[StepRecord]) -> tuple[StepLoss, ...]:
    """The losses of `steps` in a few stretches of equal numbers of steps.

    Equal numbers of steps give equal stretches, so that seeds can be averaged.
    """
    length = max(1, -(-len(steps) // _MOST_STRETCHES))
    parts = (steps[start : start + length] for start in range(0, len(steps), length))
    return tuple(
        StepLoss(part[-1].step, sum(s.loss * s.n_tokens for s in part) / n_tokens)
        for part in parts
        if (n_tokens := sum(step.n_tokens for step in part))
    )


def _read_run(run: RunResult, folder: RunFolder, problems: list[str]) -> RunEvidence:
    if run.status == "damaged":
        return RunEvidence(run, None, None, None)
    if run.method == "elsewhere":
        return _read_elsewhere(run, folder, problems)
    steps = _read_lines(folder.steps, StepRecord, problems)
    return RunEvidence(
        run=run,
        manifest=_read(folder.manifest, Manifest, problems),
        pace=measure_pace(steps),
        stored_bytes=_attempt(lambda: measure_stored_bytes(folder), problems),
        losses=join_steps(steps),
        resumed_after=tuple(r.step for r in _read_lines(folder.resumes, ResumeRecord, problems)),
        weights=f"runs/{run.run_id}/{BEST[:-1]}" if folder.best.is_dir() else None,
    )


def _read_elsewhere(run: RunResult, folder: RunFolder, problems: list[str]) -> RunEvidence:
    """What is known of a run whose weights lie outside of its folder."""
    spec = _read(folder.spec, RunSpec, problems)
    weights = spec.arm.weights[0] if spec and spec.arm.weights else None
    return RunEvidence(
        run=run,
        manifest=_read(folder.manifest, Manifest, problems),
        pace=None,
        stored_bytes=weights.bytes if weights else None,
        weights=weights.folder if weights else None,
    )


def _read(path: Path, kind: type[_Model], problems: list[str]) -> _Model | None:
    return _attempt(lambda: read_record(path, kind), problems) if path.is_file() else None


def _read_lines(path: Path, kind: type[_Model], problems: list[str]) -> tuple[_Model, ...]:
    return _attempt(lambda: read_records(path, kind), problems) or ()


def _attempt(read: Callable[[], _Read], problems: list[str]) -> _Read | None:
    """What `read` finds; None where it cannot be read, which is one more problem."""
    try:
        return read()
    except StorageError as error:
        problems.append(str(error))
        return None
