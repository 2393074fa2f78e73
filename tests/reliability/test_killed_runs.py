"""R1 and R3: a run that is killed anywhere, once or twice, ends bitwise equal to one left alone.

Killed is a fork of a run that ends by SIGKILL or `os._exit` at the nth hit of a point in the code:
no handler, no flush, no unlock. Dropout is on in model and adapter, steps accumulate
micro-batches, points lie within epochs, and the best epoch, not always the last, is taken back at
the end; both implementations are killed. Compared are every step, epoch and score, and all trained
tensors, bit for bit.
"""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lorastudy.store.folders import RunFolder
from support.reference_runs import Reference, make_reference
from support.reliability_rows import Row, count_failures
from support.tiny_runs import (
    ARMS,
    KILLED,
    PAPER,
    POINTS,
    SOUND,
    Case,
    assert_same_run,
    in_child,
    kill_at,
    make_study,
    write_texts,
)

PHASES = (
    "train:after-forward",
    "train:after-backward",
    "train:after-optimizer",
    "append:before-line",
    "run:after-step-line",
)  # passed in every step; the other points are passed at the end of an epoch or of the run


Hit = tuple[str, int]  # a point of the code, and how often it was passed before


def all_hits(reference: Reference) -> list[Hit]:
    """Every point with each of its hits, in no particular order."""
    return [(point, nth) for point in POINTS for nth in range(reference.points.count(point))]


def middle_hits(reference: Reference) -> list[Hit]:
    """Every point once, halfway through the run."""
    return [(point, (reference.points.count(point) - 1) // 2) for point in POINTS]


def train_reference(base: Path, parent: Path, arm: str, training: dict) -> Reference:
    rates = (2e-2,) if arm == "full" else ARMS[arm]["learning_rates"]  # so high that it overfits
    study = make_study(base, training, arm, arms=({**ARMS[arm], "learning_rates": rates},))
    case = Case(study, write_texts(parent / "texts"), parent / "cache")
    return make_reference(case, parent)


@pytest.fixture(scope="module")
def references(flat_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    return {
        f"{arm}-{name}": train_reference(
            flat_gpt2, tmp_path_factory.mktemp(f"{arm}-{name}"), arm, training
        )
        for arm in ("lora", "full")
        for name, training in (
            ("sound", SOUND),
            ("paper", PAPER),
            ("reference", {**SOUND, "implementation": "reference"}),
        )
    }


def kill_at_all(reference: Reference, parent: Path, hits: Iterable[Hit]) -> dict[Hit, RunFolder]:
    """What a kill at each of `hits` leaves behind, each in a folder of its own.

    One run is executed. At each hit a fork of it is killed, and its folder copied as it is then.
    """
    wanted, seen = set(hits), Counter[str]()
    left = {hit: reference.case.folder(parent, "{}.{}".format(*hit)) for hit in wanted}
    running = reference.case.folder(parent, "running")

    def handler(point: str, _stop: object) -> None:
        hit = point, seen[point]
        seen[point] += 1
        if hit in wanted:
            assert in_child(die if seen[point] % 2 else leave) in (KILLED, -signal.SIGKILL)
            shutil.copytree(running.path, left[hit].path)

    assert reference.case.child(running, handler) == 0
    assert all(folder.path.is_dir() for folder in left.values())
    return left


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(KILLED)


def trial(reference: Reference, folder: RunFolder, again: Hit | None = None) -> Callable[[], None]:
    """Resume a killed run, which is killed once more at `again`; finish it; compare; tidy up."""

    def carry_out() -> None:
        if again is not None:
            code = reference.case.child(folder, kill_at(*again))
            assert code in (KILLED, 0), code  # there may be fewer hits left
        if folder.read_result() is None:
            reference.case.execute_with(folder, None)
        assert_same_run(reference.folder, folder)
        shutil.rmtree(folder.path)

    return carry_out


def trials(reference: Reference, parent: Path, hits: Iterable[Hit]) -> list[Callable[[], None]]:
    """A trial of a run that is killed once, for each of `hits`."""
    name = reference.case.spec.run_id
    left = kill_at_all(reference, parent / name, hits)
    return [trial(reference, folder) for folder in left.values()]


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
    sound = references["lora-sound"]
    hits = all_hits(sound)
    chosen = {
        "lora-sound": hits,
        "lora-paper": all_hits(references["lora-paper"])[::3],
        "lora-reference": middle_hits(references["lora-reference"]),
    }
    once = [
        one for name, some in chosen.items() for one in trials(references[name], tmp_path, some)
    ]
    killed = kill_at_all(sound, tmp_path / "twice", hits[::4])
    twice = [
        trial(sound, killed[hit], hits[(28 * place) % len(hits)])
        for place, hit in enumerate(hits[::4])
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
    found = []
    for name in ("full-sound", "full-paper", "full-reference"):
        found += trials(references[name], tmp_path / name, middle_hits(references[name]))
    for name in ("full-sound", "full-paper"):
        points = references[name].points
        hits = [(phase, (points.count(phase) - 1) // 3) for phase in PHASES]
        killed = kill_at_all(references[name], tmp_path / name / "twice", hits)
        found += [
            trial(references[name], folder, ("run:after-step-line", 1))
            for folder in killed.values()
        ]
    failed = count_failures(found)
    row.show(f"{len(found) - failed} of {len(found)} equal, {2 * len(PHASES)} of them twice")
    assert len(found) >= 20 and failed == 0
