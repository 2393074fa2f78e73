"""Every rule of a decision with numbers: limits, alternatives, losses, and what would change it."""

import math
import shlex
from pathlib import Path
from typing import Any

import pytest

from lorastudy.analysis.decision import Decision, at_margin, decide
from lorastudy.analysis.findings import Findings, make_findings
from lorastudy.analysis.limits import NO_LIMITS, Limits, read_limits, read_margin
from lorastudy.analysis.recommendation import recommend
from lorastudy.errors import ConfigError
from lorastudy.report.page.decision import (
    state_alternatives,
    state_limits,
    state_losses,
    state_margin,
)
from lorastudy.report.page.headline import state_headline
from lorastudy.report.page.verdict import state_verdict
from support.made_results import make_epochs
from support.made_studies import make_study, on_tests

GIB = 2**30
DRIVER = 500 * 2**20
APART = {"baseline": 40.0, "lora-1": 25.0, "lora-2": 22.0, "full": 20.0}
EQUAL = {"lora-1": 20.004, "lora-2": 20.002, "full": 20.0}
CLOSE = {"lora-1": 0.001, "lora-2": 0.0, "full": 0.002}


def costing(gib: float, seconds: float | None = 600.0) -> dict[str, Any]:
    return {
        "peak_memory_bytes": {"allocated": int(gib * GIB)},
        "train_seconds": seconds,
        "total_seconds": 3600.0,
    }


COSTS = {"lora-1": costing(1, 300.0), "lora-2": costing(2, 400.0), "full": costing(6, 900.0)}


def answer(decision: Decision) -> tuple[str, str | None]:
    return decision.outcome, decision.recommended


def answers(decision: Decision) -> dict[str, str | None]:
    return {other.option: other.found.recommended for other in decision.would_change}


def decide_again(findings: Findings, option: str, limits: Limits) -> Decision:
    """The decision with one option of the command line instead of what it was."""
    name, value = shlex.split(option) if option else ("", "")
    if name == "--margin":
        return decide(at_margin(findings, read_margin(value)), limits)
    given = {**limits.given, name[2:].replace("-", "_"): value} if name else {}
    return decide(findings, read_limits(**given))


def test_without_limits_the_decision_is_the_recommendation(tmp_path: Path) -> None:
    findings = make_study(tmp_path, APART, runs=COSTS)
    decision = decide(findings)
    assert decision.found == recommend(findings) == recommend(findings, NO_LIMITS)
    assert answer(decision) == ("reference", "full") and decision.gives_up == ()


def test_arms_that_need_more_memory_are_left_out_and_the_rules_choose_among_the_others(
    tmp_path: Path,
) -> None:
    findings = make_study(tmp_path, APART, runs=COSTS)
    decision = decide(findings, read_limits(device_memory="4GB"))
    (excess,) = decision.found.excesses
    assert (excess.arm, excess.needed, excess.allowed) == ("full", 6 * GIB + DRIVER, 4e9)
    # lora-2 has the most trained parameters of those that are left, and lora-1 is worse
    assert answer(decision) == ("reference", "lora-2")
    assert (decision.found.lora, decision.found.reference) == ("lora-1", "lora-2")
    assert not decision.found.only_lora  # the headline says "the best other arm"
    assert {t.pair.second for t in decision.gives_up} == {"full"}
    assert decision.gives_up[0].pair.mean == pytest.approx(math.log(22 / 20), abs=1e-4)
    assert answers(decision) == {"--device-memory 6.97GB": "full"}


def test_one_arm_that_keeps_the_limits_is_compared_with_the_base_model(tmp_path: Path) -> None:
    findings = make_study(tmp_path, APART, runs=COSTS)
    decision = decide(findings, read_limits(device_memory="2GB"))
    assert answer(decision) == ("only one", "lora-1")
    assert decision.found.reference == "baseline" and decision.found.costs == ()
    assert answers(decision) == {
        "--device-memory 2.68GB": "lora-2",
        "--device-memory 6.97GB": "full",
    }
    headline = state_headline(findings, decision.found.limits)
    assert "no other arm keeps the limits; its perplexity is 37 % lower" in headline


