"""The published study's claims: each answer follows from the study, or says why it cannot."""

import math
from pathlib import Path
from typing import Any

import pytest

from lorastudy.analysis.answers import Answer
from lorastudy.analysis.claims import CLAIMS, arms_in_role
from lorastudy.analysis.findings import make_findings
from lorastudy.analysis.summary import summarise_arms
from lorastudy.config.study_file import preset_text
from lorastudy.report.tables.claims import build_claim_table
from lorastudy.store.records import StudyResults
from support.made_results import make_epochs, make_evaluation, make_results, make_run, write_sums

MIB = 2**20
SIZES = {"full": 1000, "lora-1": 10, "lora-2": 20, "lora-3": 30}
NOISE = {"full": 0.0, "lora-1": 0.001, "lora-2": -0.002, "lora-3": 0.003}


def make_study(
    folder: Path,
    nats: dict[str, Any],
    *,
    seeds: tuple[int, ...] = (0, 1, 2),
    benchmarks: tuple[str, ...] = ("wikitext-2", "lambada"),
    **fields: Any,
) -> StudyResults:
    """Arms with `nats[arm]` (a number, or one a benchmark) and costs that follow their size."""
    runs = [
        make_run(
            arm,
            seed,
            method="full" if arm == "full" else "lora",
            trainable_parameters=SIZES[arm],
            evaluations=[
                make_evaluation(b, "rows-text", math.exp(_of(nats[arm], b) + 0.0001 * seed))
                for b in benchmarks
            ],
            epochs=make_epochs((3.0 + SIZES[arm] / 1000, 2.0)),
            train_seconds=100.0 + SIZES[arm] + 0.1 * seed * len(arm),
            peak_memory_bytes={"allocated": (100 + SIZES[arm]) * MIB},
        )
        for arm in nats
        for seed in seeds
    ]
    results = make_results(runs, arms=tuple(nats), seeds=seeds, benchmarks=benchmarks, **fields)
    write_sums(folder, results, lambda arm: NOISE[arm])
    return results


def _of(nats: float | dict[str, float], benchmark: str) -> float:
    return nats[benchmark] if isinstance(nats, dict) else nats


def answers_to(results: StudyResults, folder: Path, words: str) -> dict[str, Answer]:
    """By benchmark; "" is the whole study."""
    answers = make_findings(results, folder).answers
    return {a.key.benchmark if a.key else "": a for a in answers if words in a.claim.text}


ON_PAR, FAR, BETTER = "on par", "LoRA-1 is worse", "LoRA-2 is better"
NATS = {"full": 3.0, "lora-1": 3.3, "lora-2": 2.8, "lora-3": 3.0}


def test_every_claim_of_the_paper_is_answered(tmp_path: Path) -> None:
    results = make_study(tmp_path, NATS)
    answers = make_findings(results, tmp_path).answers
    assert {a.claim.text for a in answers} == {claim.text for claim in CLAIMS}


def test_a_claim_that_every_pair_shows_holds_with_figure_and_interval(tmp_path: Path) -> None:
    answer = answers_to(make_study(tmp_path, NATS), tmp_path, BETTER)["wikitext-2"]
    assert (answer.verdict, answer.pair) == ("holds", "lora-2 - full")
    assert answer.value == pytest.approx(-0.2)
    assert answer.interval.low < -0.2 < answer.interval.high < 0
    assert (answer.n_seeds, answer.n_documents) == (3, 10)


def test_the_opposite_does_not_hold_and_what_is_between_is_undecided(tmp_path: Path) -> None:
    worse = make_study(tmp_path / "a", NATS | {"lora-2": 3.2})
    equal = make_study(tmp_path / "b", NATS | {"lora-2": 3.0})
    assert answers_to(worse, tmp_path / "a", BETTER)["lambada"].verdict == "does not hold"
    assert answers_to(equal, tmp_path / "b", BETTER)["lambada"].verdict == "undecided"


def test_one_arm_that_is_worse_refutes_that_lora_is_on_par(tmp_path: Path) -> None:
    answer = answers_to(make_study(tmp_path, NATS), tmp_path, ON_PAR)["wikitext-2"]
    assert (answer.verdict, answer.pair) == ("does not hold", "lora-1 - full")
    assert answer.remark.startswith("2 of 3 pairs show it.")


def test_loras_within_the_margin_or_better_are_on_par(tmp_path: Path) -> None:
    results = make_study(tmp_path, NATS | {"lora-1": 3.005})
    assert answers_to(results, tmp_path, ON_PAR)["wikitext-2"].verdict == "holds"


def test_an_interval_that_reaches_beyond_the_margin_leaves_it_undecided(tmp_path: Path) -> None:
    results = make_study(tmp_path, {"full": 3.0, "lora-1": 2.99})
    write_sums(tmp_path, results, lambda arm: 0.1 if arm == "full" else 0.0)
    answer = answers_to(results, tmp_path, ON_PAR)["wikitext-2"]
    assert answer.interval.low < 0 < 0.02 < answer.interval.high
    assert answer.verdict == "undecided"


def test_transfer_is_asked_of_texts_of_other_kinds_only(tmp_path: Path) -> None:
    results = make_study(tmp_path, NATS)
    assert set(answers_to(results, tmp_path, FAR)) == {"lambada"}
    assert answers_to(results, tmp_path, FAR)["lambada"].verdict == "holds"


