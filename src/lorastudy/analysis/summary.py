"""One summary for each arm: the runs that count, and why others do not.

This is the only place that decides which runs count: finished ones, at the learning rate
with the best mean of the best validation, and not with a tuning seed. Tables, figures
and the page all show these summaries, so they cannot disagree.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lorastudy.analysis.statistics import Estimate, Sample, estimate_mean, show_loss
from lorastudy.protocols import is_task, scores_answers, scores_padding, unit_of
from lorastudy.store.rates import average_rank, choose_learning_rate
from lorastudy.store.records import EvaluationRecord, RunResult, StudyResults

_LARGEST_NATS = 700.0  # exp of it is a float
MEMORY_KINDS = ("allocated", "resident", "reserved")  # the first one recorded is shown


@dataclass(frozen=True, slots=True, order=True)
class ScoreKey:
    """The label of a score: a benchmark under a protocol of a version."""

    benchmark: str
    protocol: str
    version: int

    @property
    def protocol_name(self) -> str:
        """The protocol with its version, as every number is labelled."""
        return f"{self.protocol} v{self.version}"

    @property
    def scores_padding(self) -> bool:
        """Padding is among the scored targets, so this is not a perplexity of text."""
        return scores_padding(self.protocol)

    @property
    def scores_answers(self) -> bool:
        """Its targets are answers, told apart by class."""
        return scores_answers(self.protocol)

    @property
    def is_task(self) -> bool:
        """Its losses are shares of wrong answers, and shares of right ones are shown."""
        return is_task(self.protocol)

    @property
    def unit(self) -> str:
        """The unit of its losses and of their differences."""
        return unit_of(self.protocol)

    @property
    def quantity(self) -> str:
        """What is shown of its losses."""
        return "accuracy" if self.is_task else "perplexity"

    def show(self, loss: float) -> float:
        """What is shown of a loss."""
        return show_loss(loss, is_share=self.is_task)

    @property
    def compared(self) -> str:
        """What differences are told in; lower is better."""
        return "error rate" if self.is_task else "perplexity"

    @property
    def percent_sign(self) -> str:
        """What stands after `percent`."""
        return "points" if self.is_task else "%"

    def percent(self, difference: float) -> float:
        """How much higher a perplexity is in per cent, or an error rate in percentage points."""
        return 100 * (difference if self.is_task else math.expm1(min(difference, _LARGEST_NATS)))


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """An arm and its runs; `runs` are the finished ones at the chosen learning rate."""

    arm: str
    learning_rate: float | None  # None: nothing is trained, or nothing finished
    n_rates_tried: int
    runs: tuple[RunResult, ...]
    failed: tuple[RunResult, ...]  # at any rate
    n_finished: int  # at any rate
    n_missing: int
    # with a tuning seed, finished or stopped by a decision: they chose the rate
    tuning: tuple[RunResult, ...] = ()
    is_tuned: bool = False  # its rate is chosen with tuning seeds
    n_seeds: int = 0  # that the study wants of it

    @property
    def n_expected(self) -> int:
        """All runs the study wants of this arm."""
        return self.n_finished + len(self.failed) + self.n_missing

    @property
    def is_baseline(self) -> bool:
        """Nothing is trained, so one run stands for every seed."""
        return any(run.method == "baseline" for run in self.runs)

    @property
    def is_full(self) -> bool:
        """Every parameter is trained."""
        return any(run.method == "full" for run in self.runs)

    @property
    def trainable_parameters(self) -> int | None:
        """Trained parameters; known from a failed run too, if it got that far."""
        return _first(run.trainable_parameters for run in (*self.runs, *self.failed))

    @property
    def total_parameters(self) -> int | None:
        """All parameters, adapters included."""
        return _first(run.total_parameters for run in (*self.runs, *self.failed))

    @property
    def best_epochs(self) -> tuple[int, ...]:
        """The distinct best epochs over seeds, ascending."""
        return tuple(sorted({run.best_epoch for run in self.runs if run.best_epoch is not None}))

    @property
    def best_run(self) -> RunResult | None:
        """The run with the best validation; None without a run."""
        return choose_best_run(self.runs)

    @property
    def train_seconds(self) -> Estimate | None:
        """Seconds in optimizer steps."""
        return _estimate(run.train_seconds for run in self.runs)

    def peak_memory_bytes(self, kind: str | None) -> Estimate | None:
        """Peak memory of the named kind."""
        return _estimate(run.peak_memory_bytes.get(kind or "") for run in self.runs)

    def sample(self, key: ScoreKey) -> Sample:
        """The arm's values of one score, in the order of its runs."""
        found = [e for run in self.runs for e in run.evaluations if score_key(e) == key]
        return Sample(
            arm=self.arm,
            shown=tuple(e.shown for e in found),
            losses=tuple(e.loss for e in found),
            is_share=key.is_task,
        )

    def losses(self, read: Callable[[RunResult], dict[int, float]]) -> dict[int, Estimate]:
        """For each epoch, the mean over seeds of the finite losses that `read` finds."""
        curves = [read(run) for run in self.runs]
        by_epoch = {
            epoch: [c[epoch] for c in curves if epoch in c and math.isfinite(c[epoch])]
            for epoch in sorted({epoch for curve in curves for epoch in curve})
        }
        return {e: found for e, values in by_epoch.items() if (found := estimate_mean(values))}


