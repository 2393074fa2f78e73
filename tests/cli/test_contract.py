"""Commands, files, keys and exit codes that scripts rely on (docs: the contract), end to end."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lorastudy.analysis.findings import read_findings
from lorastudy.config.models import Study
from lorastudy.config.syntax import LAYER_TYPES
from lorastudy.protocols import PROTOCOLS
from lorastudy.report.page.verdict import write_ending
from lorastudy.store.folders import RunFolder
from support.command_line import (
    Answer,
    assert_same_training,
    call,
    execute,
    lines_of,
    names_in,
    stamps,
    without_page,
)

N_STEPS = 6  # 10 rows by 4 are 3 steps an epoch
MODULES = ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]
FIGURES = (
    "fig1-trainable-parameters",
    "fig2-losses",
    "fig3-peak-memory",
    "fig4-training-time",
)


@dataclass(frozen=True)
class Finished:
    folder: Path
    command: tuple[object, ...]
    answer: Answer

    def run_folders(self, arm: str) -> list[Path]:
        return sorted((self.folder / "runs").glob(f"{arm}-s*"))


@pytest.fixture(scope="module")
def finished(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    command = ("run", study_file, "--out", folder, "--jobs", 2)
    answer = call(*command)
    assert answer.code == 0, answer.err
    return Finished(folder, command, answer)


# The folder


def test_a_study_folder_holds_the_files_of_the_contract(finished: Finished) -> None:
    names = {path.name for path in finished.folder.iterdir() if path.name[0] != "."}
    assert names == {"study.yaml", "study.lock.json", "runs", "results.json", "report"}
    runs = {path.name.rsplit("-", 1)[0] for path in (finished.folder / "runs").iterdir()}
    assert runs == {"baseline-s0", "full-s0", "full-s1", "lora-s0", "lora-s1"}


@pytest.mark.parametrize("arm", ["full", "lora"])
def test_a_run_folder_holds_the_files_of_the_contract(finished: Finished, arm: str) -> None:
    best = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}[arm]
    config = {"lora": "adapter_config.json", "full": "config.json"}[arm]
    for folder in finished.run_folders(arm):
        expected = {
            *("spec.json", "manifest.json", "steps.jsonl", "epochs.jsonl", "result.json"),
            *(f"best/{name}" for name in (best, config)),
            *(f"evaluations/tale--{name}.json" for name in ("rows-text", "paper-padded")),
            *(
                f"checkpoints/step-{step:08d}/{name}"
                for step in (3, 6)
                for name in (
                    "weights.safetensors",
                    "optimizer.safetensors",
                    "trainer.json",
                    "MANIFEST.json",
                )
            ),
        }
        assert expected <= names_in(folder)
        assert len(lines_of(folder / "steps.jsonl")) == N_STEPS
        assert [line["epoch"] for line in lines_of(folder / "epochs.jsonl")] == [1, 2]
        assert len(folder.name.rsplit("-", 1)[1]) == 8


def test_a_report_holds_the_files_of_the_contract(finished: Finished) -> None:
    expected = {"index.html", "table1.md", "table1.csv", "table1.tex"}
    expected |= {f"figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "png", "pdf")}
    report = finished.folder / "report"
    assert expected <= names_in(report)
    assert all((report / name).stat().st_size > 100 for name in expected)
    heads = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    for kind, head in heads.items():
        assert (report / f"figures/fig2-losses.{kind}").read_bytes().startswith(head)


def test_results_hold_the_keys_of_the_contract(finished: Finished) -> None:
    results = json.loads((finished.folder / "results.json").read_text())
    assert [(run["arm"], run["seed"], run["status"]) for run in results["runs"]] == [
        ("baseline", 0, "done"),
        ("full", 0, "done"),
        ("full", 1, "done"),
        ("lora", 0, "done"),
        ("lora", 1, "done"),
    ]
    run = results["runs"][-1]
    assert {
        *("arm", "seed", "learning_rate", "status", "trainable_parameters", "total_parameters"),
        *("best_epoch", "epochs", "train_seconds", "total_seconds", "peak_memory_bytes"),
        "evaluations",
    } <= run.keys()
    assert {"epoch", "train_loss", "validation_loss"} <= run["epochs"][0].keys()
    assert {
        *("benchmark", "protocol", "cross_entropy", "perplexity", "n_tokens", "n_documents"),
    } <= run["evaluations"][0].keys()
    assert [score["protocol"] for score in run["evaluations"]] == ["rows-text", "paper-padded"]
    assert (run["learning_rate"], run["trainable_parameters"]) == (0.01, 2 * 2 * (32 + 96))
    assert all(count > 0 for count in run["peak_memory_bytes"].values())


def test_seeds_give_different_runs_and_arms_of_a_seed_see_the_same_tokens(
    finished: Finished,
) -> None:
    tokens = {
        folder.name.rsplit("-", 1)[0]: [s["n_tokens"] for s in lines_of(folder / "steps.jsonl")]
        for arm in ("full", "lora")
        for folder in finished.run_folders(arm)
    }
    assert tokens["full-s0"] == tokens["lora-s0"] != tokens["lora-s1"]


# Reading a study


def test_a_run_ends_with_the_verdict_in_three_lines(finished: Finished) -> None:
    findings = read_findings(finished.folder, with_bootstrap=False)
    with without_page():
        lines = call("run", finished.folder).out.splitlines()
    assert tuple(lines[-3:]) == write_ending(findings, str(finished.folder))
    assert lines[-1].startswith("Next: ")


def test_padded_scores_are_printed_on_request(finished: Finished) -> None:
    assert call("table", finished.folder).out.count("Table I.") == 1
    assert call("table", finished.folder, "--padded").out.count("Table I.") == 2


@pytest.mark.parametrize(("format", "file"), [("md", "md"), ("csv", "csv"), ("latex", "tex")])
def test_table_prints_the_tables_of_the_report(finished: Finished, format: str, file: str) -> None:
    answer = call("table", finished.folder, "--format", format)
    assert answer.code == 0
    assert answer.out == (finished.folder / "report" / f"table1.{file}").read_text()


def test_table_as_json_is_the_results_file(finished: Finished) -> None:
    answer = call("table", finished.folder, "--format", "json")
    assert answer.out == (finished.folder / "results.json").read_text()


def test_status_as_json_names_every_run(finished: Finished) -> None:
    answer = call("status", finished.folder, "--json")
    assert answer.code == 0
    runs = json.loads(answer.out)["runs"]
    assert {*("run_id", "arm", "seed", "status", "epoch", "step", "reason")} <= runs[0].keys()
    assert [(run["arm"], run["status"], run["epoch"], run["step"]) for run in runs] == [
        ("baseline", "done", None, None),
        *[("full", "done", 2, N_STEPS)] * 2,
        *[("lora", "done", 2, N_STEPS)] * 2,
    ]


def test_check_as_json_describes_every_arm(study_file: Path) -> None:
    answer = call("check", study_file, "--json")
    assert answer.code == 0, answer.err
    arms = {arm["name"]: arm for arm in json.loads(answer.out)["arms"]}
    assert list(arms) == ["baseline", "full", "lora"]
    assert {
        *("name", "method", "trainable_parameters", "total_parameters", "modules"),
        *("optimizer_steps", "warmup_steps", "predicted_peak_bytes", "fits"),
    } <= arms["lora"].keys()
    lora, full, baseline = arms["lora"], arms["full"], arms["baseline"]
    assert lora["modules"] == MODULES
    assert lora["trainable_parameters"] == 512
    assert full["trainable_parameters"] == full["total_parameters"]
    assert lora["total_parameters"] == full["total_parameters"] + 512
    assert (lora["optimizer_steps"], baseline["optimizer_steps"]) == (N_STEPS, 0)
    assert lora["fits"] is True


def test_check_counts_what_a_run_then_has(finished: Finished, study_file: Path) -> None:
    arms = json.loads(call("check", study_file, "--json").out)["arms"]
    results = json.loads((finished.folder / "results.json").read_text())["runs"]
    for arm in arms:
        for run in (run for run in results if run["arm"] == arm["name"]):
            for key in ("trainable_parameters", "total_parameters", "optimizer_steps"):
                assert run[key] == arm[key], (arm["name"], key)


def test_report_is_rebuilt_from_the_run_folders_alone(finished: Finished, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.folder, copy)
    shutil.rmtree(copy / "report")
    (copy / "results.json").unlink()
    answer = call("report", copy)
    assert answer.code == 0, answer.err
    for name in ("results.json", "report/table1.md", "report/index.html"):
        assert (copy / name).read_bytes() == (finished.folder / name).read_bytes()


# Running again, in part, or changed


@pytest.mark.parametrize("by", ["command", "folder"])
def test_the_same_command_again_executes_nothing(finished: Finished, by: str) -> None:
    before = stamps(finished.folder / "runs")
    again = finished.command if by == "command" else ("run", finished.folder)
    with without_page():
        answer = call(*again)
    assert answer.code == 0
    assert "0 of 5 runs" in answer.out
    assert stamps(finished.folder / "runs") == before


def test_arm_seed_and_set_choose_what_is_executed(study_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "part"
    command = ("run", study_file, "--out", folder, "--set", "training.epochs=1")
    with without_page():
        answer = call(*command, "--arm", "lora", "--seed", "1")
    assert answer.code == 0, answer.err
    (run,) = (folder / "runs").iterdir()
    assert run.name.startswith("lora-s1-")
    assert [line["epoch"] for line in lines_of(run / "epochs.jsonl")] == [1]
    assert "epochs: 1" in (folder / "study.yaml").read_text()
    statuses = {r["status"] for r in json.loads(call("status", folder, "--json").out)["runs"]}
    assert statuses == {"done", "missing"}


def test_an_edited_study_is_not_run_into_the_folder_of_another(
    finished: Finished, study_file: Path
) -> None:
    edited = study_file.with_name("edited.yaml")
    edited.write_text(study_file.read_text().replace("rank: 2", "rank: 3"))
    before = stamps(finished.folder)
    answer = call("run", edited, "--out", finished.folder)
    assert answer.code == 2
    assert "arms.lora.rank: 2 -> 3" in answer.err
    assert stamps(finished.folder) == before


def test_changed_data_is_not_mixed_into_a_started_study(
    finished: Finished, study_file: Path, tmp_path: Path
) -> None:
    shutil.copytree(study_file.parent, tmp_path / "moved")
    with (tmp_path / "moved" / "texts" / "train.txt").open("a") as stream:
        stream.write("\nOne more line.")
    answer = call("run", tmp_path / "moved" / "study.yaml", "--out", finished.folder)
    assert answer.code == 3
    assert "study.lock.json" in answer.err


# Exit codes


def test_an_unknown_preset_is_a_mistake_of_the_command() -> None:
    answer = execute("run", "paper-sond")
    assert answer.code == 2
    assert "'paper-sond'" in answer.err and "paper-sound" in answer.err
    assert "Traceback" not in answer.err


def test_a_mistyped_key_is_answered_with_the_right_one(study_file: Path, tmp_path: Path) -> None:
    wrong = study_file.with_name("wrong.yaml")
    wrong.write_text(study_file.read_text().replace("rank: 2", "rnak: 2"))
    answer = call("run", wrong, "--out", tmp_path / "out")
    assert answer.code == 2
    assert "arms.lora.rnak" in answer.err and "did you mean 'rank'" in answer.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (["run"], "--arm", "lroa"),
        (["run"], "--seed", "7"),
        (["run"], "--device", "tpu"),
        (["submit", "--engine", "slurm", "--print"], "--device", "tpu"),
    ],
)
def test_an_option_that_names_nothing_is_refused(
    study_file: Path, command: list[str], option: str, value: str, tmp_path: Path
) -> None:
    answer = call(*command, study_file, "--out", tmp_path / "out", option, value)
    assert answer.code == 2
    assert f"{option} {value}" in answer.err
    assert not (tmp_path / "out").exists()


def test_an_option_that_does_not_exist_is_refused() -> None:
    answer = call("run", "demo", "--epochs", "3")
    assert answer.code == 2
    assert "--epochs" in answer.err


def test_an_interrupt_before_training_begins_is_an_interrupt_too(
    study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lorastudy.study.start.check_study", interrupt)
    answer = call("run", study_file)
    assert answer.code == 75
    assert "again" in answer.err


def test_missing_data_is_an_error_of_the_input(study_file: Path, tmp_path: Path) -> None:
    command = ("--out", tmp_path / "out", "--set", "data.train.path=texts/tarin.txt")
    answer = call("run", study_file, *command)
    assert answer.code == 3
    assert "texts/tarin.txt" in answer.err and "Traceback" not in answer.err
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_an_error_of_the_input(
    study_file: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_gpt2, base)
    (base / "model.safetensors").unlink()
    answer = call("run", study_file, "--out", tmp_path / "out", "--set", f"base_model.path={base}")
    assert answer.code == 3
    assert str(base) in answer.err and "safetensors" in answer.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "command"),
    [(["export", "x"], "export "), (["run"], "run "), (["init", "-x"], "init "), (["rnu"], "")],
)
def test_a_mistake_of_usage_points_to_the_help(arguments: list[str], command: str) -> None:
    answer = call(*arguments)
    assert answer.code == 2
    assert f"  lorastudy {command}--help" in answer.err


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    answer = call("status", tmp_path)
    assert answer.code == 2
    assert str(tmp_path) in answer.err


def test_run_one_executes_a_run_and_leaves_a_finished_one_alone(
    finished: Finished, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.folder, copy)
    name = finished.run_folders("lora")[0].name
    shutil.rmtree(copy / "runs" / name)
    answer = call("run-one", copy, name, "--threads", 1)  # as all runs of the tests
    assert answer.code == 0, answer.err
    assert_same_training(
        RunFolder(finished.folder / "runs" / name), RunFolder(copy / "runs" / name)
    )
    before = stamps(copy / "runs")
    assert call("run-one", copy, name).code == 0
    assert stamps(copy / "runs") == before


def test_run_one_refuses_a_run_that_the_study_does_not_have(finished: Finished) -> None:
    answer = call("run-one", finished.folder, "lora-s9-00000000")
    assert answer.code == 2
    assert "lora-s9-00000000" in answer.err


# Scoring without a study


def scores_of(answer: Answer) -> dict[str, float]:
    assert answer.code == 0, answer.err
    return {e["protocol"]: e["sum_nats"] for e in json.loads(answer.out)["evaluations"]}


@pytest.mark.parametrize("arm", ["baseline", "lora"])
def test_evaluate_gives_the_score_of_the_run(
    finished: Finished, study_file: Path, tiny_gpt2: Path, arm: str
) -> None:
    run = finished.run_folders(arm)[0]
    adapter = ("--adapter", run / "best") if arm == "lora" else ()
    protocols = [part for name in ("rows-text", "paper-padded") for part in ("--protocol", name)]
    texts = study_file.parent / "texts" / "test.txt"
    answer = call(
        *("evaluate", tiny_gpt2, "--benchmark", texts, *protocols),
        *("--length", 40, "--json", *adapter),
    )
    stored = json.loads((run / "result.json").read_text())["evaluations"]
    assert scores_of(answer) == pytest.approx({e["protocol"]: e["sum_nats"] for e in stored})


def test_best_of_a_full_run_is_a_whole_model_with_its_tokenizer(
    finished: Finished, study_file: Path, tmp_path: Path
) -> None:
    run = finished.run_folders("full")[0]
    model = tmp_path / "model"
    shutil.copytree(run / "best", model)
    command = ("evaluate", model, "--benchmark", study_file.parent / "texts" / "test.txt")
    command += ("--protocol", "rows-text", "--length", 40, "--json")
    stored = json.loads((run / "result.json").read_text())["evaluations"]
    assert scores_of(call(*command)) == pytest.approx({"rows-text": stored[0]["sum_nats"]})
    for path in model.glob("tokenizer*"):
        path.unlink()
    answer = call(*command)
    assert answer.code == 3
    assert "no tokenizer" in answer.err


def test_evaluate_refuses_an_adapter_that_is_none(
    tiny_gpt2: Path, study_file: Path, tmp_path: Path
) -> None:
    texts = study_file.parent / "texts" / "test.txt"
    answer = call(
        *("evaluate", tiny_gpt2, "--adapter", tmp_path, "--benchmark", texts),
        *("--protocol", "rows-text", "--length", 40),
    )
    assert answer.code == 3
    assert "adapter_config.json" in answer.err


def test_init_writes_a_study_file_that_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert call("init", "demo", "--out", path).code == 0
    assert "#" in path.read_text()
    assert call("init", "demo", "--out", path).code == 2  # nothing is overwritten
    assert json.loads(call("check", path, "--json").out)["arms"][0]["name"] == "baseline"


def test_the_schema_describes_every_key_of_a_study() -> None:
    answer = call("schema")
    found = json.loads(answer.out)
    assert answer.code == 0 and found["additionalProperties"] is False
    described = [found, *found["$defs"].values()]
    missing = [
        f"{part['title']}.{key}"
        for part in described
        for key, content in part["properties"].items()
        if not content.get("description")
    ]
    assert missing == []
    assert {"name", "arms", "benchmarks", "training"} <= found["properties"].keys()


@pytest.mark.parametrize(
    ("part", "key", "good", "bad"),
    [
        (
            "Benchmark",
            "protocols",
            [protocol.example for protocol in PROTOCOLS],
            ("rows-txt", "blocks-0", "sliding-8"),
        ),
        ("Arm", "placement", (*LAYER_TYPES, "a.*.b", "lm_head"), ("atention", "a..b", "a b.c")),
    ],
)
def test_the_schema_lets_editors_find_a_mistyped_text(
    part: str, key: str, good: Sequence[str], bad: tuple[str, ...]
) -> None:
    items = Study.model_json_schema()["$defs"][part]["properties"][key]["items"]

    def fits(text: str) -> bool:
        choices = items.get("anyOf", [items])
        return any(
            text in c["enum"] if "enum" in c else re.search(c["pattern"], text) is not None
            for c in choices
        )

    assert [text for text in (*good, *bad) if fits(text)] == list(good)
