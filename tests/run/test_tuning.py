"""Learning rates chosen on tuning seeds: which runs there are, which rate, and what is reported."""

import json
import re
from pathlib import Path

import pytest

from lorastudy.analysis.findings import Findings, make_findings, read_findings
from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec, expand_study, list_runs_to_come
from lorastudy.config.study_file import extend_study, load_study, preset_text
from lorastudy.report.page.verdict import state_verdict
from lorastudy.report.tables.rates import build_rate_table
from lorastudy.report.tables.runs import build_run_table
from lorastudy.store.collect import collect_results, read_study
from lorastudy.store.files import write_record, write_text
from lorastudy.store.folders import StudyFolder
from lorastudy.store.rates import list_runs, read_rates
from lorastudy.store.records import RunResult
from lorastudy.study.conduct import take_stage
from support.command_line import Answer, without_page, write_study
from support.forked_studies import call_study
from support.made_results import make_epochs, make_failed_run, make_run

RATES = "arms.lora-1.learning_rates=[1e-3, 5e-3, 2e-2]"


def tuned(*overrides: str) -> Study:
    return load_study(preset_text("demo"), "demo", ["tuning_seeds=[7, 8]", RATES, *overrides])


def of(runs: tuple[RunSpec, ...], arm: str) -> list[tuple[float | None, int]]:
    return [(run.learning_rate, run.seed) for run in runs if run.arm.name == arm]


def end_run(folder: StudyFolder, spec: RunSpec, loss: float | None) -> None:
    """The run ended with a validation loss, or diverged."""
    fields = {"run_id": spec.run_id, "learning_rate": spec.learning_rate, "evaluations": ()}
    made = make_run(spec.arm.name, spec.seed, **fields, epochs=make_epochs((loss or 0.0,)))
    failed = make_failed_run(spec.arm.name, spec.seed, "loss is not a number.")
    result: RunResult = made if loss is not None else failed.model_copy(update=fields)
    run = folder.run(spec.run_id)
    write_record(run.result if loss is not None else run.failure, result)


def end_tuning(folder: StudyFolder, losses: dict[float, float | None]) -> None:
    for spec in expand_study(tuned()):
        if spec.arm.name == "lora-1":
            end_run(folder, spec, losses[spec.learning_rate])


def test_only_arms_with_several_rates_are_tuned_and_their_other_runs_follow() -> None:
    study = tuned()
    runs = expand_study(study)
    rates = (1e-3, 5e-3, 2e-2)
    assert of(runs, "lora-1") == [(rate, seed) for rate in rates for seed in (7, 8)]
    assert of(runs, "full") == [(1e-3, seed) for seed in (0, 1, 2)]
    assert of(list_runs_to_come(study, {}), "lora-1") == [(1e-3, seed) for seed in (0, 1, 2)]
    # no test chooses a rate: tuning runs are not scored
    assert all((run.seed in (7, 8)) == (run.benchmarks == ()) for run in runs)
    chosen = expand_study(study, {"lora-1": 5e-3})
    assert of(chosen, "lora-1")[6:] == [(5e-3, seed) for seed in (0, 1, 2)]
    assert list_runs_to_come(study, {"lora-1": 5e-3}) == ()


def test_tuning_leaves_the_identity_of_every_run_alone() -> None:
    plain = {run.run_id for run in expand_study(load_study(preset_text("demo"), "demo", [RATES]))}
    reported = {run.run_id for run in expand_study(tuned(), {"lora-1": 5e-3}) if run.seed < 7}
    assert reported <= plain and len(reported) == 1 + 5 * 3


def test_the_rate_is_chosen_when_all_tuning_runs_of_the_arm_have_ended(tmp_path: Path) -> None:
    folder, study = StudyFolder(tmp_path), tuned()
    tuning = [run for run in expand_study(study) if run.arm.name == "lora-1"]
    losses = {1e-3: 3.3, 5e-3: 3.1, 2e-2: 3.2}
    for spec in tuning[:-1]:
        end_run(folder, spec, losses[spec.learning_rate])
        assert read_rates(study, folder) == {}
    end_run(folder, tuning[-1], losses[tuning[-1].learning_rate])
    assert read_rates(study, folder) == {"lora-1": 5e-3}
    assert of(list_runs(study, folder), "lora-1")[6:] == [(5e-3, s) for s in (0, 1, 2)]


