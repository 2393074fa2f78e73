"""Rows, micro-batches and optimizer steps against lists written out by hand."""

import json
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorastudy.data.steps import StepPlan, order_of_epoch

FIRST_GROUPS = ("full", "one")


def groups(plan: StepPlan) -> list[list[int]]:
    return [list(plan.group_of(step)) for step in range(1, plan.n_steps + 1)]


@st.composite
def plans(draw: st.DrawFn, first_groups: tuple[str, ...] = FIRST_GROUPS) -> StepPlan:
    micro_batch = draw(st.integers(1, 5))
    return StepPlan(
        n_rows=draw(st.integers(1, 60)),
        epochs=draw(st.integers(1, 4)),
        rows_per_step=micro_batch * draw(st.integers(1, 6)),
        micro_batch=micro_batch,
        first_group=draw(st.sampled_from(first_groups)),
        seed=draw(st.integers(0, 9)),
    )


def paper_plan(seed: int = 42) -> StepPlan:
    return StepPlan(23_767, 8, rows_per_step=70, micro_batch=14, first_group="one", seed=seed)


def test_full_groups_begin_anew_with_every_epoch() -> None:
    plan = StepPlan(13, 2, rows_per_step=10, micro_batch=2, first_group="full", seed=0)
    assert groups(plan) == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9, 10, 11], [12, 13]]
    assert [plan.epoch_of(i) for i in range(14)] == [1] * 7 + [2] * 7


