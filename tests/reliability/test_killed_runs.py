"""R1 and R3: a run that is killed anywhere, once or twice, ends bitwise equal to one left alone.

Killed is a fork of this process that ends by SIGKILL or `os._exit` at the nth hit of a point in the
code: no handler, no flush, no unlock. Dropout is on in model and adapter, steps accumulate
micro-batches, points lie within epochs, and the best epoch, not always the last, is taken back at
the end; both implementations are killed. Compared are every step, epoch and score, and all trained
tensors, bit for bit.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lorastudy.store.folders import RunFolder
from support.reliability_rows import Row, count_failures
from support.tiny_runs import (
    ARMS,
    KILLED,
    PAPER,
    POINTS,
    SOUND,
    Case,
    assert_same_run,
    kill_at,
    make_study,
    note_in,
    write_texts,
)

PHASES = (
    "train:after-forward",
    "train:after-backward",
    "train:after-optimizer",
    "append:before-line",
    "run:after-step-line",
)  # passed in every step; the other points are passed at the end of an epoch or of the run


@dataclass(frozen=True)
class Reference:
    """A run that nothing happened to, and how often it passed each point."""

    case: Case
    folder: RunFolder
    points: tuple[str, ...]

    def hits(self) -> Iterator[tuple[str, int]]:
        """Every point with each of its hits, in no particular order."""
        for point in POINTS:
            yield from ((point, nth) for nth in range(self.points.count(point)))


def middle_hits(reference: Reference) -> list[tuple[str, int]]:
    """Every point once, halfway through the run."""
    return [(point, (reference.points.count(point) - 1) // 2) for point in POINTS]


def make_reference(base: Path, parent: Path, arm: str, training: dict) -> Reference:
    rates = (2e-2,) if arm == "full" else ARMS[arm]["learning_rates"]  # so high that it overfits
    study = make_study(base, training, arm, arms=({**ARMS[arm], "learning_rates": rates},))
    case = Case(study, write_texts(parent / "texts"), parent / "cache")
    folder, log = case.folder(parent, "reference"), parent / "points"
    log.touch()
    assert case.child(folder, note_in(log)) == 0
    return Reference(case, folder, tuple(log.read_text().split()))


@pytest.fixture(scope="module")
def references(flat_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    return {
        f"{arm}-{name}": make_reference(
            flat_gpt2, tmp_path_factory.mktemp(f"{arm}-{name}"), arm, training
        )
        for arm in ("lora", "full")
        for name, training in (
            ("sound", SOUND),
            ("paper", PAPER),
            ("reference", {**SOUND, "implementation": "reference"}),
        )
    }


def trial(reference: Reference, parent: Path, *kills: tuple[str, int]) -> Callable[[], None]:
    """Kill a run at each of `kills`, one after the other; finish it; compare; tidy up."""

    def carry_out() -> None:
        name = "-".join(f"{point}.{nth}" for point, nth in kills).replace(":", "_")
        folder = reference.case.folder(parent, name)
        for place, (point, nth) in enumerate(kills):
            by = kill_at(point, nth) if (nth + place) % 2 else sigkill_at(point, nth)
            code = reference.case.child(folder, by)
            # after the first kill there may be fewer hits left than `nth`
            assert code in ({KILLED, -signal.SIGKILL} | ({0} if place else set())), code
        if folder.read_result() is None:
            reference.case.execute_with(folder, None)
        assert_same_run(reference.folder, folder)
        shutil.rmtree(folder.path.parent)

    return carry_out


def sigkill_at(point: str, nth: int) -> Callable:
    count = iter(range(10**9))

    def handler(reached: str, _stop: object) -> None:
        if reached == point and next(count) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    return handler


def test_every_hook_point_of_the_source_is_hit_in_every_kind_of_run(
    references: dict[str, Reference],
) -> None:
    for reference in references.values():
        assert set(reference.points) == set(POINTS)


def test_the_best_epoch_of_some_of_these_runs_is_not_their_last(
    references: dict[str, Reference],
) -> None:
    results = [reference.folder.read_result() for reference in references.values()]
    best = {result.best_epoch for result in results if result is not None}
    assert best & {1, 2}


def test_r1_a_killed_lora_run_resumes_to_the_same_bits(
    references: dict[str, Reference], tmp_path: Path
) -> None:
    row = Row("R1")
    sound, paper = references["lora-sound"], references["lora-paper"]
    once = [trial(sound, tmp_path, hit) for hit in sound.hits()]
    once += [trial(paper, tmp_path / "paper", hit) for hit in list(paper.hits())[::3]]
    once += [
        trial(references["lora-reference"], tmp_path / "reference", hit)
        for hit in middle_hits(references["lora-reference"])
    ]
    hits = list(sound.hits())
    twice = [
        trial(sound, tmp_path / "twice", hit, hits[(7 * place) % len(hits)])
        for place, hit in enumerate(hits)
        if place % 4 == 0
    ]
    failed = count_failures([*once, *twice])
    n_phases = len(set(sound.points))
    n_steps = sound.points.count("train:after-optimizer")
    total = len(once) + len(twice)  # trials; those killed twice count once
    row.show(
        f"{total - failed} of {total} equal: {n_phases} points x every hit in {n_steps} steps, "
        f"{len(twice)} of them killed twice"
    )
    assert total >= 200 and n_phases >= 7 and failed == 0


def test_r3_a_killed_full_fine_tuning_resumes_to_the_same_bits(
    references: dict[str, Reference], tmp_path: Path
) -> None:
    row = Row("R3")
    trials = []
    for name in ("full-sound", "full-paper", "full-reference"):
        reference = references[name]
        trials += [trial(reference, tmp_path / name, hit) for hit in middle_hits(reference)]
    for name in ("full-sound", "full-paper"):
        reference = references[name]
        last = {point: reference.points.count(point) - 1 for point in POINTS}
        trials += [
            trial(
                reference, tmp_path / name / "twice", (p, last[p] // 3), ("run:after-step-line", 1)
            )
            for p in PHASES
        ]
    failed = count_failures(trials)
    row.show(f"{len(trials) - failed} of {len(trials)} equal, {2 * len(PHASES)} of them twice")
    assert len(trials) >= 20 and failed == 0
