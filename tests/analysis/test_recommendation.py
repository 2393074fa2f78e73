"""Every rule of a recommendation, and every caveat, with numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorastudy.analysis.caveats import find_caveats
from lorastudy.analysis.evidence import Evidence
from lorastudy.analysis.findings import Findings, make_findings
from lorastudy.analysis.recommendation import Recommendation, recommend
from lorastudy.config.study_file import preset_text
from lorastudy.report.page.describe import describe_study
from lorastudy.report.page.doubts import state_caveat
from lorastudy.report.page.integrity import build_digest_table, list_warnings
from lorastudy.report.tables.table1 import build_table1
from lorastudy.store.counts import Overlap, TextCounts
from lorastudy.store.locks import StudyLock
from support.made_results import make_epochs, make_failed_run
from support.made_studies import make_study, on_tests

EQUAL = {"lora-1": 20.004, "lora-2": 20.002, "full": 20.0}
CLOSE = {"lora-1": 0.001, "lora-2": 0.0, "full": 0.002}  # documents by which no two are separated


def decide(folder: Path, *args: Any, **kwargs: Any) -> tuple[Recommendation, str]:
    found = recommend(make_study(folder, *args, **kwargs))
    return found, found.step.write_command()


def test_of_arms_shown_to_be_as_good_the_cheapest_lora_is_recommended(tmp_path: Path) -> None:
    found, command = decide(tmp_path, EQUAL, validation={"lora-2": 2.0}, spread=CLOSE)
    assert {test.pair.verdict for test in found.tests} <= {"equivalent", "lower", "higher"}
    assert all(test.pair.is_equivalent for test in found.tests)
    assert (found.outcome, found.recommended, found.reference) == ("LoRA", "lora-1", "full")
    assert command == "lorastudy export DIR lora-1 --to MODEL"


def test_a_cheaper_lora_that_is_worse_than_the_best_lora_is_not_recommended(
    tmp_path: Path,
) -> None:
    arms = {"lora-1": 20.0, "lora-2": 15.0, "full": 20.001}
    found, _ = decide(tmp_path, arms, validation={"lora-2": 2.0}, spread=CLOSE)
    assert (found.outcome, found.recommended) == ("LoRA", "lora-2")


def test_full_is_recommended_if_every_lora_is_worse(tmp_path: Path) -> None:
    arms = {"lora-1": 30.0, "lora-2": 25.0, "full": 20.0}
    found, command = decide(tmp_path, arms, validation={"lora-2": 2.0})
    assert (found.outcome, found.recommended, found.lora) == ("reference", "full", "lora-2")
    assert found.only_lora
    assert command == "lorastudy export DIR full --to MODEL"


def test_a_lora_that_is_open_keeps_the_question_open(tmp_path: Path) -> None:
    arms = {"lora-1": 40.0, "lora-2": 20.9, "full": 20.0}
    spread = {"lora-1": 0.0, "lora-2": 0.3, "full": 0.0}
    found, command = decide(tmp_path, arms, spread=spread)
    assert (found.outcome, found.recommended, found.lora) == ("open", None, "lora-2")
    assert {test.pair.verdict for test in found.tests} == {"not separated"}
    # documents, not seeds, make the error: more seeds do not help
    assert (found.step.kind, command) == ("add documents", "")


def test_an_open_pair_gets_the_seeds_that_its_most_demanding_test_needs(tmp_path: Path) -> None:
    arms = {"lora-1": 20.5, "lora-2": 40.0, "full": 20.0}
    found, command = decide(tmp_path, arms, wobble={"lora-1": 0.02, "lora-2": 0.02})
    needed = [t.pair.seeds_for_observed for t in found.tests if t.pair.verdict != "higher"]
    assert found.outcome == "open" and needed and None not in needed
    wanted = max(4, *(n for n in needed if n is not None))
    assert found.step.n_seeds == wanted
    assert command == f"lorastudy extend DIR --seeds {wanted - 3} && lorastudy run DIR"


def test_a_pair_that_needs_more_seeds_than_anybody_trains_asks_for_a_margin(tmp_path: Path) -> None:
    arms = {"lora-1": 20.5, "lora-2": 40.0, "full": 20.0}
    found, command = decide(tmp_path, arms, wobble={"lora-1": 0.1, "lora-2": 0.02})
    assert found.step.n_seeds is not None and found.step.n_seeds > 20
    assert found.step.n_more == found.step.n_seeds - 3
    assert command == "lorastudy decide DIR --margin NATS"


def test_better_on_one_test_and_worse_on_another_is_mixed(tmp_path: Path) -> None:
    arms = {
        "lora-1": on_tests(18, 30, 30),
        "lora-2": on_tests(18, 31, 31),
        "full": on_tests(20, 20, 20),
    }
    found, _ = decide(tmp_path, arms)
    assert (found.outcome, found.recommended) == ("mixed", None)


def test_one_seed_recommends_nothing_and_asks_for_three(tmp_path: Path) -> None:
    found, command = decide(tmp_path, {"lora-1": 30.0, "full": 20.0}, seeds=(0,))
    assert (found.outcome, found.recommended) == ("one seed", None)
    assert command == "lorastudy extend DIR --seeds 2 && lorastudy run DIR"


def test_two_seeds_of_two_arms_give_no_verdict_and_ask_for_a_third(tmp_path: Path) -> None:
    found, command = decide(tmp_path, {"lora-1": 30.0, "full": 20.0}, seeds=(0, 1))
    assert (found.outcome, found.recommended) == ("no verdict", None)
    assert {test.pair.reason for test in found.tests} == {"too few seeds"}
    assert command == "lorastudy extend DIR --seeds 1 && lorastudy run DIR"


def test_nothing_is_recommended_that_is_worse_than_the_base_model(tmp_path: Path) -> None:
    arms = {"baseline": 15.0, "lora-1": 30.0, "lora-2": 31.0, "full": 20.0}
    found, _ = decide(tmp_path, arms)
    assert (found.outcome, found.recommended) == ("base model", None)


def test_without_validation_losses_an_arm_has_to_be_as_good_as_each_of_the_others(
    tmp_path: Path,
) -> None:
    elsewhere = {"method": "elsewhere", "epochs": (), "best_epoch": None, "learning_rate": None}
    arms = {"a": 15.0, "b": 15.003, "c": 20.0}
    runs = dict.fromkeys(arms, elsewhere)
    found, command = decide(tmp_path / "1", arms, runs=runs, spread={"a": 0.001})
    assert (found.outcome, found.recommended, found.reference) == ("LoRA", "a", "c")
    assert command == "" and found.step.is_elsewhere
    # a is cheaper, and b is shown to be better
    found, _ = decide(tmp_path / "2", {**arms, "a": 17.0}, runs=runs)
    assert (found.outcome, found.recommended) == ("LoRA", "b")
    # both are better than c, and not separated from each other
    wobble = {"a": 0.02, "b": 0.02}
    found, _ = decide(tmp_path / "3", {**arms, "b": 15.3}, runs=runs, wobble=wobble)
    assert (found.outcome, found.recommended) == ("open", None)
    assert {found.lora, found.reference} == {"a", "b"}


def test_without_full_the_largest_lora_is_the_reference(tmp_path: Path) -> None:
    arms = {"lora-1": 20.001, "lora-2": 30.0, "lora-3": 20.0}
    found, _ = decide(tmp_path, arms, spread={"lora-1": 0.001})
    assert (found.recommended, found.reference) == ("lora-1", "lora-3")


def test_one_trained_arm_is_nothing_to_compare(tmp_path: Path) -> None:
    found, command = decide(tmp_path, {"baseline": 30.0, "full": 20.0})
    assert (found.outcome, command) == ("nothing to compare", "lorastudy extend DIR --arm ARM.yaml")


def test_forgetting_and_padded_scores_are_no_tests(tmp_path: Path) -> None:
    found, _ = decide(tmp_path, {"lora-1": 30.0, "full": 20.0}, forgetting=("imdb",))
    assert [(t.key.benchmark, t.key.protocol) for t in found.tests] == [
        ("wikitext-2", "rows-text"),
        ("lambada", "rows-text"),
    ]


def test_runs_that_are_missing_come_before_anything_else(tmp_path: Path) -> None:
    study = make_study(tmp_path, {"lora-1": 30.0, "full": 20.0}, missing=("lora-1-s9-0123abcd",))
    step = recommend(study).step
    assert step.write_command("my study") == "lorastudy run 'my study'"


def test_costs_are_ratios_to_full_and_disturbed_seconds_are_left_out(tmp_path: Path) -> None:
    def memory(mib: int) -> dict[str, Any]:
        return {"peak_memory_bytes": {"allocated": mib * 2**20}, "train_seconds": mib / 10}

    fields = {"lora-1": memory(300), "full": memory(1000)}
    found = recommend(make_study(tmp_path / "a", {"lora-1": 20.0, "full": 20.0}, runs=fields))
    costs = {cost.name: cost.ratio for cost in found.costs}
    assert costs == pytest.approx(
        {
            "trained parameters": 0.5,
            "peak memory": 0.3,
            "stored size": 0.5,
            "training time": 0.3,
        }
    )
    fields["full"]["waited_share"] = 0.4
    found = recommend(make_study(tmp_path / "b", {"lora-1": 20.0, "full": 20.0}, runs=fields))
    assert "training time" not in {cost.name for cost in found.costs}


def caveats_of(findings: Findings) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    found = find_caveats(findings, recommend(findings))
    return {caveat.kind: (caveat.names, caveat.where) for caveat in found}


def test_settings_that_were_not_searched_are_caveats(tmp_path: Path) -> None:
    epochs = {"epochs": make_epochs((3.0, 2.0)), "best_epoch": 2, "waited_share": 0.4}
    study = make_study(tmp_path, {"lora-1": 30.0, "full": 20.0}, runs={"full": epochs})
    assert caveats_of(study) == {
        "disturbed seconds": (("full",), ()),
        "one rate": (("lora-1", "full"), ()),
        "last epoch": (("full",), ()),
    }


def test_a_rate_at_the_edge_of_its_list_is_a_caveat(tmp_path: Path) -> None:
    study = make_study(tmp_path, {"lora-1": 30.0, "full": 20.0})
    others = [
        run.model_copy(
            update={
                "run_id": f"{run.run_id}-x",
                "learning_rate": 3e-3,
                "epochs": make_epochs((9.0,)),
            }
        )
        for run in study.results.runs
        if run.arm == "full"
    ]
    results = study.results.model_copy(update={"runs": (*study.results.runs, *others)})
    found = caveats_of(make_findings(results, tmp_path))
    assert found["rate at the edge"] == (("full",), ())
    assert found["one rate"] == (("lora-1",), ())


def test_losses_above_the_base_model_and_above_chance_are_caveats(tmp_path: Path) -> None:
    arms = {"baseline": 25.0, "lora-1": 30.0, "lora-2": 31.0, "full": 20.0}
    best = tmp_path / "runs" / "full-s0-0123abcd" / "best"
    best.mkdir(parents=True)
    (best / "config.json").write_text('{"vocab_size": 61}')  # lambada has twice the perplexity
    found = caveats_of(make_study(tmp_path, arms, forgetting=("imdb",)))
    assert found["above baseline"] == (("lora-1", "lora-2"), ("wikitext-2", "lambada"))
    assert found["above uniform loss"] == (("lora-2",), ("lambada",))


def test_an_arm_that_is_not_separated_from_the_base_model_is_not_called_above_it(
    tmp_path: Path,
) -> None:
    arms = {"baseline": 20.0, "lora-1": 20.5, "lora-2": 40.0, "full": 15.0}
    study = make_study(tmp_path, arms, wobble={"lora-1": 0.02})
    for comparison in study.comparisons:
        pair = comparison.find_pair("lora-1", "baseline")
        assert pair is not None and pair.verdict == "not separated" and (pair.mean or 0) > 0
    assert caveats_of(study)["above baseline"][0] == ("lora-2",)


def test_a_recommended_arm_that_is_not_separated_from_the_base_model_is_a_caveat(
    tmp_path: Path,
) -> None:
    arms = {"baseline": on_tests(20.004, 50, 70), **EQUAL}
    study = make_study(tmp_path, arms, spread=CLOSE)
    assert recommend(study).recommended is not None
    found = caveats_of(make_study(tmp_path, arms, spread=CLOSE))
    assert found["not above base"] == ((recommend(study).recommended,), ("wikitext-2",))


def test_failed_and_incomplete_arms_are_caveats(tmp_path: Path) -> None:
    study = make_study(tmp_path, {"lora-1": 30.0, "lora-2": 31.0, "full": 20.0})
    runs = [r for r in study.results.runs if (r.arm, r.seed) != ("lora-2", 2)]
    results = study.results.model_copy(update={"runs": (*runs, make_failed_run("lora-2", 2, "x"))})
    found = caveats_of(make_findings(results, tmp_path))
    assert found["incomplete arms"] == (("lora-2",), ())
    assert found["failed runs"] == ((), ())


def test_a_training_set_that_was_cut_is_a_caveat(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(preset_text("demo"))
    study = make_study(tmp_path, {"lora-1": 30.0, "full": 20.0})
    (caveat,) = (c for c in find_caveats(study, recommend(study)) if c.kind == "cut training data")
    assert caveat.value == 280


def test_the_same_text_under_two_names_is_a_caveat(tmp_path: Path) -> None:
    study = make_study(tmp_path, {"lora-1": 30.0, "full": 20.0})
    corpora = {"train": "a", "validation": "b", "x--rows-text": "b", "y--rows-text": "c"}
    lock = StudyLock.model_construct(corpora=corpora)
    leaking = replace(study, evidence=Evidence(study.evidence.runs, lock))
    assert caveats_of(leaking)["leaking text"] == (("validation", "x"), ())


def test_lost_unknown_and_repeated_texts_are_caveats_and_stand_in_the_list_of_texts(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path, {"lora-1": 30.0, "full": 20.0})
    texts = {
        "train": TextCounts(20, 10_000, 7_600, 0),
        "validation": TextCounts(4, 100, 4, 0),  # too little to be named
        "x--rows-text": TextCounts(3, 50, 0, 25),
        "y--rows-text": TextCounts(3, 50, 0, 0, n_letters=40, n_altered=1),
    }
    lock = StudyLock.model_construct(
        base_digest="b",
        tokenizer_digest="t",
        corpora=dict.fromkeys(texts, "a") | {"train": "b", "validation": "c"},
        texts=texts,
        overlap=(Overlap(None, 2, 4), Overlap("x", 0, 3), Overlap("y", 1, 3)),
    )
    lossy = replace(study, evidence=Evidence(study.evidence.runs, lock))
    caveats = [c for c in find_caveats(lossy, recommend(lossy)) if c.kind.endswith("text")]
    assert [(c.kind, c.names, c.value) for c in caveats] == [
        ("truncated text", (), 0.76),
        ("unknown text", ("x",), 0.5),
        ("altered text", ("y",), 0.025),
        ("repeated text", ("validation",), 2),
        ("repeated text", ("y",), 1),
    ]
    assert state_caveat(caveats[0]).startswith(
        "76 % of the training text does not fit into the rows"
    )
    assert "changes up to 2.5 % of the letters of y" in state_caveat(caveats[2])
    table = build_digest_table(lossy.evidence)
    shown = {row[0].text: [cell.text for cell in row[1:5]] for row in table.rows}
    assert shown["train"] == ["20", "10,000", "76.0 %", "0.0 %"]
    assert shown["x--rows-text"] == ["3", "50", "0.0 %", "50.0 %"]
    said = {fact.label: fact.text for fact in describe_study(lossy)}
    assert said["training text"].startswith("20 documents, 10,000 tokens: 76.0 % in no row")


def test_damaged_runs_are_not_called_failed(tmp_path: Path) -> None:
    study = make_study(tmp_path, {"lora-1": 30.0, "lora-2": 31.0, "full": 20.0})
    runs = [
        make_failed_run("lora-2", r.seed, "changed").model_copy(update={"status": "damaged"})
        if r.arm == "lora-2"
        else r
        for r in study.results.runs
    ]
    findings = make_findings(study.results.model_copy(update={"runs": tuple(runs)}), tmp_path)
    found = caveats_of(findings)
    assert "damaged runs" in found and "failed runs" not in found
    assert recommend(findings).step.write_command() == "lorastudy run DIR --restart"
    (warning,) = (w for w in list_warnings(findings) if "in no mean" in w)
    assert warning.startswith("3 runs damaged, ")
    cells = [c.text for row in build_table1(findings).rows for c in row]
    assert "damaged" in cells and "failed" not in cells