def test_a_rate_that_diverged_loses_and_without_any_there_is_no_choice(tmp_path: Path) -> None:
    some, none = StudyFolder(tmp_path / "some"), StudyFolder(tmp_path / "none")
    end_tuning(some, {1e-3: 3.3, 5e-3: 3.1, 2e-2: None})
    assert read_rates(tuned(), some) == {"lora-1": 5e-3}
    end_tuning(none, dict.fromkeys((1e-3, 5e-3, 2e-2)))
    assert read_rates(tuned(), none) == {}


def test_runs_whose_rate_may_still_change_wait_for_the_tuning_runs() -> None:
    study = tuned()
    runs = expand_study(study, {"lora-1": 5e-3})
    missing = [run for run in runs if (run.arm.name, run.seed) in {("lora-1", 7), ("lora-1", 0)}]
    other = [run for run in runs if run.arm.name == "full"]
    assert take_stage([*missing, *other], study) == (*missing[:3], *other)
    assert take_stage(missing[3:], study) == tuple(missing[3:])


def test_added_seeds_leave_out_the_tuning_seeds() -> None:
    study = tuned("tuning_seeds=[3, 5]")
    assert extend_study(study, (), n_seeds=3).seeds == (0, 1, 2, 4, 6, 7)


# One study from its file to its report


@pytest.fixture(scope="module")
def carried_out(
    tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StudyFolder, Answer]:
    file = write_study(tmp_path_factory.mktemp("tuning"), tiny_gpt2)
    text = file.read_text().replace("seeds: [0, 1]", "seeds: [0]\ntuning_seeds: [9]")
    text = text.replace("[1.0e-2]", "[1.0e-2, 1.0e-6]").replace("epochs: 2", "epochs: 1")
    text = re.sub(r"  - \{name: (baseline|full),.*\n", "", text)  # the shortest that can show it
    write_text(file, text)
    out = tmp_path_factory.mktemp("out") / "study"
    with without_page():
        answer = call_study("run", file, "--out", out, "--device", "cpu")
    return StudyFolder(out), answer


def test_one_command_tunes_and_then_trains_the_chosen_rate(
    carried_out: tuple[StudyFolder, Answer],
) -> None:
    folder, answer = carried_out
    assert answer.code == 0, answer.err
    assert "2 of 2 runs to execute" in answer.out
    assert "1 more run will follow, at the learning rates that these runs choose" in answer.out
    results = collect_results(folder)
    assert results.tuning_seeds == (9,) and not results.missing
    of_lora = [(run.learning_rate, run.seed) for run in results.runs if run.arm == "lora"]
    assert of_lora == [(1e-2, 9), (1e-6, 9), (1e-2, 0)]
    for run in results.runs:
        assert (run.evaluations == ()) == (run.seed == 9)


def test_the_report_counts_what_tuning_cost_and_scores_reported_seeds_alone(
    carried_out: tuple[StudyFolder, Answer],
) -> None:
    folder, _ = carried_out
    findings = read_findings(folder.path)
    (lora,) = (arm for arm in findings.arms if arm.arm == "lora")
    assert [run.seed for run in lora.runs] == [0] and [run.seed for run in lora.tuning] == [9, 9]
    assert (lora.learning_rate, lora.n_expected) == (1e-2, 3)
    costs = next(s for s in state_verdict(findings) if s.question == "At what cost?")
    assert costs.sentences[-1].startswith("Choosing the learning rates took 2 more runs (0:00:")
    details = [(row[2].text, row[2].detail) for row in build_run_table(findings).rows]
    assert details.count(("9", "tuning")) == 2 and ("0", "tuning") not in details
    shown = [row[3].detail for row in build_rate_table(findings).rows if row[0].text == "lora"]
    assert not any("of" in detail for detail in shown)  # every rate has all of its tuning seeds


def test_a_study_that_lacks_its_tuning_names_what_follows(
    carried_out: tuple[StudyFolder, Answer], tmp_path: Path
) -> None:
    study = read_study(carried_out[0])
    results = collect_results(carried_out[0])
    tuning = tuple(run.run_id for run in results.runs if run.seed == 9)
    open_results = results.model_copy(update={"runs": (), "missing": tuning})
    findings: Findings = make_findings(open_results)
    (lora,) = (arm for arm in findings.arms if arm.arm == "lora")
    assert (lora.n_missing, lora.is_tuned, lora.learning_rate) == (2 + len(study.seeds), True, None)
    assert "tuning_seeds" not in json.loads(
        results.model_copy(update={"tuning_seeds": ()}).model_dump_json()
    )
