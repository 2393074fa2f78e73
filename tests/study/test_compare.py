"""Models that were trained elsewhere: scored as `evaluate` does, and reported as a study."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import lorastudy as ls
from lorastudy.analysis.findings import read_findings
from lorastudy.errors import ConfigError
from lorastudy.model.attach import known_peft_warnings
from lorastudy.report.figures.draw import draw_figures
from lorastudy.report.tables.table1 import build_table1
from lorastudy.study.open import open_study
from lorastudy.study.start import start_or_continue
from support.command_line import Answer, blank_figures, call, names_in, stamps, without_page
from support.tiny_models import save_byte_tokenizer

TEXT = "The last boat.\nIt came in with the song.\nNobody waited for it.\nThe river ran high.\n"
LENGTH = ("--length", "40")


def save_adapter(base: Path, folder: Path, *, scale: float, seed: int, rank: int = 2) -> None:
    """A PEFT folder as PEFT itself writes it, with random numbers for training."""
    network = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=rank, target_modules=["attn.c_attn"], fan_in_fan_out=True)
    with torch.random.fork_rng(devices=[]), known_peft_warnings():
        torch.manual_seed(seed)
        adapter = get_peft_model(network, config)
        for name, parameter in adapter.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=scale)
        adapter.save_pretrained(folder)


def save_model(base: Path, folder: Path, *, scale: float, seed: int) -> None:
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    tensors["transformer.ln_f.weight"] += scale * torch.randn(32, generator=generator)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def desk(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters and a whole model, two seeds of each, and the comparison of all of them."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "test.txt").write_text(TEXT)
    for seed in (0, 1):
        save_adapter(tiny_gpt2, folder / f"a-{seed}", scale=0.02, seed=seed)
        save_adapter(tiny_gpt2, folder / f"b-{seed}", scale=0.5, seed=seed, rank=3)
        save_model(tiny_gpt2, folder / f"whole-{seed}", scale=0.01, seed=seed)
    with blank_figures():
        answer = compare(folder, tiny_gpt2)
    assert answer.code == 0, answer.err
    assert "7 of 7 models to score" in answer.out
    return folder


@pytest.fixture
def copied(desk: Path, tmp_path: Path) -> Path:
    """The folder of the comparison alone; the weights stay where they are."""
    shutil.copytree(desk / "out", tmp_path / "out")
    return tmp_path / "out"


def compare(desk: Path, base: Path, *more: object, out: Path | None = None) -> Answer:
    adapters = [f"{arm}={desk / arm}-{seed}" for arm in ("a", "b", "whole") for seed in (0, 1)]
    given = [word for text in adapters for word in ("--adapter", text)]
    where = ("--benchmark", desk / "test.txt", "--protocol", "rows-text", "--protocol", "document")
    return call("compare", base, *given, *where, *LENGTH, "--out", out or desk / "out", *more)


def test_every_score_is_that_of_evaluate(desk: Path, tiny_gpt2: Path) -> None:
    results = json.loads((desk / "out" / "results.json").read_text())
    found = {
        (run["arm"], run["seed"], e["protocol"]): e["cross_entropy"]
        for run in results["runs"]
        for e in run["evaluations"]
    }
    assert len(found) == 7 * 2
    models = {("baseline", 0): (tiny_gpt2, None)}
    models |= {("b", seed): (tiny_gpt2, desk / f"b-{seed}") for seed in (0, 1)}
    models |= {("whole", 1): (desk / "whole-1", None)}
    for (arm, seed), (model, adapter) in models.items():
        for protocol in ("rows-text", "document"):
            alone = ls.evaluate(model, desk / "test.txt", protocol, adapter=adapter, length=40)
            assert found[arm, seed, protocol] == alone.cross_entropy
    assert len(set(found.values())) == 7


def test_nothing_that_belongs_to_training_is_in_the_records(desk: Path) -> None:
    for run in json.loads((desk / "out" / "results.json").read_text())["runs"]:
        assert run["epochs"] == [] and run["peak_memory_bytes"] == {}
        assert run["train_seconds"] is run["total_seconds"] is run["learning_rate"] is None
    findings = read_findings(desk / "out", with_bootstrap=False)
    sizes = {arm.arm: arm.trainable_parameters for arm in findings.arms}
    # (in + out) * rank of two layers: 32 to 96
    assert (sizes["baseline"], sizes["a"], sizes["b"]) == (0, 2 * 128 * 2, 2 * 128 * 3)
    assert sizes["whole"] == findings.arms[-1].total_parameters
    (pair,) = (p for c in findings.main for p in c.pairs if (p.first, p.second) == ("a", "b"))
    assert pair.seeds == (0, 1) and pair.is_judged


def test_the_page_says_what_is_not_known_and_has_no_figure_of_training(desk: Path) -> None:
    page = (desk / "out" / "report" / "index.html").read_text()
    for said in (
        "so there are no learning curves",
        "training time and memory are not known",
        "learning rates are not known",
        "equal numbers share nothing",
        "trained elsewhere, with 2 seeds",
        f"{desk}/a-0",
    ):
        assert said in page, said
    assert "saw the same data in the same order" not in page and "lorastudy run" not in page
    findings = read_findings(desk / "out")
    drawn = {figure.name.partition("-")[0] for figure in draw_figures(findings)}
    assert drawn.isdisjoint({"fig2", "fig3", "fig4", "fig9"}) and {"fig1", "fig5"} <= drawn
    assert any("trained elsewhere" in note.text for note in build_table1(findings).notes)


def test_the_same_command_scores_only_what_is_missing(
    desk: Path, tiny_gpt2: Path, copied: Path
) -> None:
    (run,) = (copied / "runs").glob("b-s1-*")
    score = json.loads((run / "evaluations" / "test--rows-text.json").read_text())
    for name in ("result.json", "SHA256SUMS", "evaluations/test--document.json"):
        (run / name).unlink()
    (run / "written.json").unlink()
    before = stamps(copied / "runs")
    with without_page():
        answer = compare(desk, tiny_gpt2, out=copied)
    assert answer.code == 0, answer.err
    assert "1 of 7 models to score" in answer.out and "b, seed 1: scored" in answer.out
    assert "\ntest under " in answer.out and " in no row, " in answer.out
    after = stamps(copied / "runs")
    changed = {name for name in after if before.get(name) != after[name]}
    assert all(name.startswith(run.name) for name in changed)
    assert f"{run.name}/evaluations/test--rows-text.json" not in changed
    assert json.loads((run / "evaluations" / "test--rows-text.json").read_text()) == score
    assert call("fsck", copied).code == 0


def test_weights_that_changed_are_noticed(desk: Path, tiny_gpt2: Path, tmp_path: Path) -> None:
    shutil.copytree(desk, tmp_path / "desk")
    moved, here = tmp_path / "desk", tmp_path / "desk" / "out"
    text = (here / "study.yaml").read_text().replace(str(desk), str(moved))
    (here / "study.yaml").write_text(text)
    (here / "study.lock.json").unlink()
    save_adapter(tiny_gpt2, moved / "b-1", scale=0.5, seed=7, rank=3)
    before = stamps(here / "runs")
    answer = compare(moved, tiny_gpt2)
    assert answer.code == 3
    assert "b-1 does not hold the weights that were scored as b, seed 1" in answer.err
    assert stamps(here / "runs") == before


def test_an_adapter_that_names_another_base_model_is_noted(
    desk: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    shutil.copytree(desk / "a-0", tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "base_model_name_or_path": "someone/else"}))
    how = ("--benchmark", desk / "test.txt", "--protocol", "rows-text", *LENGTH)
    said = "names someone/else as the base model of this adapter"
    answer = call("evaluate", tiny_gpt2, "--adapter", tmp_path / "a", *how, "--json")
    assert answer.code == 0 and said in answer.err and json.loads(answer.out)
    with without_page():
        given = ("--adapter", f"a={tmp_path / 'a'}", "--out", tmp_path / "out")
        answer = call("compare", tiny_gpt2, *given, *how)
    assert answer.code == 0 and said in answer.out, answer.err


def test_further_names_and_seeds_are_added_from_python(
    desk: Path, tiny_gpt2: Path, copied: Path, tmp_path: Path
) -> None:
    for arm, scale in (("a", 0.02), ("c", 0.1)):
        save_adapter(tiny_gpt2, tmp_path / f"{arm}-new", scale=scale, seed=9)
    adapters = {arm: [desk / f"{arm}-0", desk / f"{arm}-1"] for arm in ("a", "b", "whole")}
    adapters["a"].append(tmp_path / "a-new")
    before = stamps(copied / "runs")
    with blank_figures():
        results = ls.compare(
            tiny_gpt2,
            {**adapters, "c": [tmp_path / "c-new"]},
            desk / "test.txt",
            ["rows-text", "document"],
            out=copied,
            length=40,
        )
    assert before.items() <= stamps(copied / "runs").items()
    counts = results.runs.groupby("arm").seed.count().to_dict()
    assert counts == {"a": 3, "b": 2, "baseline": 1, "c": 1, "whole": 2}
    # arms with fewer seeds than others are shown and not judged
    assert set(results.pairs[results.pairs.verdict == "no verdict"].second) >= {"b", "c", "whole"}


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("--adapter", "a-0"), 2, "write NAME=DIR"),
        (("--adapter", "=a-0"), 2, "write NAME=DIR"),
        (("--adapter", "Baseline=a-0"), 2, "the name of the base model"),
        (("--adapter", "x y=a-0"), 2, "cannot name a folder"),
        (("--adapter", "x=a-0", "--adapter", "x=a-0"), 2, "Give each once"),
        (("--adapter", "x=a-0", "--adapter", "y=a-0"), 2, "Give each once"),
        (("--adapter", "x=nowhere"), 3, "neither adapter_config.json nor config.json"),
        (("--adapter", "x=a-0", "--adapter", "y=misfit"), 3, "does not fit this base model"),
        (("--adapter", "x=a-0", "--adapter", "y=stranger"), 3, "its tokenizer is not that of"),
        (("--adapter", "y=nan"), 3, "not finite"),
        (("--adapter", "y=nan-in-8-bits"), 3, "not finite"),
        (("--adapter", "x=a-0", "--protocol", "rows"), 2, "is not a protocol"),
        (("--adapter", "x=a-0", "--protocol", "answers"), 2, "does not score"),
        (("--adapter", "x=a-0", "--benchmark", "none.txt"), 3, "none.txt"),
        (("--adapter", "x=a-0", "--precision", "int8"), 2, "float32 or bfloat16"),
        (("--adapter", "x=a-0", "--assistant-only-loss"), 2, "rows with answers"),
        (("--adapter", "x=a-0", "--out", "a-0"), 2, "the folder of a model or an adapter"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_is(
    given: tuple[str, ...],
    code: int,
    said: str,
    *,
    tiny_gpt2: Path,
    misfits: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(misfits)
    where = ("--benchmark", "test.txt", "--protocol", "rows-text", *LENGTH)
    before = names_in(misfits)
    answer = call("compare", tiny_gpt2, "--out", "out", *where, *given)
    assert answer.code == code and said in answer.err, answer.err
    assert names_in(misfits) == before


def test_a_folder_that_is_not_free_is_refused_before_anything_is_read(
    desk: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorastudy.study.compare.open_reader", None)
    monkeypatch.setattr("lorastudy.study.start.check_study", None)
    taken = {"a-0": "the folder of a model or an adapter", "out": "started with other settings"}
    for folder, says in taken.items():
        answer = compare(desk, tiny_gpt2, "--precision", "bfloat16", out=desk / folder)
        assert (answer.code, says in answer.err) == (2, True), answer.err
        opened = open_study("demo", out=desk / folder)
        with pytest.raises(ConfigError, match=says):
            start_or_continue(opened, (), device="cpu")


@pytest.fixture(scope="module")
def misfits(desk: Path, tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good adapter, and models that cannot be compared with its base."""
    folder = tmp_path_factory.mktemp("misfits")
    (folder / "test.txt").write_text(TEXT)
    shutil.copytree(desk / "a-0", folder / "a-0")
    for name in ("misfit", "nan", "nan-in-8-bits"):
        shutil.copytree(desk / "b-0", folder / name)
        path = folder / name / "adapter_model.safetensors"
        tensors = load_file(path)
        for key, tensor in tensors.items():
            tensors[key] = tensor[..., :-1].contiguous() if name == "misfit" else tensor * torch.nan
            if name == "nan-in-8-bits":
                tensors[key] = tensors[key].to(torch.float8_e4m3fn)
        save_file(tensors, path, metadata={"format": "pt"})
    shutil.copytree(tiny_gpt2, folder / "stranger")
    save_byte_tokenizer(folder / "stranger")
    path = folder / "stranger" / "tokenizer.json"
    path.write_text(path.read_text().replace('"a"', '"\\u0000"', 1))
    return folder


