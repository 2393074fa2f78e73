"""`init`: study files from presets and from folders of texts, and the schema beside them."""

import json
from pathlib import Path

import pytest

from lorastudy.config.study_file import list_presets, read_study_file
from support.command_line import call

LINE = "Ten boats came in with fish and no song.\n"
QUIZ = '{"question": "Which?", "choices": ["a", "b"], "answer": 0}\n'


def make_folder(folder: Path, **files: str) -> Path:
    """Files by name, with `__` for a dot and `___` for a folder: train___a__txt is train/a.txt."""
    for name, text in files.items():
        path = folder / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize("preset", list_presets())
def test_every_preset_is_written_with_its_comments_and_a_schema(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init", preset).code == 0
    text = Path(f"{preset}.yaml").read_text()
    first, *rest = text.splitlines()
    assert first == "# yaml-language-server: $schema=lorastudy.schema.json"
    assert sum(line.lstrip().startswith("#") for line in rest) > 5
    assert read_study_file(Path(f"{preset}.yaml")).name == preset
    assert json.loads(Path("lorastudy.schema.json").read_text())["title"] == "Study"


def test_a_new_file_names_its_study_so_that_its_folder_is_not_the_presets(
    tmp_path: Path,
) -> None:
    path = tmp_path / "my study.yaml"
    assert call("init", "demo", "--out", path).code == 0
    assert read_study_file(path).name == "my-study"
    assert [line for line in path.read_text().splitlines() if "my-study" in line] == [
        "name: my-study"
    ]


def test_a_schema_is_left_out_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init", "demo", "--no-schema").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["demo.yaml"]
    assert "$schema" not in Path("demo.yaml").read_text()


def test_a_file_that_is_no_schema_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lorastudy.schema.json").write_text("mine")
    answer = call("init", "demo", "--out", tmp_path / "demo.yaml")
    assert answer.code == 2 and "--no-schema" in answer.err
    assert (tmp_path / "lorastudy.schema.json").read_text() == "mine"


def test_a_folder_of_texts_becomes_a_study_that_can_be_checked(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_folder(
        Path("my notes"),
        train___b__txt=LINE * 3,
        train___a__txt=LINE * 2,
        valid__txt=LINE,
        test__txt=LINE * 2,
    )
    path = Path("made/notes.yaml")
    answer = call("init", folder, "--base", tiny_gpt2, "--out", path)
    assert answer.code == 0, answer.err
    assert "train: 5 documents" in answer.out
    study = read_study_file(path)
    assert study.name == "my-notes"
    assert [benchmark.path for benchmark in study.benchmarks] == ["../my notes/test.txt"]
    assert study.training.rows_per_step == 4  # of 5 rows
    checked = call("check", path, "--set", "data.rows.length=40", "--json")
    assert checked.code == 0, checked.err
    arms = json.loads(checked.out)["arms"]
    assert [arm["train_rows"] for arm in arms] == [5, 5, 5, 5]


@pytest.mark.parametrize(
    ("files", "how"),
    [
        ({"train__txt": "".join(f"Boat {n} came in.\n" for n in range(24))}, ("lines", 0.1)),
        ({"train___a__md": "One came.\n\nTwo went.\n\n" + LINE}, ("stream", 0.2)),
    ],
)
def test_without_validation_files_documents_of_the_training_data_are_held_out(
    files: dict[str, str],
    how: tuple[str, float],
    tiny_gpt2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The study can be checked as it is written, whatever the number of documents."""
    monkeypatch.chdir(tmp_path)
    cut, share = how
    make_folder(Path("notes"), **files, test__txt=LINE * 2)
    answer = call("init", "notes", "--base", tiny_gpt2, "--out", "a.yaml")
    assert answer.code == 0, answer.err
    assert "chosen by seed 0 and not trained on, since no file is named validation" in answer.out
    data = read_study_file(Path("a.yaml")).data
    assert (data.rows.cut, data.validation.from_train) == (cut, share)
    length = 40 if cut == "lines" else 8
    checked = call("check", "a.yaml", "--set", f"data.rows.length={length}", "--json")
    assert checked.code == 0, checked.err
    held_out = json.loads(checked.out)["held_out"]
    assert held_out["n_held_out"] == round(share * held_out["n_documents"]) > 0
    Path("notes/test.txt").unlink()
    alone = call("init", "notes", "--base", tiny_gpt2, "--out", "b.yaml")
    assert alone.code == 0 and "Add a test file under benchmarks" in alone.out
    assert call("check", "b.yaml", "--set", f"data.rows.length={length}").code == 0


def test_one_document_cannot_be_divided(tmp_path: Path) -> None:
    make_folder(tmp_path / "notes", train__txt=LINE)
    answer = call("init", tmp_path / "notes", "--out", tmp_path / "a.yaml")
    assert answer.code == 3 and "fewer than two documents" in answer.err
    assert not (tmp_path / "a.yaml").exists()


def test_tables_are_read_by_the_named_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = json.dumps({"body": "a text"}) + "\n"
    folder = make_folder(Path("posts"), train_1__jsonl=line, train_2__jsonl=line, dev__jsonl=line)
    answer = call("init", folder, "--out", tmp_path / "a.yaml")
    assert answer.code == 3 and "its columns are body" in answer.err
    assert call("init", folder, "--out", tmp_path / "a.yaml", "--column", "body").code == 0
    study = read_study_file(tmp_path / "a.yaml")
    assert (study.data.train.path, study.data.train.column) == ("posts/train*.jsonl", "body")
    assert "it chose the epoch too" in (tmp_path / "a.yaml").read_text()  # there is no test file


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({}, "it holds nothing"),
        ({"a__txt": LINE, "b__txt": LINE}, "no file or folder named train or validation"),
        ({"train__txt": LINE, "train___a__txt": LINE, "val__txt": LINE}, "all look like train"),
        ({"train___a___b__txt": LINE, "val__txt": LINE}, "/train: there is no file of texts"),
        ({"train__txt": LINE, "eval__rst": LINE}, "eval.rst: there is no file of texts"),
        ({"train__jsonl": QUIZ}, "train.jsonl holds questions with choices"),
        ({"train__txt": LINE, "val__jsonl": QUIZ}, "val.jsonl holds questions with choices"),
        ({"train1__txt": LINE, "train2__csv": LINE, "val__txt": LINE}, "no single pattern"),
        ({"train1__txt": LINE, "Train2__txt": LINE, "val__txt": LINE}, "no single pattern"),
    ],
)
def test_a_folder_that_leaves_a_doubt_is_refused(
    files: dict[str, str], what: str, tmp_path: Path
) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    make_folder(folder, **files)
    answer = call("init", folder, "--out", tmp_path / "a.yaml")
    assert answer.code == 2 and what in answer.err
    assert not (tmp_path / "a.yaml").exists()


@pytest.mark.parametrize("name", ["2024", "2024-01-31", "no", "null", "a\nb: c", "$name", "# {x}"])
def test_a_folder_of_any_name_becomes_a_study(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_folder(Path(name), train__txt=LINE * 3, val__txt=LINE)
    answer = call("init", folder, "--base", "team/none", "--out", "a.yaml", "--no-schema")
    if "\n" in name:  # no path of a study file has a line break
        assert answer.code == 2 and "data.train.path" in answer.err
        return
    assert answer.code == 0, answer.err
    assert read_study_file(Path("a.yaml")).data.train.path == f"{name}/train.txt"


def test_a_base_model_that_is_no_folder_here_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "notes", train__txt=LINE * 3, val__txt=LINE)
    (tmp_path / "empty").mkdir()
    for base in ("./absent", tmp_path / "empty", folder / "train.txt"):
        answer = call("init", folder, "--base", base, "--out", tmp_path / "a.yaml")
        assert answer.code == 3 and str(base) in answer.err
        assert not (tmp_path / "a.yaml").exists()


def test_an_empty_name_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_folder(tmp_path / "notes", train__txt=LINE * 3, val__txt=LINE))
    for command in ("init", "run", "check"):
        answer = call(command, "")
        assert answer.code == 2 and "the path is empty" in answer.err


def test_neither_preset_nor_folder_names_the_presets() -> None:
    answer = call("init", "papr")
    assert answer.code == 2 and "did you mean 'paper'" in answer.err