def test_with_a_study_file_other_kinds_of_text_are_other_sources(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(preset_text("demo"))
    names = ("python-reference", "docstrings", "licences")
    results = make_study(tmp_path, NATS, benchmarks=names)
    assert set(answers_to(results, tmp_path, FAR)) == {"docstrings", "licences"}


def test_a_better_transfer_of_the_smallest_placement_refutes_the_claim(tmp_path: Path) -> None:
    results = make_study(tmp_path, NATS | {"lora-1": 2.5})
    assert answers_to(results, tmp_path, FAR)["lambada"].verdict == "does not hold"


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    results = make_study(tmp_path, NATS, seeds=(0,))
    answers = make_findings(results, tmp_path).answers
    assert {a.verdict for a in answers} == {"undecided", "cannot be asked"}
    undecided = [a for a in answers if a.verdict == "undecided"]
    assert all("one seed: no claim about training" in a.remark for a in undecided)


def test_without_sums_by_document_scores_decide_nothing(tmp_path: Path) -> None:
    results = make_study(tmp_path, NATS)
    answer = answers_to(results, None, BETTER)["wikitext-2"]
    assert (answer.verdict, answer.interval) == ("undecided", None)
    assert "sums by document" in answer.remark


def test_lacking_arms_and_benchmarks_are_named(tmp_path: Path) -> None:
    nats = {"lora-1": 3.0, "lora-3": 2.9}
    results = make_study(tmp_path, nats, benchmarks=("wikitext-2",))
    far, on_par = (answers_to(results, tmp_path, words)[""] for words in (FAR, ON_PAR))
    assert (far.verdict, on_par.verdict) == ("cannot be asked", "cannot be asked")
    assert far.remark == "no benchmark of another source than the training data."
    assert on_par.remark == "no finished arm in the role of full."


def test_costs_are_compared_from_arm_to_arm_by_trained_parameters(tmp_path: Path) -> None:
    results = make_study(tmp_path, NATS)
    memory = answers_to(results, tmp_path, "Memory grows")[""]
    time = answers_to(results, tmp_path, "Training time grows")[""]
    assert (memory.verdict, time.verdict) == ("holds", "holds")
    assert (memory.pair, memory.value) == ("lora-2 - lora-1", 10.0)
    assert memory.unit == "MiB allocated"


def with_times(results: StudyResults, seconds: dict[str, float], **fields: Any) -> StudyResults:
    """The same with seconds of training, validation and checkpoints."""
    runs = [
        run.model_copy(
            update={"train_and_validate_seconds": seconds[run.arm] + 0.1 * run.seed, **fields}
        )
        for run in results.runs
    ]
    return results.model_copy(update={"runs": tuple(runs)})


def test_claims_about_time_are_asked_of_the_published_sum(tmp_path: Path) -> None:
    results = make_study(tmp_path, NATS)
    assert answers_to(results, tmp_path, "trains faster")[""].verdict == "holds"
    slower = with_times(results, {"full": 500.0, "lora-1": 501.0, "lora-2": 502.0, "lora-3": 503.0})
    answer = answers_to(slower, tmp_path, "trains faster")[""]
    assert (answer.verdict, answer.value) == ("does not hold", pytest.approx(3.0))
    assert "checkpoints (that of Figure 4)" in answer.claim.asked


def test_claims_about_disturbed_times_are_undecided(tmp_path: Path) -> None:
    seconds = {"full": 900.0, "lora-1": 501.0, "lora-2": 502.0, "lora-3": 503.0}
    results = make_study(tmp_path, NATS)
    quiet, busy = (with_times(results, seconds, waited_share=share) for share in (0.0, 0.5))
    assert answers_to(quiet, tmp_path, "trains faster")[""].verdict == "holds"
    answer = answers_to(busy, tmp_path, "trains faster")[""]
    assert answer.verdict == "undecided" and answer.remark.startswith("timing disturbed: ")
    equal = with_times(results, dict.fromkeys(seconds, 500.0), waited_share=0.5)
    answer = answers_to(equal, tmp_path, "trains faster")[""]
    assert answer.verdict == "undecided" and answer.remark.startswith("timing disturbed: ")


def test_a_step_down_refutes_that_a_cost_grows(tmp_path: Path) -> None:
    results = make_study(tmp_path, NATS)
    cheaper = [
        run.model_copy(update={"peak_memory_bytes": {"allocated": MIB}})
        if run.arm == "full"
        else run
        for run in results.runs
    ]
    results = results.model_copy(update={"runs": tuple(cheaper)})
    answer = answers_to(results, tmp_path, "Memory grows")[""]
    assert (answer.verdict, answer.pair) == ("does not hold", "full - lora-3")


def test_early_validation_loss_is_that_after_the_first_epoch(tmp_path: Path) -> None:
    answer = answers_to(make_study(tmp_path, NATS), tmp_path, "low validation loss sooner")[""]
    assert answer.verdict == "holds"
    assert answer.value == pytest.approx(0.03 - 1.0)  # lora-3 comes nearest to full


def test_roles_follow_methods_and_counts_and_names(tmp_path: Path) -> None:
    arms = summarise_arms(make_study(tmp_path, NATS))
    names = {
        role: [arm.arm for arm in arms_in_role(role, arms)]
        for role in ("full", "smallest LoRA", "other LoRAs", "every trained", "lora-3", "baseline")
    }
    assert names == {
        "full": ["full"],
        "smallest LoRA": ["lora-1"],
        "other LoRAs": ["lora-2", "lora-3"],
        "every trained": ["lora-1", "lora-2", "lora-3", "full"],
        "lora-3": ["lora-3"],
        "baseline": [],
    }


def test_claim_table_says_how_each_claim_is_asked(tmp_path: Path) -> None:
    results = make_study(tmp_path, NATS)
    table = build_claim_table(make_findings(results, tmp_path).answers)
    assert len(table.notes) == len(CLAIMS)
    assert {row[2].text for row in table.rows} >= {"holds", "does not hold", "cannot be asked"}
