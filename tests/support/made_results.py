"""A study made by hand: 6 arms, 2 seeds, 3 benchmarks under 2 protocols, one failed run."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.files import write_record
from lorastudy.store.records import ClassSum, EpochRecord, EvaluationRecord, RunResult, StudyResults

ARMS = ("baseline", "full", "lora-1", "lora-2", "lora-3", "lora-4")
BENCHMARKS = ("wikitext-2", "lambada", "imdb")
TOTAL = 124_439_808
TRAINABLE = (0, 124_439_808, 589_824, 1_622_016, 2_359_296, 3_175_696)
BASE_PERPLEXITY = (40.0, 21.0, 24.0, 23.0, 22.0, 25.0)
MIB = 2**20


def make_evaluation(
    benchmark: str, protocol: str, perplexity: float, *, version: int = 1
) -> EvaluationRecord:
    nats, n_tokens = math.log(perplexity), 1000
    classes = (
        ClassSum(target_class="first", n_targets=20, sum_nats=100.0),
        ClassSum(target_class="text", n_targets=230, sum_nats=700.0),
        ClassSum(target_class="first-padding", n_targets=20, sum_nats=60.0),
        ClassSum(target_class="other-padding", n_targets=730, sum_nats=1.0),
    )
    return EvaluationRecord(
        benchmark=benchmark,
        protocol=protocol,
        protocol_version=version,
        cross_entropy=nats,
        perplexity=perplexity,
        n_tokens=n_tokens,
        n_documents=10,
        sum_nats=nats * n_tokens,
        seconds=1.0,
        classes=classes if protocol == "paper-padded" else (),
    )


def make_evaluations(perplexity: float) -> tuple[EvaluationRecord, ...]:
    return tuple(
        make_evaluation(benchmark, protocol, value * factor)
        for benchmark, factor in zip(BENCHMARKS, (1, 2, 3), strict=True)
        for protocol, value in (("rows-text", perplexity), ("paper-padded", perplexity**0.27))
    )


def make_epochs(losses: Sequence[float]) -> tuple[EpochRecord, ...]:
    return tuple(
        EpochRecord(
            epoch=epoch,
            step=epoch * 10,
            train_loss=loss + 0.3,
            validation_loss=loss,
            learning_rate=1e-4,
            train_seconds=60.0,
        )
        for epoch, loss in enumerate(losses, start=1)
    )


def make_run(arm: str, seed: int, **fields: object) -> RunResult:
    """A finished LoRA run; `fields` replaces what it says."""
    values: dict[str, object] = {
        "run_id": f"{arm}-s{seed}-0123abcd",
        "arm": arm,
        "method": "lora",
        "seed": seed,
        "learning_rate": 1e-3,
        "status": "done",
        "trainable_parameters": 589_824,
        "total_parameters": TOTAL,
        "best_epoch": 2,
        "epochs": make_epochs((3.5, 3.2, 3.3)),
        "train_seconds": 8668.0,
        "tokens_per_second": 5000.0,
        "peak_memory_bytes": {"allocated": 9003 * MIB, "reserved": 9500 * MIB},
        "device": "cuda: test device",
        "precision": "float32",
        "evaluations": make_evaluations(24.0 + seed),
    }
    return RunResult.model_validate(values | fields)


def make_failed_run(arm: str, seed: int, reason: str) -> RunResult:
    return make_run(
        arm,
        seed,
        status="diverged",
        reason=reason,
        best_epoch=None,
        train_seconds=None,
        tokens_per_second=None,
        peak_memory_bytes={},
        evaluations=(),
        epochs=(),
    )


def make_arm_runs(place: int) -> list[RunResult]:
    arm, perplexity = ARMS[place], BASE_PERPLEXITY[place]
    if arm == "baseline":
        bare = {"learning_rate": None, "best_epoch": None, "epochs": (), "train_seconds": None}
        return [
            make_run(
                arm,
                0,
                method="baseline",
                trainable_parameters=0,
                evaluations=make_evaluations(perplexity),
                peak_memory_bytes={"allocated": 3000 * MIB},
                tokens_per_second=None,
                **bare,
            )
        ]
    return [
        make_run(
            arm,
            seed,
            method="full" if arm == "full" else "lora",
            learning_rate=1e-4 if arm == "full" else 1e-3,
            trainable_parameters=TRAINABLE[place],
            best_epoch=2 + seed,
            epochs=make_epochs([3.6 - 0.05 * place, 3.2 + 0.02 * seed, 3.21 - 0.02 * place]),
            train_seconds=8000.0 + 1500 * place + 300 * seed,
            peak_memory_bytes={"allocated": (9000 + 400 * place + 5 * seed) * MIB},
            evaluations=make_evaluations(perplexity + (1 if seed else -1)),
        )
        for seed in (0, 1)
    ]


def make_results(runs: Sequence[RunResult] | None = None, **fields: object) -> StudyResults:
    """The whole study, in which lora-4 diverged for seed 1; or one with other `runs`."""
    if runs is None:
        runs = [run for place in range(len(ARMS)) for run in make_arm_runs(place)][:-1]
        runs = [*runs, make_failed_run("lora-4", 1, "loss is not a number at step 17.")]
    values: dict[str, object] = {
        "name": "placements",
        "arms": ARMS,
        "seeds": (0, 1),
        "benchmarks": BENCHMARKS,
        "training_protocol": "rows-text",
        "runs": tuple(runs),
    }
    return StudyResults.model_validate(values | fields)


def write_sums(
    folder: Path, results: StudyResults, spread: Callable[[str], float] = lambda _: 0.0
) -> None:
    """The sums by document behind every score: 10 documents, alike but for `spread` of the arm."""
    pattern = [100.0 * (i - 4.5) for i in range(10)]
    for run in results.runs:
        for evaluation in run.evaluations:
            scores = DocumentSums(
                evaluation=evaluation,
                n_targets=(100,) * 10,
                nats=tuple(100 * evaluation.cross_entropy + spread(run.arm) * p for p in pattern),
            )
            name = f"{evaluation.benchmark}--{evaluation.protocol}.json"
            write_record(folder / "runs" / run.run_id / "evaluations" / name, scores)


PAPER_SEEDS, PAPER_RATES = (0, 1, 2), (3e-4, 1e-3, 3e-3)


def make_paper_results() -> StudyResults:
    """A study of the paper's size, sound and published protocols, 3 seeds and 3 rates."""
    runs = [make_arm_runs(0)[0]]
    for place, arm in enumerate(ARMS[1:], 1):
        runs += [
            make_run(
                arm,
                seed,
                run_id=f"{arm}-s{seed}-{number:08x}",
                method="full" if arm == "full" else "lora",
                learning_rate=rate,
                trainable_parameters=TRAINABLE[place],
                epochs=make_epochs(
                    [3.6 + 0.04 * place + 0.03 * number + 0.01 * seed - 0.05 * e for e in range(8)]
                ),
                train_seconds=8000.0 + 1500 * place + 300 * seed,
                tokens_per_second=5000.0 - 40 * seed,
                total_seconds=9000.0 + 1500 * place + 300 * seed,
                evaluations=make_evaluations(BASE_PERPLEXITY[place] + 0.1 * seed),
            )
            for number, rate in enumerate(PAPER_RATES)
            for seed in PAPER_SEEDS
        ]
    return make_results(runs, name="paper-sound", seeds=PAPER_SEEDS, forgetting=("imdb",))