def test_the_one_arm_that_keeps_the_limits_may_be_worse_than_the_base_model(tmp_path: Path) -> None:
    findings = make_study(tmp_path, {**APART, "baseline": 24.0}, runs=COSTS)
    limits = read_limits(device_memory="2GB")
    assert answer(decide(findings, limits)) == ("base model", None)
    assert state_headline(findings, limits) == (
        "Keep the base model: lora-1 is worse than it on some test and better on none."
    )


def test_the_headline_says_which_arms_the_best_one_was_chosen_from(tmp_path: Path) -> None:
    study = make_study(
        tmp_path, APART, validation={"lora-2": 2.0}, runs=COSTS | {"full": costing(1)}
    )
    headline = state_headline(study, read_limits(device_memory="2GB"))
    assert headline.startswith(
        "Use full fine-tuning: among the arms that keep the limits, the best LoRA arm by "
        "validation loss, lora-1, has a perplexity 25 % higher"
    )
    assert "best LoRA arm by validation loss, lora-2," in state_headline(study)


def test_a_limit_that_leaves_the_answer_as_it_is_changes_nothing(tmp_path: Path) -> None:
    findings = make_study(tmp_path, EQUAL, spread=CLOSE, runs=COSTS)
    decision = decide(findings, read_limits(time="6min"))
    assert answer(decision) == ("only one", "lora-1")
    assert answer(decide(findings)) == ("LoRA", "lora-1") and decision.would_change == ()


def test_where_no_arm_keeps_the_limits_each_arm_says_what_it_would_take(tmp_path: Path) -> None:
    findings = make_study(tmp_path, APART, runs=COSTS)
    decision = decide(findings, read_limits(time="4min"))
    assert answer(decision) == ("none fits", None)
    assert [*answers(decision).items()] == [  # the least change first
        ("--time 5min", "lora-1"),
        ("--time 6.67min", "lora-2"),
        ("--time 15min", "full"),
    ]
    assert decision.found.step.kind == "relax limits"


def test_a_limit_holds_for_the_costliest_run_of_an_arm(tmp_path: Path) -> None:
    study = make_study(tmp_path, APART, runs=COSTS)
    runs = [
        run.model_copy(update={"train_seconds": 500.0})
        if run.run_id.startswith("lora-2-s1")
        else run
        for run in study.results.runs
    ]
    findings = make_findings(study.results.model_copy(update={"runs": tuple(runs)}), tmp_path)
    excesses = decide(findings, read_limits(time="450s")).found.excesses
    assert [(e.arm, e.needed) for e in excesses] == [("lora-2", 500.0), ("full", 900.0)]


def test_several_limits_are_all_kept_and_dropping_them_all_is_an_answer(tmp_path: Path) -> None:
    findings = make_study(tmp_path, APART, runs=COSTS)
    decision = decide(findings, read_limits(device_memory="4GB", size="9kB"))
    assert answer(decision) == ("only one", "lora-1")  # 8, 12 and 16 kB are stored
    assert {(e.arm, e.limit) for e in decision.found.excesses} == {
        ("lora-2", "size"),
        ("full", "device_memory"),
        ("full", "size"),
    }
    assert answers(decision) == {"--size 12kB": "lora-2", "": "full"}


def test_an_arm_whose_cost_is_not_known_is_left_out_and_a_limit_on_nothing_is_refused(
    tmp_path: Path,
) -> None:
    some = {**COSTS, "lora-2": costing(2, None)}
    findings = make_study(tmp_path / "a", APART, runs=some)
    decision = decide(findings, read_limits(time="1h"))
    assert [(e.arm, e.needed) for e in decision.found.excesses] == [("lora-2", None)]
    assert "its training time is not known" in state_limits(decision, findings)[0]
    # no value of the limit would let the arm in
    some["full"] = costing(6, None)
    findings = make_study(tmp_path / "c", APART, runs=some)
    assert answers(decide(findings, read_limits(time="1h"))) == {"": "full"}
    none = {name: costing(1, None) for name in COSTS}
    findings = make_study(tmp_path / "b", APART, runs=none)
    with pytest.raises(ConfigError, match="Leave --time out"):
        decide(findings, read_limits(time="1h"))
    with pytest.raises(ConfigError, match="role: forgetting"):
        decide(findings, read_limits(forget="0.1"))