def test_first_group_of_one_shifts_all_others_and_lets_them_span_epochs() -> None:
    plan = StepPlan(13, 2, rows_per_step=10, micro_batch=2, first_group="one", seed=0)
    assert groups(plan) == [[0], [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]


def test_group_of_one_steps_where_a_counter_from_zero_divides() -> None:
    plan = StepPlan(13, 2, rows_per_step=10, micro_batch=2, first_group="one", seed=0)
    assert [group[-1] for group in groups(plan)] == [0, 5, 10]


def test_step_after_the_last_holds_what_is_never_applied() -> None:
    plan = StepPlan(13, 2, rows_per_step=10, micro_batch=2, first_group="one", seed=0)
    assert plan.group_of(plan.n_steps + 1) == range(11, 14)


def test_last_micro_batch_of_an_epoch_may_be_short() -> None:
    plan = StepPlan(5, 2, rows_per_step=4, micro_batch=2, first_group="full", seed=0)
    assert [len(plan.rows_of(i)) for i in range(plan.n_micro_batches)] == [2, 2, 1, 2, 2, 1]


def test_published_run_takes_2717_optimizer_steps() -> None:
    # 23,767 = 1,697 x 14 + 9; 8 x 1,698 = 13,584; 1 + 13,583 // 5 = 1 + 2,716
    plan = paper_plan()
    assert plan.accumulation == 5
    assert plan.micro_batches_per_epoch == 1_698
    assert plan.n_micro_batches == 13_584
    assert plan.n_steps == 2_717
    assert len(plan.rows_of(1_697)) == 9


def test_published_run_leaves_out_three_micro_batches() -> None:
    plan = paper_plan()
    assert list(plan.group_of(2_717)) == [13_576, 13_577, 13_578, 13_579, 13_580]
    assert plan.group_of(2_718) == range(13_581, 13_584)


@given(plans())
def test_every_micro_batch_belongs_to_one_group(plan: StepPlan) -> None:
    all_groups = [plan.group_of(step) for step in range(1, plan.n_groups + 1)]
    assert all(all_groups)  # none is empty
    assert [index for group in all_groups for index in group] == list(range(plan.n_micro_batches))


@given(plans(first_groups=("one",)))
def test_group_of_one_applies_full_groups_only(plan: StepPlan) -> None:
    assert [len(group) for group in groups(plan)] == [1] + [plan.accumulation] * (plan.n_steps - 1)
    dropped = plan.n_micro_batches - sum(len(group) for group in groups(plan))
    assert 0 <= dropped < plan.accumulation


@given(plans())
def test_rows_of_an_epoch_are_a_permutation(plan: StepPlan) -> None:
    per_epoch = plan.micro_batches_per_epoch
    for epoch in range(1, plan.epochs + 1):
        indices = range((epoch - 1) * per_epoch, epoch * per_epoch)
        rows = np.concatenate([plan.rows_of(i) for i in indices])
        assert sorted(rows) == list(range(plan.n_rows))
        assert {plan.epoch_of(i) for i in indices} == {epoch}


@given(plans(first_groups=("full",)), st.data())
def test_sorted_cut_holds_the_rows_of_the_drawn_group(plan: StepPlan, data: st.DataObject) -> None:
    lengths = np.array(data.draw(st.lists(st.integers(1, 9), min_size=60, max_size=60)))
    for step in range(1, plan.n_steps + 1):
        drawn = [plan.rows_of(i) for i in plan.group_of(step)]
        cut = plan.sorted_rows(step, lengths)
        assert [len(rows) for rows in cut] == [len(rows) for rows in drawn]
        assert sorted(np.concatenate(cut)) == sorted(np.concatenate(drawn))
        assert np.all(np.diff(lengths[np.concatenate(cut)]) >= 0)


@given(plans(first_groups=("full",)), st.data())
def test_balanced_cut_holds_the_rows_of_the_drawn_group(
    plan: StepPlan, data: st.DataObject
) -> None:
    lengths = np.array(data.draw(st.lists(st.integers(1, 9), min_size=60, max_size=60)))
    for step in range(1, plan.n_steps + 1):
        group = plan.group_of(step)
        cut = plan.balanced_rows(step, lengths)
        assert len(cut) == len(group)
        drawn = np.concatenate([plan.rows_of(i) for i in group])
        assert sorted(np.concatenate(cut)) == sorted(drawn)
        tokens = [int(lengths[rows].sum()) for rows in cut]
        assert min(tokens) > 0 and max(tokens) - min(tokens) <= max(lengths[drawn])


def test_balanced_cut_on_paper() -> None:
    # 9 | 8 -> 9 | 8 5 -> 9 4 | 8 5 -> 9 4 | 8 5 3 is 13 and 16, or 9 4 3 and 8 5: ties go left
    plan = StepPlan(5, 1, rows_per_step=6, micro_batch=3, first_group="full", seed=0)
    lengths = np.array([3, 9, 4, 8, 5])
    cut = plan.balanced_rows(1, lengths)
    assert [lengths[rows].tolist() for rows in cut] == [[9, 4, 3], [8, 5]]


def test_order_differs_by_seed_and_by_epoch() -> None:
    orders = {tuple(order_of_epoch(seed, epoch, 50)) for seed in (0, 1) for epoch in (1, 2)}
    assert len(orders) == 4


@settings(max_examples=20)
@given(st.integers(0, 5), st.integers(1, 3))
def test_order_does_not_depend_on_how_the_epoch_is_cut(seed: int, epoch: int) -> None:
    cuts = [(6, 2, "full"), (8, 8, "full"), (9, 3, "one")]
    rows = []
    for rows_per_step, micro_batch, first_group in cuts:
        plan = StepPlan(31, 3, rows_per_step, micro_batch, first_group, seed)
        per_epoch = plan.micro_batches_per_epoch
        indices = range((epoch - 1) * per_epoch, epoch * per_epoch)
        rows.append(np.concatenate([plan.rows_of(i) for i in indices]).tolist())
    assert rows[0] == rows[1] == rows[2]


def test_order_is_the_same_in_another_process() -> None:
    code = (
        "import json; from lorastudy.data.steps import order_of_epoch; "
        "print(json.dumps(order_of_epoch(7, 3, 40).tolist()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "123"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(told.stdout) == order_of_epoch(7, 3, 40).tolist()


def test_order_that_is_kept_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        order_of_epoch(0, 1, 5)[0] = 3


@given(plans(), st.integers(1, 200))
def test_a_plan_that_ends_after_a_step_begins_as_one_without_end(plan: StepPlan, last: int) -> None:
    ended, longer = plan.until(last), plan.until(last + 50)
    assert ended.n_steps == ended.n_groups == last
    assert groups(ended) == groups(longer)[:last]
    assert ended.n_micro_batches == ended.group_of(last).stop
    # every epoch ends once, the last one with training
    ends = [i for i in range(ended.n_micro_batches) if ended.is_last_of_epoch(i)]
    assert [ended.epoch_of(i) for i in ends] == list(range(1, ended.epochs + 1))
    assert ends[-1] == ended.n_micro_batches - 1 and ended.ends_epoch(last)
    assert ended.count_ended_epochs(last) == ended.epochs
    if plan.first_group == "full":  # whole epochs are those of a plan without a last step
        whole = plan.until(plan.n_steps)
        assert (whole.epochs, whole.n_passes) == (plan.epochs, plan.n_passes)
        assert groups(whole) == groups(plan)


@given(plans(), st.fractions(0, 5, max_denominator=50))
def test_steps_within_a_part_of_an_epoch_are_as_many_as_possible(
    plan: StepPlan, epochs: Fraction
) -> None:
    steps = plan.count_steps_within(epochs)
    assert plan.until(steps + 1).epochs_until(steps + 1) > epochs
    rows = (
        sum(len(plan.rows_of(i)) for i in range(plan.until(steps).n_micro_batches)) if steps else 0
    )
    assert Fraction(rows, plan.n_rows) <= epochs
    if steps:
        assert plan.until(steps).epochs_until(steps) == Fraction(rows, plan.n_rows)
