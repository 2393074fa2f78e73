"""Findings of studies made by hand, from one perplexity for each arm."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorastudy.analysis.findings import Findings, make_findings
from support.made_results import (
    BENCHMARKS,
    make_epochs,
    make_evaluation,
    make_evaluations,
    make_results,
    make_run,
    write_sums,
)

SEEDS = (0, 1, 2)


def make_study(
    folder: Path,
    perplexities: Mapping[str, float | Mapping[str, float]],
    *,
    seeds: tuple[int, ...] = SEEDS,
    validation: Mapping[str, float] | None = None,
    spread: Mapping[str, float] | None = None,
    wobble: Mapping[str, float] | None = None,
    runs: Mapping[str, Mapping[str, Any]] | None = None,
    **fields: Any,
) -> Findings:
    """One run for each arm and seed; perplexities of seeds differ by 0.001.

    An arm with a mapping has one perplexity for each benchmark, and rows-text alone. `wobble`
    are nats by which the seeds of an arm go up and down; `runs` replaces fields of an arm's runs.
    """
    made = []
    for place, (arm, value) in enumerate(perplexities.items()):
        method = arm if arm in ("full", "baseline") else "lora"
        for number, seed in enumerate(seeds[:1] if arm == "baseline" else seeds):
            factor = math.exp((wobble or {}).get(arm, 0.0) * (-1) ** number)
            known = {
                "method": method,
                "learning_rate": None if arm == "baseline" else 1e-3,
                "trainable_parameters": 0 if arm == "baseline" else 1000 * (place + 1),
                "epochs": make_epochs(((validation or {}).get(arm, 3.0),)),
                "best_epoch": 1,
                "evaluations": (
                    make_evaluations(value * factor + 0.001 * seed)
                    if isinstance(value, int | float)
                    else tuple(
                        make_evaluation(name, "rows-text", each * factor + 0.001 * seed)
                        for name, each in value.items()
                    )
                ),
            }
            made.append(make_run(arm, seed, **(known | dict((runs or {}).get(arm, {})))))
    results = make_results(made, arms=tuple(perplexities), seeds=seeds, **fields)
    write_sums(folder, results, lambda arm: (spread or {}).get(arm, 0.0))
    return make_findings(results, folder)


def on_tests(*perplexities: float) -> dict[str, float]:
    """One perplexity for each benchmark of the made studies."""
    return dict(zip(BENCHMARKS, perplexities, strict=True))