def test_forgetting_is_limited_by_the_upper_end_of_its_interval(tmp_path: Path) -> None:
    arms = {"baseline": on_tests(40, 40, 40), "lora-1": on_tests(30, 30, 40.4)}
    arms |= {"lora-2": on_tests(25, 25, 44), "full": on_tests(20, 20, 48)}
    findings = make_study(tmp_path, arms, forgetting=("imdb",), spread={"lora-1": 0.02})
    (pair,) = (
        c.pair for c in findings.changes if c.role == "forgetting" and c.pair.first == "lora-1"
    )
    assert pair.mean is not None and pair.interval is not None
    assert pair.mean < 0.012 < pair.interval.high
    nothing = decide(findings, Limits(forget=0.0))
    assert {e.arm for e in nothing.found.excesses} == {"lora-1", "lora-2", "full"}
    within = decide(findings, Limits(forget=pair.interval.high))
    assert "lora-1" not in {e.arm for e in within.found.excesses}
    beyond = decide(findings, Limits(forget=(pair.mean + pair.interval.high) / 2))
    needed = {e.arm: e.needed for e in beyond.found.excesses}
    assert needed["lora-1"] == pair.interval.high and needed["full"] > math.log(48 / 40)


def test_arms_as_good_are_named_with_what_is_cheaper(tmp_path: Path) -> None:
    costs = {**COSTS, "lora-2": costing(0.9, 150.0)}
    findings = make_study(tmp_path, EQUAL, spread=CLOSE, validation={"lora-2": 2.0}, runs=costs)
    decision = decide(findings)
    assert answer(decision) == ("LoRA", "lora-1")
    (other,) = decision.as_good
    assert other.arm == "lora-2"
    ratios = {cost.name: cost.ratio for cost in other.cheaper}
    assert ratios == pytest.approx({"peak memory": 0.9, "training time": 0.5}, rel=1e-3)
    # an arm that does not keep a limit is not offered
    assert decide(findings, read_limits(size="5kB")).as_good == ()


def test_an_arm_that_is_only_not_separated_is_never_offered(tmp_path: Path) -> None:
    costs = {**COSTS, "lora-2": costing(0.9, 150.0)}
    arms, wobble = {**EQUAL, "full": 20.9}, {"lora-1": 0.01}
    findings = make_study(tmp_path, arms, runs=costs, wobble=wobble)
    decision = decide(findings)
    assert answer(decision) == ("LoRA", "lora-1")
    beside = [c.find_pair("lora-2", "lora-1") for c in findings.main]
    assert {pair.verdict for pair in beside if pair} == {"not separated"}
    assert decision.as_good == ()


def test_an_arm_that_is_only_better_on_some_test_is_not_called_as_good(tmp_path: Path) -> None:
    costs = {**COSTS, "lora-2": costing(0.9, 150.0)}
    arms = {"lora-1": on_tests(20, 20, 20), "lora-2": on_tests(15, 20.1, 20)}
    findings = make_study(
        tmp_path,
        arms | {"full": on_tests(25, 25, 25)},
        runs=costs,
        wobble={"lora-2": 0.02},
        validation={"lora-2": 4.0},
    )
    decision = decide(findings)
    assert answer(decision) == ("LoRA", "lora-1")
    (sentence,) = state_alternatives(decision, findings)
    assert sentence.startswith("Better than lora-1 on some test and worse on none: ")


def test_a_margin_that_is_not_the_studys_is_said_to_be_another(tmp_path: Path) -> None:
    findings = make_study(tmp_path, EQUAL, spread=CLOSE)
    assert state_margin(decide(findings)) == ()
    strict = at_margin(findings, 0.0001)
    assert all(not t.pair.is_equivalent for t in decide(strict).found.tests)
    assert "the study fixed 0.02 before its runs" in state_margin(decide(strict))[0]
    larger = answers(decide(strict))
    assert list(larger.values()) == ["lora-1"] and next(iter(larger)).startswith("--margin 0.00")


