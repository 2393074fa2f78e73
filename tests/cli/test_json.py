"""`--json`: one JSON value on standard output, of every command that prints."""

import json
import shutil
from pathlib import Path

import pytest

from lorastudy.cli import app
from support.command_line import call, without_page, write_study

KEYS = {  # command -> (arguments, keys that scripts rely on)
    "run": (["STUDY"], {"folder", "report", "runs", "missing"}),
    "check": (
        ["FILE"],
        {"arms", "n_runs", "available_bytes", "overlap", "train_text", "validation_text", "notes"},
    ),
    "preview": (["FILE"], {"name", "parts"}),
    "status": (["STUDY"], {"runs"}),
    "table": (["STUDY"], {"name", "arms", "runs", "missing"}),
    "report": (["STUDY"], {"report"}),
    "decide": (
        ["STUDY", "--size", "1GB"],
        {"outcome", "recommended", "weights", "limits", "left_out", "would_change", "next"},
    ),
    "run-one": (["STUDY", "RUN"], {"run_id", "status", "evaluations"}),
    "explain": (["STUDY", "--rows", "2"], {"report", "explanations"}),
    "fsck": (["STUDY"], {"n_checked", "damage"}),
    "export": (["STUDY", "lora", "--to", "taken"], {"run_id", "folder", "reloaded"}),
    "push": (["taken", "owner/name"], {"repository", "visibility", "bytes", "uploaded"}),
    "submit": (["STUDY", "--engine", "local", "--print"], {"engine", "commands"}),
    "evaluate": (
        ["BASE", "--benchmark", "texts/test.txt", "--protocol", "rows-text", "--length", "40"],
        {"model", "evaluations"},
    ),
    "compare": (
        [
            *("BASE", "--adapter", "a=BEST", "--length", "40"),
            *("--benchmark", "texts/test.txt", "--protocol", "rows-text"),
        ],
        {"folder", "report", "runs", "missing"},
    ),
    "audit": (
        ["BASE", "--benchmark", "texts/test.txt", "--length", "40"],
        {"benchmark", "rows", "length", "text_share", "classes", "perplexity", "undone"},
    ),
    "extend": (["STUDY", "--seeds", "1"], {"added"}),
    "init": (["demo"], {"file", "schema"}),
}


@pytest.fixture(scope="module")
def desk(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study file, its texts, and a finished study of one arm and the baseline."""
    folder = tmp_path_factory.mktemp("desk")
    path = write_study(folder, tiny_gpt2)
    path.write_text(path.read_text().replace("seeds: [0, 1]", "seeds: [0]"))
    only = ("--arm", "baseline", "--arm", "lora", "--set", "training.epochs=1")
    with without_page():
        assert call("run", path, "--out", folder / "done", *only).code == 0
    return folder


def arguments_of(name: str, desk: Path, base: Path) -> list[str]:
    (run,) = (desk / "done" / "runs").glob("lora-*")
    stands_for = {"STUDY": "done", "FILE": "study.yaml", "RUN": run.name, "BASE": str(base)}
    stands_for["a=BEST"] = f"a={run / 'best'}"
    return [stands_for.get(word, word) for word in KEYS[name][0]]


def test_every_command_prints_one_json_value(
    desk: Path, tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    n_looked_at = 0
    for name, (_, keys) in KEYS.items():
        only = ["--arm", "lora", "--arm", "baseline"] if name == "run" else []
        with without_page():
            answer = call(name, *arguments_of(name, tmp_path, tiny_gpt2), *only, "--json")
        assert answer.code == 0, f"{name}: {answer.err}"
        assert keys <= json.loads(answer.out).keys(), name
        n_looked_at += 1
    assert n_looked_at == len(KEYS)


def test_no_command_is_forgotten() -> None:
    always_json = {"schema"}
    assert KEYS.keys() | always_json == {command.name for command in app.registered_commands}


def test_a_running_study_prints_progress_beside_its_json(desk: Path, tmp_path: Path) -> None:
    only = ("--arm", "baseline", "--set", "benchmarks=[]", "--json")
    with without_page():
        answer = call("run", desk / "study.yaml", "--out", tmp_path / "new", *only)
    assert answer.code == 0, answer.err
    assert [run["arm"] for run in json.loads(answer.out)["runs"]] == ["baseline"]
    assert "1 of 1 run to execute" in answer.err and "done" in answer.err


def test_exported_results_are_named(desk: Path, tmp_path: Path) -> None:
    answer = call("export", desk / "done", "--to", "lm-eval", "--out", tmp_path / "out", "--json")
    found = json.loads(answer.out)
    assert found["to"] == "lm-eval" and len(found["runs"]) == 2
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {
        f"results_{run}" for run in found["runs"]
    }


def test_watching_is_for_people(desk: Path) -> None:
    answer = call("status", desk / "done", "--watch", "--json")
    assert answer.code == 2 and "cannot be combined with --json" in answer.err