def choose_best_run(runs: Iterable[RunResult]) -> RunResult | None:
    """The run with the best validation, the first of equals; None if there is none."""
    return min(runs, key=lambda run: average_rank([run]), default=None)


def summarise_arms(results: StudyResults) -> tuple[ArmSummary, ...]:
    """One summary for each arm, in the study's order."""
    return tuple(_summarise_arm(arm, results) for arm in results.arms)


def reference_arm(arms: Sequence[ArmSummary]) -> str | None:
    """The arm with which others are compared: full fine-tuning, else the first that finished."""
    of_full = [arm.arm for arm in arms if arm.is_full]
    return next(iter(of_full or [arm.arm for arm in arms if arm.runs]), None)


def list_score_keys(results: StudyResults) -> tuple[ScoreKey, ...]:
    """Every benchmark under every protocol that a run was scored on, versions apart.

    Benchmarks come in the study's order, protocols as they were first met.
    """
    met = dict.fromkeys(score_key(e) for run in results.runs for e in run.evaluations)
    rank = {name: position for position, name in enumerate(results.benchmarks)}
    return tuple(sorted(met, key=lambda key: rank.get(key.benchmark, len(rank))))


def score_key(evaluation: EvaluationRecord) -> ScoreKey:
    """The label of the score in `evaluation`."""
    return ScoreKey(evaluation.benchmark, evaluation.protocol, evaluation.protocol_version)


def memory_kind(results: StudyResults) -> str | None:
    """The one kind of peak memory that the whole report shows; None if none was measured."""
    recorded = {kind for run in results.runs for kind in run.peak_memory_bytes}
    return next((kind for kind in (*MEMORY_KINDS, *sorted(recorded)) if kind in recorded), None)


def missing_of(arm: str, results: StudyResults) -> tuple[str, ...]:
    """The run ids `<arm>-s<seed>-<hash8>` of `arm` that have no result yet."""
    return tuple(run_id for run_id in results.missing if run_id.rpartition("-s")[0] == arm)


def _summarise_arm(arm: str, results: StudyResults) -> ArmSummary:
    runs = [run for run in results.runs if run.arm == arm]
    stopped = [run for run in results.stopped if run.arm == arm]
    missing = missing_of(arm, results)
    seeds = [run.seed for run in (*runs, *stopped)]
    seeds += map(_seed_of, missing) if results.tuning_seeds else []
    finished = [run for run in runs if run.status == "done"]
    tuning = tuple(run for run in finished if run.seed in results.tuning_seeds)
    reported = [run for run in finished if run.seed not in results.tuning_seeds]
    is_tuned = any(seed in results.tuning_seeds for seed in seeds)
    # what a search by decisions gave the arm, else what its finished runs say
    decided = next((d for d in results.decided if d.arm == arm), None)
    rate = choose_learning_rate(tuning if is_tuned else finished)
    rate = decided.learning_rate if decided and is_tuned else rate
    n_seeds = decided.n_seeds if decided else len(results.seeds)
    # the reported runs of a rate that is not chosen yet have no ids yet
    is_to_come = all(seed in results.tuning_seeds for seed in seeds)
    return ArmSummary(
        arm=arm,
        learning_rate=rate,
        n_rates_tried=len({run.learning_rate for run in (*runs, *stopped)} - {None}),
        runs=tuple(run for run in reported if run.learning_rate == rate),
        failed=tuple(run for run in runs if run.status != "done"),
        n_finished=len(finished),
        n_missing=len(missing) + (n_seeds if is_tuned and is_to_come else 0),
        tuning=(*tuning, *stopped),
        is_tuned=is_tuned,
        n_seeds=n_seeds,
    )


def _seed_of(run_id: str) -> int:
    """The seed in `<arm>-s<seed>-<hash8>`."""
    return int(run_id.rpartition("-")[0].rpartition("-s")[2])


def _estimate(values: Iterable[float | int | None]) -> Estimate | None:
    return estimate_mean([float(value) for value in values if value is not None])


def _first(values: Iterable[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)