def test_an_open_question_says_how_many_seeds_and_how_long(tmp_path: Path) -> None:
    arms = {"lora-1": 20.5, "lora-2": 40.0, "full": 20.0}
    wobble = {"lora-1": 0.02, "lora-2": 0.02}
    findings = make_study(tmp_path, arms, wobble=wobble, runs=COSTS)
    step = decide(findings).found.step
    assert step.kind == "add seeds" and step.n_seeds is not None
    assert step.n_more == step.n_seeds - 3
    assert step.seconds == step.n_more * 3 * 3600.0  # an hour for each seed of three arms
    (next_step,) = (s for s in state_verdict(findings) if s.question == "What next?")
    assert (
        f"{step.n_more} more, which takes about {3 * step.n_more}:00:00" in next_step.sentences[-1]
    )
    assert f"--seeds {step.n_more}" in next_step.command


def test_weights_are_those_of_the_run_with_the_lowest_validation_loss(tmp_path: Path) -> None:
    study = make_study(tmp_path, APART, runs=COSTS)
    runs = [
        run.model_copy(update={"epochs": make_epochs((2.0,))})
        if run.run_id == "full-s2-0123abcd"
        else run
        for run in study.results.runs
    ]
    for run in runs:
        (tmp_path / "runs" / run.run_id / "best").mkdir()
    findings = make_findings(study.results.model_copy(update={"runs": tuple(runs)}), tmp_path)
    assert decide(findings).weights == "runs/full-s2-0123abcd/best"
    said = {s.question: s for s in state_verdict(findings, folder="studies/x")}
    assert "studies/x/runs/full-s2-0123abcd/best" in said["What next?"].sentences[0]


CASES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"perplexities": APART}, {"device_memory": "4GB"}),
    ({"perplexities": APART}, {"time": "1min"}),
    ({"perplexities": APART, "seeds": (0, 1)}, {"time": "6min", "size": "9kB"}),
    ({"perplexities": APART, "seeds": (0,)}, {"size": "9kB"}),
    ({"perplexities": EQUAL, "spread": CLOSE}, {"size": "10kB", "device_memory": "2GB"}),
    ({"perplexities": {**EQUAL, "full": 20.9}, "wobble": {"lora-1": 0.01}}, {}),
    ({"perplexities": {**EQUAL, "lora-1": 20.7}, "wobble": {"full": 0.003}}, {"time": "10min"}),
    ({"perplexities": APART, "forgetting": ("imdb",)}, {"forget": "0"}),
]


@pytest.mark.parametrize(("study", "given"), CASES)
def test_what_would_change_the_answer_does_and_each_answer_is_another(
    study: dict[str, Any], given: dict[str, str], tmp_path: Path
) -> None:
    findings, limits = make_study(tmp_path, runs=COSTS, **study), read_limits(**given)
    decision = decide(findings, limits)
    for other in decision.would_change:
        again = decide_again(findings, other.option, limits)
        assert answer(again) == (other.found.outcome, other.found.recommended), other.option
        assert answer(again) != answer(decision)
    # what an arm needs is enough for it, and nothing less is
    for excess in decision.found.excesses:
        assert excess.needed is not None
        own = decide(findings, limits.relax(excess.limit, excess.needed)).found.excesses
        assert (excess.arm, excess.limit) not in {(e.arm, e.limit) for e in own}


def test_what_is_given_up_is_said_with_its_word(tmp_path: Path) -> None:
    findings = make_study(tmp_path, APART, runs=COSTS)
    (sentence,) = state_losses(decide(findings, read_limits(device_memory="4GB")), findings)
    assert sentence.startswith(
        "The lowest loss on wikitext-2, lambada and imdb is that of full fine-tuning: "
        "lora-2 minus full is +0.09"
    )
    assert sentence.count("(worse)") == 3


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ({"device_memory": "0GB"}, "8GB"),
        ({"device_memory": "-1"}, "8GB"),
        ({"device_memory": "8"}, "8GB"),
        ({"time": "fast"}, "1.5h"),
        ({"time": "0s"}, "1.5h"),
        ({"time": math.inf}, "1.5h"),
        ({"size": -5}, "50MB"),
        ({"size": "1h"}, "50MB"),
        ({"forget": "-0.1"}, "0.02"),
        ({"forget": "nan"}, "0.02"),
    ],
)
def test_a_limit_that_is_no_amount_is_answered_with_its_form(
    given: dict[str, Any], form: str
) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(given)).replace('_', '-')} .*{form}"):
        read_limits(**given)


@pytest.mark.parametrize("margin", ["0", "-1", "fast", "inf", "1", 1.5])
def test_a_margin_is_between_zero_and_one(margin: str | float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        read_margin(margin)
