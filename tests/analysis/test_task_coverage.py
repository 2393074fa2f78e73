"""The committed simulation of tasks, on a sample of its cells."""

from pathlib import Path
from types import ModuleType

import pytest

from lorastudy.analysis.families import separate
from lorastudy.analysis.outlook import TASK_SPREAD, Score, look_out
from lorastudy.analysis.planning import POWER
from support.scripts import load_script

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "coverage_tasks_202611"


@pytest.fixture(scope="module")
def tasks() -> ModuleType:
    return load_script(FOLDER / "coverage.py")


@pytest.mark.parametrize(
    ("accuracy", "n_seeds", "spread", "pattern"),
    [(0.95, 2, 0.002, "equal"), (0.5, 3, 0.03, "one x100"), (0.1, 5, 0.01, "equal")],
)
def test_tasks_without_differences_seldom_separate_any(
    tasks: ModuleType, accuracy: float, n_seeds: int, spread: float, pattern: str
) -> None:
    cell = tasks.Cell(accuracy, n_seeds, spread, 100, 5, pattern)
    found = tasks.losses.false_separations(tasks.losses.measure(cell, 1000), n_seeds)
    assert found <= 5 + 3 * 0.69  # asked: 5 %; three standard errors of 1,000 studies


@pytest.mark.parametrize(("n_items", "n_seeds"), [(100, 2), (100, 5), (400, 3)])
def test_the_smallest_difference_of_a_plan_is_found_as_often_as_it_says(
    tasks: ModuleType, n_items: int, n_seeds: int
) -> None:
    score = Score("sums", "exact-match", n_items, is_joined=False, is_task=True)
    planned = look_out(score, TASK_SPREAD, n_seeds=n_seeds, n_trained=5, n_arms=6)
    cell = tasks.Cell(0.5, n_seeds, TASK_SPREAD.seeds, n_items)
    measured = tasks.losses.measure(cell, 1000)
    shift = measured.shifts((planned.smallest_difference, *(0.0,) * 5))
    separated, _ = separate(measured.means + shift, measured.errors(n_seeds))
    found = separated[:, measured.pairs.index((0, 1))].mean()
    assert found == pytest.approx(POWER, abs=0.05)
