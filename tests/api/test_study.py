"""The Python API as a notebook uses it: a study is loaded, checked, run, stopped, read, loaded."""

import itertools
import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import lorastudy as ls
from lorastudy.errors import InputError
from support.command_line import call, lines_of, write_study

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("blank_figures")
LEAVES_AFTER = """
import lorastudy as ls
for event in ls.run({study!r}, out={out!r}, arms=["lora"], device="cpu"):
    print(type(event).__name__, flush=True)
    if isinstance(event, ls.EpochEnded):
        break
import multiprocessing
print(multiprocessing.active_children() == [])
"""


@pytest.fixture(scope="module")
def study_file(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_study(tmp_path_factory.mktemp("api"), tiny_gpt2)
    path.write_text(path.read_text().replace("seeds: [0, 1]", "seeds: [0]"))
    return path


@pytest.fixture(scope="module")
def finished(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    return folder, list(ls.run(ls.load_study(study_file), out=folder, jobs=2, device="cpu"))


# A study


def test_a_study_has_the_keys_of_its_file_and_finds_texts_beside_it(study_file: Path) -> None:
    study = ls.load_study(study_file, {"training.epochs": 3, "seeds": [4]})
    assert isinstance(study, ls.Study)
    assert (study.name, study.seeds, study.training.epochs) == ("tiny", (4,), 3)
    assert [arm.name for arm in study.arms] == ["baseline", "full", "lora"]
    assert ls.check(study).n_runs == 3  # from another folder than the file's


def test_a_study_built_from_values_equals_the_one_that_is_read(study_file: Path) -> None:
    keys = json.loads(ls.load_study(study_file).settings.model_dump_json(exclude_unset=True))
    assert ls.Study(**keys).settings == ls.load_study(study_file).settings


def test_all_mistakes_of_a_study_come_at_once() -> None:
    with pytest.raises(ls.StudyError) as caught:
        ls.Study(name="mine", seeds=[0, 0], arms=[{"name": "lora", "method": "lora", "rnak": 2}])
    for part in ("base_model", "arms.lora.rnak", "did you mean 'rank'", "seeds", "data"):
        assert part in str(caught.value)
    with pytest.raises(ls.StudyError, match="did you mean 'demo'"):
        ls.load_study("dmo")


def test_check_has_the_facts_of_the_command(study_file: Path) -> None:
    facts = asdict(ls.check(study_file, device="cpu"))
    printed = json.loads(call("check", study_file, "--device", "cpu", "--json").out)
    facts.pop("available_bytes"), printed.pop("available_bytes")
    assert json.loads(json.dumps(facts)) == printed


# A run


def test_events_tell_every_run_from_its_start_to_its_end(finished: tuple[Path, list]) -> None:
    first, *inner, last = finished[1]
    assert isinstance(first, ls.StudyStarted) and isinstance(last, ls.StudyFinished)
    assert (len(first.missing), last.failed, last.missing) == (3, (), ())
    assert set(last.done) == set(first.missing) and last.report.is_file()
    for run_id in first.missing:
        own = [event for event in inner if event.run_id == run_id]
        assert isinstance(own[0], ls.RunStarted) and isinstance(own[-1], ls.RunEnded)
        assert own[-1].state == "done"
        steps = [event.step.step for event in own if isinstance(event, ls.StepDone)]
        epochs = [event.epoch.step for event in own if isinstance(event, ls.EpochEnded)]
        is_baseline = run_id.startswith("baseline")
        assert steps == ([] if is_baseline else [1, 2, 3, 4, 5, 6])
        assert epochs == ([] if is_baseline else [3, 6])
        kinds = [type(event).__name__ for event in own[1:-1]]
        if not is_baseline:
            assert kinds == [*["StepDone"] * 3, "EpochEnded"] * 2


def test_a_finished_study_runs_nothing_again(finished: tuple[Path, list]) -> None:
    first, last = ls.run(ls.load_study(finished[0]), device="cpu")
    assert isinstance(first, ls.StudyStarted) and first.missing == ()
    assert isinstance(last, ls.StudyFinished) and len(last.done) == 3


def test_what_the_study_does_not_have_is_refused(study_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ls.StudyError, match="lroa"):
        next(ls.run(study_file, out=tmp_path / "out", arms=["lroa"]))
    assert not (tmp_path / "out").exists()


def test_leaving_the_loop_of_a_script_stops_at_a_checkpoint(
    study_file: Path, tmp_path: Path
) -> None:
    long = study_file.with_name("long.yaml")
    long.write_text(study_file.read_text().replace("epochs: 2", "epochs: 400"))
    out, script = tmp_path / "out", tmp_path / "script.py"
    script.write_text(LEAVES_AFTER.format(study=str(long), out=str(out)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words.count("StudyStarted") == 1, "children carry the script out once more"
    assert words[-2:] == ["EpochEnded", "True"]
    (run,) = (out / "runs").iterdir()
    assert any((run / "checkpoints").iterdir()) and not (run / "result.json").exists()
    n_epochs = len(lines_of(run / "epochs.jsonl"))
    assert n_epochs < 400
    # the same call goes on from there
    events = ls.run(long, out=out, arms=["lora"], device="cpu")
    epoch = next(event for event in events if isinstance(event, ls.EpochEnded))
    assert epoch.epoch.epoch == n_epochs + 1
    events.close()
    assert multiprocessing.active_children() == []


# Results


def test_tables_hold_what_the_records_say(finished: tuple[Path, list]) -> None:
    results = ls.open_results(finished[0])
    stored = json.loads((finished[0] / "results.json").read_text())["runs"]
    assert list(results.runs.run_id) == [run["run_id"] for run in stored]
    assert list(results.runs.train_seconds.dropna()) == [
        run["train_seconds"] for run in stored if run["train_seconds"] is not None
    ]
    assert results.runs.is_counted.all()
    losses = [epoch["validation_loss"] for run in stored for epoch in run["epochs"]]
    assert list(results.epochs.validation_loss) == losses
    scores = [e["perplexity"] for run in stored for e in run["evaluations"]]
    assert list(results.scores.perplexity) == scores
    arms = itertools.combinations(["baseline", "full", "lora"], 2)
    text = results.pairs[results.pairs.protocol == "rows-text"]
    assert list(zip(text["first"], text["second"], strict=True)) == list(arms)
    by_arm = results.scores.set_index(["arm", "protocol"]).cross_entropy
    expected = by_arm["full", "rows-text"] - by_arm["lora", "rows-text"]
    assert text.difference.iloc[-1] == pytest.approx(expected)


def test_runs_that_are_missing_are_rows_too(study_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "part"
    list(ls.run(study_file, out=folder, arms=["baseline"], device="cpu"))
    runs = ls.open_results(folder).runs.set_index("arm")
    assert dict(runs.status) == {"baseline": "done", "full": "missing", "lora": "missing"}
    assert runs.learning_rate["lora"] == 1e-2


def test_the_verdict_is_that_of_the_page(finished: tuple[Path, list]) -> None:
    results = ls.open_results(finished[0])
    page = (finished[0] / "report" / "index.html").read_text()
    words = page.replace('<span class="word">', "").replace("</span>", "")
    assert results.verdict
    assert all(sentence in words for sentence in results.verdict)
    assert results.verdict[0] in repr(results)


def test_a_notebook_shows_verdict_and_table_without_other_files(
    study_file: Path, tmp_path: Path
) -> None:
    named = study_file.with_name("named.yaml")
    named.write_text(study_file.read_text().replace("name: baseline", 'name: "a"'))
    list(ls.run(named, out=tmp_path / "out", arms=["a"], device="cpu"))
    html = ls.open_results(tmp_path / "out")._repr_html_()
    assert "Table I" in html and "<table" in html
    assert "<script" not in html and "src=" not in html and "href=" not in html


@pytest.mark.parametrize("arm", ["baseline", "full", "lora"])
def test_a_loaded_model_scores_as_its_run_did(
    finished: tuple[Path, list], study_file: Path, arm: str
) -> None:
    results = ls.open_results(finished[0])
    model = results.load(arm)
    assert type(model).__name__ == ("PeftModelForCausalLM" if arm == "lora" else "GPT2LMHeadModel")
    assert not model.training and model.tokenizer("A boat.")["input_ids"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    benchmark = study_file.parent / "texts" / "test.txt"
    score = ls.evaluate(model, benchmark, "rows-text", length=40)
    stored = results.scores.set_index(["arm", "protocol"]).cross_entropy[arm, "rows-text"]
    assert score.cross_entropy == pytest.approx(stored, rel=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_folder_scores_as_the_command_says(tiny_gpt2: Path, study_file: Path) -> None:
    benchmark = study_file.parent / "texts" / "test.txt"
    score = ls.evaluate(tiny_gpt2, benchmark, "rows-text", length=40, device="cpu")
    command = ("evaluate", tiny_gpt2, "--benchmark", benchmark, "--protocol", "rows-text")
    (printed,) = json.loads(call(*command, "--length", 40, "--json").out)["evaluations"]
    assert score.sum_nats == pytest.approx(printed["sum_nats"])


def test_a_model_without_a_tokenizer_is_refused(tiny_gpt2: Path, study_file: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_gpt2, use_safetensors=True)
    with pytest.raises(InputError, match="tokenizer="):
        ls.evaluate(model, study_file.parent / "texts" / "test.txt", "rows-text", length=40)


def test_an_arm_that_the_study_does_not_have_is_refused(finished: tuple[Path, list]) -> None:
    with pytest.raises(ls.StudyError, match="did you mean 'lora'"):
        ls.open_results(finished[0]).load("lroa")
