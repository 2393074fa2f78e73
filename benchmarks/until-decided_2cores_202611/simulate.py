"""How often a study that runs until its question is decided is wrong, and what it spends.

Synthetic studies as in `benchmarks/coverage_2cores_202611`, whose functions draw them: trained
arms with document, seed and own effects, 100 documents. They are looked at with 2, 3, 5, 8 and 10
seeds. After each look only the arms of open pairs go on, and each look spends its part of the
5 %, both by the functions that `lorastudy run --until-decided` uses. Pairs that are out of reach
go on here, so that as many looks are taken as possible: to stop earlier separates less.

Run from the root of the repository; simulation.txt beside this file is what it printed:

    python benchmarks/until-decided_2cores_202611/simulate.py > simulation.txt
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from types import ModuleType

import numpy as np

from lorastudy.analysis.families import separate
from lorastudy.analysis.layout import (
    ARMS_FOR_RARE,
    least_seeds,
    measure_layout,
    prior_freedom,
    shrink_variance,
)
from lorastudy.analysis.looks import plan_looks, spent_by
from lorastudy.analysis.paired import (
    SIGNIFICANCE,
    Errors,
    FloatArray,
    document_freedom,
    make_rare,
    measure_parts,
)

MARGIN, MOST_SEEDS, AT_ONCE = 0.02, 10, 500
QUESTIONS = ("full-or-lora", "all")
SPREADS, PATTERNS = (0.002, 0.01, 0.03, 0.1), ("equal", "one x10", "one x100", "ladder 100")


def _load_coverage() -> ModuleType:
    path = Path(__file__).parent.parent / "coverage_2cores_202611" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_of_the_report", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as dataclasses need it
    spec.loader.exec_module(module)
    return module


coverage = _load_coverage()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the pairs of many studies; arrays (studies, pairs)."""

    pairs: tuple[tuple[int, int], ...]
    separated: FloatArray
    equivalent: FloatArray
    runs: FloatArray  # (studies) trained runs
    sign: FloatArray  # of the difference that was separated; 0: not separated


def list_pairs(question: str, n_arms: int) -> tuple[tuple[int, int], ...]:
    """Arm 0 stands for full fine-tuning, the others for LoRA."""
    if question == "full-or-lora":
        return tuple((0, b) for b in range(1, n_arms))
    return tuple(combinations(range(n_arms), 2))


def run_until_decided(
    nats: FloatArray, targets: FloatArray, pairs: Sequence[tuple[int, int]], looks: Sequence[int]
) -> Outcome:
    """All looks at studies with `nats` (n, A, S, m) and `targets` (n, m)."""
    n, n_arms = nats.shape[:2]
    separated = np.zeros((n, len(pairs)), dtype=bool)
    equivalent, sign = separated.copy(), np.zeros(separated.shape)
    going, runs, before = np.ones((n, n_arms), dtype=bool), np.zeros(n), 0
    for n_seeds in looks:
        spends = spent_by(n_seeds) - (spent_by(before) if before else 0.0)
        runs += going.sum(axis=-1) * (n_seeds - before)
        for arms in np.unique(going, axis=0):
            members = np.flatnonzero((going == arms).all(axis=-1))
            places = [i for i, (a, b) in enumerate(pairs) if arms[a] and arms[b]]
            if not places:
                continue
            kept = np.flatnonzero(arms)
            means, errors = measure(
                nats[np.ix_(members, kept)][:, :, :n_seeds],
                targets[members],
                [(list(kept).index(pairs[i][0]), list(kept).index(pairs[i][1])) for i in places],
            )
            where = np.ix_(members, places)
            is_open = ~(separated | equivalent)[where]
            found, levels = separate(
                np.where(is_open, means, 0.0),
                errors,
                significance=spends,
                n_left=len(pairs) - separated[members].sum(axis=-1),
            )
            within = np.abs(means) + errors.half_width(levels) < MARGIN
            sign[where] = np.where(found, np.sign(means), sign[where])
            separated[where] |= found
            equivalent[where] |= is_open & within
        is_open = ~(separated | equivalent)
        going = np.stack(
            [
                is_open[:, [i for i, pair in enumerate(pairs) if arm in pair]].any(axis=-1)
                for arm in range(n_arms)
            ],
            axis=-1,
        )
        before = n_seeds
    return Outcome(tuple(pairs), separated, equivalent, runs, sign)


def measure(
    nats: FloatArray, targets: FloatArray, pairs: Sequence[tuple[int, int]]
) -> tuple[FloatArray, Errors]:
    """Means and errors (n, pairs) as the report has them."""
    n_arms, n_seeds, m = nats.shape[1:]
    common = measure_layout(nats.sum(axis=-1) / targets.sum(axis=-1)[:, None, None]).of_trained
    found = [measure_parts(targets, nats[:, a] - nats[:, b]) for a, b in pairs]
    means, documents, shared = (
        np.stack([getattr(f, name) for f in found], axis=-1)
        for name in ("means", "documents", "shared")
    )
    shrunk = [
        shrink_variance(
            f.of_seeds.var(axis=-1, ddof=1), n_seeds, common, prior_freedom(n_arms, n_seeds)
        )
        for f in found
    ]
    seeds, freedom = (np.stack(part, axis=-1) for part in zip(*shrunk, strict=True))
    of_documents = np.full(seeds.shape, document_freedom(m, None))
    errors = Errors(seeds / n_seeds, documents, shared, freedom, of_documents)
    if n_seeds == 2 and n_arms >= ARMS_FOR_RARE:
        variance = np.broadcast_to(common.value[:, None] / n_seeds, seeds.shape)
        errors = replace(errors, rare=make_rare(errors, variance, n_arms))
    return means, errors


