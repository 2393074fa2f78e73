"""Two studies beside each other: whether one extends the other, and in what they differ.

A folder accepts a study file that extends the study which was started in it. For any other file,
the message lists the differences.
"""

import json
from collections.abc import Sequence

from lorastudy.config.differences import ABSENT, Difference, list_differences, show_value
from lorastudy.config.models import Arm, Benchmark, Study, Training

_Part = Arm | Benchmark


def extends(before: Study, after: Study) -> bool:
    """Whether `after` is `before` with further arms, seeds or learning rates, or equal to it.

    An arm that was trained elsewhere may have further weights, and a budget may be planned for
    further arms.

    No run of `before` changes then. Further seeds follow the known ones, since the baseline runs
    with the first seed; further arms may stand anywhere.
    """
    known = {arm.name: arm for arm in before.arms}
    arms = tuple(_as_before(arm, known[arm.name]) for arm in after.arms if arm.name in known)
    seeds = after.seeds[: len(before.seeds)]
    training = _plan_as_before(after.training, before.training)
    return after.model_copy(update={"arms": arms, "seeds": seeds, "training": training}) == before


def _plan_as_before(training: Training, before: Training) -> Training:
    """The training without what its budget was planned for since then."""
    now, known = training.budget, before.budget
    if now is None or known is None or not set(known.planned) <= set(now.planned):
        return training
    budget = now.model_copy(update={"planned": known.planned})
    return training.model_copy(update={"budget": budget})


def _as_before(arm: Arm, before: Arm) -> Arm:
    """The arm without learning rates, or weights at the end of the list, that were added to it."""
    added: dict[str, object] = {}
    if set(before.learning_rates) <= set(arm.learning_rates):
        added["learning_rates"] = before.learning_rates
    if arm.weights[: len(before.weights)] == before.weights:
        added["weights"] = before.weights
    return arm.model_copy(update=added)


def describe_difference(a: Study, b: Study) -> list[str]:
    """One line `key.path: old -> new` for everything that differs; empty if the two are equal.

    Arms and benchmarks are compared by name, and their order by itself. What different budgets
    mean for each arm follows from them, and is left out.
    """
    found = list(list_differences(_by_name(a), _by_name(b)))
    if any(each.path.startswith("training.budget.") and not _is_plan(each) for each in found):
        found = [each for each in found if not _is_plan(each)]
    lines = [f"{each.path}: {_shown(each.old)} -> {_shown(each.new)}" for each in found]
    for key in ("arms", "benchmarks"):
        old, new = _shared_order(getattr(a, key), getattr(b, key))
        if old != new:
            lines.append(f"{key}: order {', '.join(old)} -> {', '.join(new)}")
    return lines


def _by_name(study: Study) -> dict[str, object]:
    plain = study.model_dump(mode="json")
    plain["training"]["schedule"].setdefault("rounding", "down")  # records leave it out
    for key in ("arms", "benchmarks"):
        plain[key] = {part.pop("name"): part for part in plain[key]}
    if budget := plain["training"].get("budget"):
        budget["planned"] = {part.pop("arm"): part for part in budget.get("planned", ())}
    return plain


def _is_plan(found: Difference) -> bool:
    return found.path.startswith("training.budget.planned.")


def _shown(value: object) -> str:
    return "(absent)" if value is ABSENT else show_value(value, _write_json)


def _write_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _shared_order(old: Sequence[_Part], new: Sequence[_Part]) -> tuple[list[str], list[str]]:
    """The names that both lists have, in the order of each."""
    old_names, new_names = [part.name for part in old], [part.name for part in new]
    shared = set(old_names) & set(new_names)
    return [n for n in old_names if n in shared], [n for n in new_names if n in shared]
