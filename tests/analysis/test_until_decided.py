"""What a study decides about its own runs, carried out on made records: nothing is trained."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from lorastudy.analysis.halving import MOST_EXTENSIONS, TriedRate
from lorastudy.analysis.looks import Look as Seen
from lorastudy.analysis.looks import list_looks, plan_looks, spent_by
from lorastudy.analysis.until_decided import SoFar, first_seeds, list_open, next_entries
from lorastudy.config.models import Study
from lorastudy.config.study_file import load_study, preset_text
from lorastudy.store.decisions import (
    Ask,
    Choose,
    End,
    Entry,
    Fate,
    Look,
    Plan,
    Search,
    Seeds,
    SeenPair,
    Stop,
    list_asks,
)
from lorastudy.study.until_decided import cover_decisions

PLAN = Plan(question="full-or-lora", most_seeds=10)
Fates = Callable[[str, int], Fate]  # of full beside a LoRA arm, with so many seeds


def load(*overrides: str) -> Study:
    return load_study(preset_text("demo"), "demo", ["seeds=[0]", *overrides])


@dataclass
class World:
    """Runs that end as soon as they are asked for; `loss` is that of a rate after an epoch."""

    study: Study
    fates: Fates = lambda arm, n_seeds: "separated"
    loss: Callable[[float, int], float] = lambda rate, epoch: abs(math.log(rate / 5e-3)) / epoch
    lost: frozenset[str] = frozenset()
    decisions: tuple[Entry, ...] = (PLAN,)
    least_seeds: int | None = None
    done: dict[str, Ask] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add(first_seeds(self.study, self.least_seeds))

    def add(self, *new: Entry) -> None:
        self.decisions += new
        self.study = cover_decisions(self.study, self.decisions)

    def judge(self, looks: tuple[Seen, ...], plan: Plan) -> tuple[SeenPair, ...]:
        assert looks[-1].significance > 0  # or it could separate nothing
        return tuple(
            SeenPair(
                benchmark="test",
                protocol="rows-text",
                first="full",
                second=arm,
                difference=-0.1,
                low=-0.2,
                high=0.0,
                fate=self.fate(arm, looks),
            )
            for arm in ("lora-1", "lora-2", "lora-3", "lora-4")
        )

    def fate(self, arm: str, looks: tuple[Seen, ...]) -> Fate:
        """As the last look found it that had both arms."""
        seen = [len(look.seeds or ()) for look in looks if {arm, "full"} <= (look.arms or set())]
        fate = self.fates(arm, seen[-1]) if seen else "left"
        is_decided = fate in ("separated", "equivalent")
        return fate if is_decided or len(looks[-1].seeds or ()) in seen else "left"

    def so_far(self) -> SoFar:
        tried: dict[str, dict[float, TriedRate]] = {}
        finished: dict[str, set[int]] = {}
        for ask in list_asks(self.study, self.decisions):
            spec, name = ask.spec, ask.spec.arm.name
            n_epochs = self.epochs.get(spec.run_id, 0)
            if spec.seed in self.study.tuning_seeds:
                rate = spec.learning_rate or 0.0
                losses = tuple(self.loss(rate, epoch) for epoch in range(1, n_epochs + 1))
                failed = any(map(math.isnan, losses))
                tried.setdefault(name, {})[rate] = TriedRate(() if failed else losses, failed)
            elif n_epochs and name not in self.lost:
                finished.setdefault(name, set()).add(spec.seed)
        lost = frozenset(name for name in self.lost if self.epochs)
        sets = {arm: frozenset(seeds) for arm, seeds in finished.items()}
        return SoFar(self.study, self.decisions, tried, sets, lost)

    def decide(self) -> bool:
        """Take the decisions that are possible now, then execute what is asked for."""
        before = len(self.decisions), dict(self.epochs)
        while new := next_entries(self.so_far(), self.judge):
            self.add(*new)
        for ask in list_asks(self.study, self.decisions):
            self.epochs[ask.spec.run_id] = ask.until_epoch or ask.spec.training.epochs
        return before != (len(self.decisions), self.epochs)

    def run(self) -> tuple[Entry, ...]:
        while self.decide():
            pass
        return self.decisions

    def of(self, kind: type) -> list:
        return [entry for entry in self.decisions if isinstance(entry, kind)]

    def n_epochs(self, is_tuning: bool) -> int:
        seeds = self.study.tuning_seeds
        runs = {a.spec.run_id: a.spec for a in list_asks(self.study, self.decisions)}
        return sum(n for i, n in self.epochs.items() if (runs[i].seed in seeds) == is_tuning)


def searching(*rates: float, epochs: int = 8, **fields: object) -> World:
    """A study whose first LoRA arm has several rates and one tuning seed."""
    changes = (f"arms.lora-1.learning_rates={list(rates)}", "tuning_seeds=[100]")
    return World(load(*changes, f"training.epochs={epochs}"), **fields)  # type: ignore[arg-type]


# Looks


def test_looks_together_never_spend_more_than_five_per_cent() -> None:
    for first, most in ((2, 10), (3, 10), (2, 1000), (2, 2)):
        numbers = [first, *plan_looks(first, most)]
        assert numbers == sorted(set(numbers)) and numbers[-1] == most
        looks = list_looks((tuple(range(n)), ("full",)) for n in numbers)
        assert all(look.significance > 0 for look in looks)
        assert sum(look.significance for look in looks) == pytest.approx(spent_by(most))
        assert spent_by(most) < 0.05
    assert [2, *plan_looks(2, 10)] == [2, 3, 5, 8, 10]


def test_only_arms_of_open_pairs_get_more_seeds_and_the_study_ends_when_none_is_left() -> None:
    open_until = {"lora-1": 2, "lora-2": 5, "lora-3": 3, "lora-4": 2}
    world = World(load(), lambda arm, n: "open" if n < open_until[arm] else "separated")
    world.run()
    assert [(entry.n_seeds, entry.arms) for entry in world.of(Seeds)] == [
        (2, ("baseline", "full", "lora-1", "lora-2", "lora-3", "lora-4")),
        (3, ("full", "lora-2", "lora-3")),
        (5, ("full", "lora-2")),
    ]
    assert [entry.going for entry in world.of(Look)] == [
        ("full", "lora-2", "lora-3"),
        ("full", "lora-2"),
        (),
    ]
    assert world.decisions[-1] == End(why="decided")
    # the look has a part of the 5 % by the seeds that it saw
    spent = sum(entry.significance for entry in world.of(Look))
    assert spent == pytest.approx(spent_by(5))


def test_a_study_that_stays_open_ends_with_the_seeds_it_is_allowed_and_may_get_more() -> None:
    world = World(load(), lambda arm, n: "open" if arm == "lora-2" else "equivalent")
    world.run()
    assert world.decisions[-1] == End(why="most seeds")
    assert [entry.n_seeds for entry in world.of(Seeds)] == [2, 3, 5, 8, 10]
    assert len(world.study.seeds) == 10
    ended = world.decisions
    assert world.run() == ended  # the same command again does nothing
    world.decisions += (PLAN.model_copy(update={"most_seeds": 14}),)
    world.run()
    assert world.of(Seeds)[-1] == Seeds(arms=("full", "lora-2"), n_seeds=14)
    assert sum(entry.significance for entry in world.of(Look)) < 0.05


def test_a_first_look_that_was_put_off_spends_what_its_seeds_allow() -> None:
    world = World(load(), lambda arm, n: "open" if n < 8 else "separated", least_seeds=4)
    world.run()
    assert [entry.n_seeds for entry in world.of(Seeds)] == [4, 6, 9]
    assert world.of(Look)[0].significance == pytest.approx(spent_by(4))
    assert (
        first_seeds(world.study, 1)
        == first_seeds(world.study)
        == world.of(Seeds)[0].model_copy(update={"n_seeds": 2})
    )


def test_what_is_out_of_reach_gets_no_seeds_and_keeps_that_word() -> None:
    fates: dict[str, Fate] = {"lora-1": "out of reach", "lora-2": "equivalent"}
    world = World(load(), lambda arm, n: fates.get(arm, "open" if n < 5 else "separated"))
    world.run()
    first, *_, last = world.of(Look)
    assert first.going == ("full", "lora-3", "lora-4")
    assert {pair.second: pair.fate for pair in last.pairs}["lora-1"] == "out of reach"
    assert world.decisions[-1] == End(why="out of reach")


def test_more_seeds_bring_what_was_out_of_reach_of_fewer_into_reach() -> None:
    def fate(arm: str, n_seeds: int) -> Fate:
        most = [entry.most_seeds for entry in world.of(Plan)][-1]
        return "separated" if n_seeds >= 5 else "open" if most > 3 else "out of reach"

    world = World(load(), fate, decisions=(PLAN.model_copy(update={"most_seeds": 3}),))
    world.run()
    assert world.decisions[-1] == End(why="out of reach")
    world.decisions += (PLAN,)
    world.run()
    assert [entry.n_seeds for entry in world.of(Seeds)] == [2, 3, 5]
    assert sum(entry.significance for entry in world.of(Look)) == pytest.approx(spent_by(5))
    assert world.decisions[-1] == End(why="decided")


def test_one_lora_arm_that_beats_full_fine_tuning_answers_the_question() -> None:
    world = World(load(), lambda arm, n: "separated" if arm == "lora-3" else "open")
    plain = world.judge
    world.judge = lambda looks, plan: tuple(  # type: ignore[method-assign]
        pair.model_copy(update={"difference": 0.1}) for pair in plain(looks, plan)
    )
    world.run()
    assert world.decisions[-1] == End(why="answered") and len(world.of(Look)) == 1
    # it answers nothing about where to put LoRA
    where = PLAN.model_copy(update={"question": "where"})
    world.decisions = (where, first_seeds(world.study))
    world.run()
    assert world.decisions[-1] == End(why="most seeds")


def test_two_arms_are_open_until_a_test_separates_them_or_all_show_them_tied() -> None:
    def is_open(*fates: Fate) -> bool:
        pairs = [
            SeenPair(
                benchmark=f"test-{place}",
                protocol="rows-text",
                first="full",
                second="lora-1",
                difference=0.1,
                low=0.0,
                high=0.2,
                fate=fate,
            )
            for place, fate in enumerate(fates)
        ]
        return list_open(pairs) == [("full", "lora-1")]

    assert is_open("open", "open") and is_open("open", "equivalent")
    assert is_open("open", "out of reach")
    assert not is_open("open", "separated")  # better on one test, whatever the other will say
    assert not is_open("equivalent", "equivalent") and not is_open("out of reach", "equivalent")


def test_an_arm_whose_run_diverged_takes_no_further_part() -> None:
    world = World(load(), lost=frozenset({"lora-2"}))
    world.run()
    (look,) = world.of(Look)
    assert "lora-2" not in look.arms and "lora-1" in look.arms
    assert {pair.second: pair.fate for pair in look.pairs}["lora-2"] == "left"


def test_two_arms_that_are_left_get_the_seeds_that_a_verdict_on_two_needs() -> None:
    world = World(load(), lost=frozenset({"lora-2", "lora-3", "lora-4"}))
    world.run()
    assert world.of(Seeds)[-1] == Seeds(arms=("baseline", "full", "lora-1"), n_seeds=3)
    assert [len(entry.seeds) for entry in world.of(Look)] == [3]
    # but not if the question is about others
    alone = World(load(), lost=frozenset({"lora-1", "lora-2", "lora-3", "lora-4"}))
    alone.run()
    assert [entry.n_seeds for entry in alone.of(Seeds)] == [2]


def test_decisions_follow_from_records_so_a_killed_study_goes_on_as_if_it_were_not() -> None:
    whole = searching(
        1e-3, 5e-3, 2e-2, 1e-1, fates=lambda arm, n: "open" if n < 3 else "equivalent"
    )
    whole.run()
    for n_kept in range(2, len(whole.decisions)):
        again = searching(1e-3, 5e-3, 2e-2, 1e-1, fates=whole.fates)
        again.decisions = whole.decisions[:n_kept]
        again.study = cover_decisions(again.study, again.decisions)
        assert set(again.run()) == set(whole.decisions)
        assert again.study == whole.study


# Learning rates


def test_the_best_rate_is_found_with_fewer_epochs_than_all_rates_take() -> None:
    world = searching(1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
    world.run()
    (choice,) = world.of(Choose)
    assert (choice.rate, choice.is_at_edge) == (5e-3, False)
    # 5 rates for 2 epochs, 3 for 4, and the better 2 of these for 8, of 5 x 8
    assert [len(entry.rates) for entry in world.of(Search)] == [5, 3, 2]
    assert world.n_epochs(is_tuning=True) == 2 * 2 + 1 * 4 + 2 * 8
    assert {entry.rate for entry in world.of(Stop)} == {1e-3, 2e-3, 2e-2}
    # the reported runs have the chosen rate alone
    asks = list_asks(world.study, world.decisions)
    rates = {a.spec.learning_rate for a in asks if a.spec.arm.name == "lora-1" and a.spec.seed < 9}
    assert rates == {5e-3}


def test_a_list_whose_end_is_best_is_extended_by_its_own_ratio_a_few_times() -> None:
    world = searching(1e-4, 1e-3)
    world.run()
    added = [entry.rates for entry in world.of(Search) if entry.why == "edge"]
    assert added == [(1e-2,), (1e-1,)]
    assert world.of(Choose)[0].rate == 1e-2
    assert world.study.arms[2].learning_rates == (1e-4, 1e-3, 1e-2, 1e-1)
    far = searching(1e-6, 2e-6)
    far.run()
    assert sum(entry.why == "edge" for entry in far.of(Search)) == MOST_EXTENSIONS
    assert far.of(Choose)[0].is_at_edge


def test_rates_that_diverge_stop_and_an_arm_without_any_takes_no_part() -> None:
    some = searching(1e-3, 5e-3, 2e-2, loss=lambda rate, n: math.nan if rate > 1e-2 else rate / n)
    some.run()
    assert next(entry for entry in some.of(Stop) if entry.rate == 2e-2).loss is None
    # nor does one go on that is among the better half
    most = searching(
        1e-3, 5e-3, 2e-2, 1e-1, loss=lambda rate, n: 1e-3 / rate if rate < 2e-3 else math.nan
    )
    most.run()
    assert most.of(Choose)[0].rate == 1e-3
    assert all(max(entry.rates) == 1e-3 for entry in most.of(Search) if entry.why == "promoted")
    none = searching(1e-3, 5e-3, loss=lambda rate, n: math.nan)
    none.run()
    assert none.of(Choose)[0].rate is None
    assert "lora-1" not in none.of(Look)[0].arms and "lora-2" in none.of(Look)[0].arms


def test_a_rate_that_was_trained_further_is_compared_at_the_epoch_of_the_others() -> None:
    ahead = TriedRate((3.0, 2.0, 1.0))
    assert ahead.score(2) == 2.0 and ahead.score(1) == 3.0


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 7])
def test_a_search_ends_for_any_number_of_epochs(epochs: int) -> None:
    for rates in ((1e-3, 5e-3), (1e-3, 5e-3, 2e-2), (5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2e-2)):
        world = searching(*rates, epochs=epochs)
        world.run()
        assert world.of(Choose)[0].rate == 5e-3
        assert max(entry.until_epoch for entry in world.of(Search)) <= epochs
        assert isinstance(world.decisions[-1], End)