def simulate(
    spread: float,
    pattern: str,
    question: str,
    truth: Sequence[float],
    *,
    n_studies: int,
    m: int = 100,
) -> tuple[Outcome, Outcome]:
    """Outcomes of looking again and again, and of one look at the full grid."""
    n_arms = len(truth)
    cell = coverage.Cell(MOST_SEEDS, spread, m, n_arms, pattern)
    rng = np.random.default_rng([round(spread * 1e4), n_arms, m, PATTERNS.index(pattern)])
    first = least_seeds(n_arms)
    looks = [first, *plan_looks(first, MOST_SEEDS)]
    pairs = list_pairs(question, n_arms)
    parts: tuple[list[Outcome], list[Outcome]] = ([], [])
    for begin in range(0, n_studies, AT_ONCE):
        targets, nats, _ = coverage.draw(rng, cell, min(AT_ONCE, n_studies - begin))
        nats = nats + np.asarray(truth)[:, None, None] * targets[:, None, None]
        parts[0].append(run_until_decided(nats, targets, pairs, looks))
        parts[1].append(_run_grid(nats, targets, pairs))
    return _join(parts[0]), _join(parts[1])


def _run_grid(nats: FloatArray, targets: FloatArray, pairs: Sequence[tuple[int, int]]) -> Outcome:
    means, errors = measure(nats, targets, pairs)
    separated, levels = separate(means, errors)
    equivalent = np.abs(means) + errors.half_width(levels) < MARGIN
    runs = np.full(len(nats), float(nats.shape[1] * nats.shape[2]))
    return Outcome(
        tuple(pairs), separated, equivalent, runs, np.where(separated, np.sign(means), 0)
    )


def _join(parts: Sequence[Outcome]) -> Outcome:
    names = ("separated", "equivalent", "runs", "sign")
    joined = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
    return Outcome(parts[0].pairs, *joined)


def print_false(n_studies: int) -> None:
    """Chance of any false separation over all looks, nothing differs in truth."""
    print("\nFALSE SEPARATIONS over all looks, % of studies; nothing differs in truth")
    print(f"{'question':>13} {'arms':>5} {'spread':>6} {'variances':>10} {'until decided':>14}"
          f" {'full grid':>10} {'runs, %':>8}")  # fmt: skip
    worst: dict[str, float] = {}
    cells = [(q, 5, p, s) for q, p, s in product(QUESTIONS, PATTERNS, SPREADS)]
    cells += [(q, a, p, 0.1) for q, a, p in product(QUESTIONS, (2, 3, 4, 8), PATTERNS[:3])]
    for question, n_arms, pattern, spread in cells:
        n = n_studies if n_arms <= 5 else n_studies // 2
        looked, grid = simulate(spread, pattern, question, (0.0,) * n_arms, n_studies=n)
        found = [100 * o.separated.any(axis=-1).mean() for o in (looked, grid)]
        worst[pattern] = max(worst.get(pattern, 0.0), found[0])
        print(f"{question:>13} {n_arms:>5} {spread:>6g} {pattern:>10} {found[0]:>14.1f}"
              f" {found[1]:>10.1f} {100 * looked.runs.mean() / grid.runs.mean():>8.0f}",
              flush=True)  # fmt: skip
    for pattern, value in worst.items():
        print(f"worst cell, variances {pattern}: {value:.1f}")


def print_power(n_studies: int) -> None:
    """What is found where arms differ, what it costs, and whether it agrees with the full grid."""
    truth = (0.0, 0.0, 0.05, 0.2, 0.6)
    print(f"\nPOWER: arms at {truth} nats, full fine-tuning first; 10 seeds at most")
    print(f"{'question':>13} {'docs':>5} {'spread':>6} {'variances':>10} {'0.05/0.2/0.6':>18}"
          f" {'full grid':>18} {'equal: false':>13} {'full grid':>10} {'tied':>5} {'runs, %':>8}"
          f" {'opposite':>9}")  # fmt: skip
    for question, m, pattern, spread in product(
        QUESTIONS, (100, 1000), PATTERNS[:3:2], SPREADS[:3]
    ):
        n = n_studies if m == 100 else n_studies // 8
        looked, grid = simulate(spread, pattern, question, truth, n_studies=n, m=m)
        chances = [
            " / ".join(f"{o.separated[:, o.pairs.index((0, arm))].mean():.2f}" for arm in (2, 3, 4))
            for o in (looked, grid)
        ]
        equal = looked.pairs.index((0, 1))
        opposite = (looked.sign * grid.sign < 0).any(axis=-1).mean()
        print(f"{question:>13} {m:>5} {spread:>6g} {pattern:>10} {chances[0]:>18} {chances[1]:>18}"
              f" {100 * looked.separated[:, equal].mean():>13.1f}"
              f" {100 * grid.separated[:, equal].mean():>10.1f}"
              f" {looked.equivalent[:, equal].mean():>5.2f}"
              f" {100 * looked.runs.mean() / grid.runs.mean():>8.0f} {100 * opposite:>9.2f}",
              flush=True)  # fmt: skip


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=1500, help="in a cell of 100 documents")
    tables = {"false": print_false, "power": print_power}
    parser.add_argument("--only", choices=list(tables), action="append", default=[])
    arguments = parser.parse_args()
    n_seeds = [least_seeds(5), *plan_looks(least_seeds(5), MOST_SEEDS)]
    parts = np.diff([0.0, *map(spent_by, n_seeds)]) / SIGNIFICANCE
    print("seeds of the looks:", *n_seeds, " parts of the 5 %:", *(f"{p:.1%}" for p in parts))
    for name, print_table in tables.items():
        if not arguments.only or name in arguments.only:
            print_table(arguments.studies)


if __name__ == "__main__":
    main()