@pytest.mark.parametrize("adapters", [{}, {"mine": []}])
def test_a_comparison_needs_a_folder_for_every_name(adapters: dict[str, list[Path]]) -> None:
    with pytest.raises(ls.StudyError, match="at least one name"):
        ls.compare("demo", adapters, "test.txt", "rows-text")


def test_other_commands_know_such_a_folder(desk: Path, tmp_path: Path) -> None:
    out = desk / "out"
    before = names_in(out)
    decided = json.loads(call("decide", out, "--margin", "0.9", "--json").out)
    assert decided["next"]["command"] == ""
    assert decided["weights"] == str(desk / f"{decided['recommended']}-0")
    assert call("decide", out, "--time", "1h").code == 2
    assert "done" in call("status", out).out and call("fsck", out).code == 0
    assert "whole" in call("table", out).out
    refused = {
        ("check", out): "trained elsewhere",
        ("preview", out): "trained elsewhere",
        ("extend", out, "--seeds", "1"): "trained elsewhere",
        ("explain", out): "is left out: it was trained elsewhere",
        ("export", out, "a", "--to", tmp_path / "taken"): "Take its weights from",
    }
    for command, said in refused.items():
        answer = call(*command)
        assert answer.code == 2 and said in answer.err, (command, answer.err)
    assert names_in(out) == before
    model = ls.open_results(out).load("b-s1")
    assert model.peft_config["default"].r == 3
