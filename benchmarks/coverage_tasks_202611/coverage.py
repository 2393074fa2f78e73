"""How often the report is wrong, and what it finds, on synthetic tasks whose truth is known.

A study has a baseline with one run, five trained arms with S seeds, and m items. An answer is right
if a normal variable is below a limit that the accuracy decides. The variable is the sum of the
item's difficulty, which all arms share (half of its variance), an effect of arm and item (0.15) and
a rest of arm, seed and item (0.35). Seeds move the limit: half of that variance is common to all
arms of a seed, and `spread` is its standard deviation in accuracy. No two arms differ in truth. All
studies of a cell go through the functions that the report uses, as in the simulation for losses
(`benchmarks/coverage_2cores_202611`), whose measuring functions are imported.

Run from the root of the repository; results.txt beside this file is what it printed:

    python benchmarks/coverage_tasks_202611/coverage.py > results.txt
"""

import argparse
import importlib.util
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
from scipy.special import ndtri

from lorastudy.analysis.families import separate
from lorastudy.analysis.paired import SIGNIFICANCE, FloatArray

ACCURACIES, SPREADS, SEEDS, ITEMS = (0.1, 0.5, 0.95), (0.002, 0.01, 0.03), (2, 3, 5), (100, 1000)
PATTERNS = ("equal", "one x100")
DIFFICULTY, OF_ARM, REST = 0.5, 0.15, 0.35  # shares of the variance within a seed
_LOSSES = Path(__file__).resolve().parents[1] / "coverage_2cores_202611" / "coverage.py"


@dataclass(frozen=True, slots=True)
class Cell:
    """What the studies of one cell have in common."""

    accuracy: float
    n_seeds: int
    spread: float
    m: int = 100
    n_arms: int = 5
    pattern: str = "equal"


def draw(rng: np.random.Generator, cell: Cell, n: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weights (n, m), losses of trained arms (n, A, S, m) and of the baseline (n, m)."""
    a, s, m = cell.n_arms, cell.n_seeds, cell.m
    limit = ndtri(cell.accuracy)
    density = np.exp(-(limit**2) / 2) / np.sqrt(2 * np.pi)  # accuracy per unit of the limit
    half = cell.spread / density * np.sqrt(0.5)
    own = rng.normal(0, half, (n, a, s)) * np.sqrt(losses.variances(cell.pattern, a))[:, None]
    limits = limit + own + rng.normal(0, half, (n, 1, s))
    difficulty = rng.normal(0, np.sqrt(DIFFICULTY), (n, 1, m))
    of_arms = difficulty + rng.normal(0, np.sqrt(OF_ARM), (n, a + 1, m))
    trained = of_arms[:, :a, None] + rng.normal(0, np.sqrt(REST), (n, a, s, m))
    baseline = of_arms[:, a] + rng.normal(0, np.sqrt(REST), (n, m))
    wrong = (trained > limits[..., None]).astype(np.float64)
    return np.ones((n, m)), wrong, (baseline > limit).astype(np.float64)


def load_losses() -> ModuleType:
    """The simulation for losses; what it draws is replaced by tasks."""
    spec = importlib.util.spec_from_file_location("coverage_of_losses", _LOSSES)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.draw = draw
    return module


losses = load_losses()


def print_false(n_studies: int) -> None:
    """Chance of a false separation in a study, and of one pair that is asked about by itself."""
    print("FALSE SEPARATIONS, % of studies; a baseline and five trained arms, 15 pairs")
    print(f"{'accuracy':>8} {'items':>5} {'seeds':>5} {'spread':>6} {'variances':>10}"
          f" {'15 pairs':>9} {'one pair':>9} {'95 % covers':>12} {'worst pair':>10}")  # fmt: skip
    worst: dict[tuple[float, int], float] = {}
    for accuracy, m, n_seeds, pattern, spread in product(
        ACCURACIES, ITEMS, SEEDS, PATTERNS, SPREADS
    ):
        n = n_studies if m == 100 else n_studies // 4
        measured = losses.measure(Cell(accuracy, n_seeds, spread, m, 5, pattern), n)
        found = losses.false_separations(measured, n_seeds)
        half = measured.errors(n_seeds).half_width(SIGNIFICANCE)
        covered = 100 * (np.abs(measured.means) <= half).mean(axis=0)
        worst[accuracy, m] = max(worst.get((accuracy, m), 0.0), found)
        print(f"{accuracy:>8g} {m:>5} {n_seeds:>5} {spread:>6g} {pattern:>10} {found:>9.1f}"
              f" {losses.one_question(measured, n_seeds):>9.1f} {covered.mean():>12.1f}"
              f" {covered.min():>10.1f}", flush=True)  # fmt: skip
    print("\nworst cell")
    for (accuracy, m), value in worst.items():
        print(f"accuracy {accuracy:g}, {m:,} items: {value:.1f}")


def print_power(n_studies: int) -> None:
    """Chance to separate the first two trained arms, where one is better by so many points."""
    print("\nPOWER over 15 pairs, equal variances, spread 0.01, accuracy 0.5")
    points = (0.03, 0.05, 0.1, 0.2)
    print(f"{'items':>5} {'seeds':>5}", *(f"{100 * p:>4.0f} points" for p in points))
    for m, n_seeds in product(ITEMS, SEEDS):
        measured = losses.measure(Cell(0.5, n_seeds, 0.01, m), n_studies // (1 if m == 100 else 4))
        chances = []
        for point in points:
            shift = measured.shifts((point, *(0.0,) * 5))
            separated, _ = separate(measured.means + shift, measured.errors(n_seeds))
            chances.append(separated[:, measured.pairs.index((0, 1))].mean())
        print(f"{m:>5} {n_seeds:>5}", *(f"{chance:>11.2f}" for chance in chances), flush=True)


def print_spread(n_studies: int) -> None:
    """How differences of two trained arms spread: what `check` expects of a task."""
    print("\nSPREAD of a difference of two trained arms (see analysis/outlook.py)")
    print(f"{'accuracy':>8} {'items':>6} {'both':>6}")
    for accuracy in ACCURACIES:
        measured = losses.measure(Cell(accuracy, 5, 0.01, 1000), n_studies // 4)
        pair = measured.pairs.index((0, 1))
        shared = measured.shared[:, pair].mean()
        lasting = measured.documents[:, pair].mean() - shared
        print(f"{accuracy:>8g} {np.sqrt(lasting * 1000):>6.2f} {np.sqrt(shared * 5000):>6.2f}")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=4000, help="per cell of 100 items")
    n_studies = parser.parse_args().studies
    print_false(n_studies)
    print_power(n_studies)
    print_spread(n_studies)


if __name__ == "__main__":
    main()
