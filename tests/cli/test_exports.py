"""What leaves a study: models that others load, results in shapes that others read."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lorastudy.analysis.choice import choose_run
from lorastudy.analysis.findings import read_findings
from lorastudy.cli.completion import complete_presets, complete_runs
from lorastudy.exchange.card import ExportForm, make_card
from lorastudy.exchange.stored_runs import StoredRun, read_runs
from lorastudy.exchange.trackers import list_points
from lorastudy.model.adapters import ArmModel
from lorastudy.run import export, served
from lorastudy.store.collect import read_overview
from lorastudy.store.files import write_record
from lorastudy.store.folders import StudyFolder
from support.command_line import call, without_page, write_study

TIED = """
  - name: head
    method: lora
    placement: [attention, output]
    allow_tied: true
    rank: 2
    alpha: 4
    learning_rates: [1.0e-2]
benchmarks:"""


@pytest.fixture(scope="module")
def study(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of one seed with a baseline, full, lora and an adapter on the tied head."""
    folder = tmp_path_factory.mktemp("exported")
    path = write_study(folder, tiny_gpt2)
    text = path.read_text().replace("seeds: [0, 1]", "seeds: [0]").replace("\nbenchmarks:", TIED)
    path.write_text(text)
    with without_page():
        assert call("run", path, "--out", folder / "out").code == 0
    return folder / "out"


@pytest.fixture(scope="module")
def runs(study: Path) -> dict[str, StoredRun]:
    return {run.result.arm: run for run in read_runs(StudyFolder(study))}


def scores_of(*arguments: object) -> dict[str, float]:
    answer = call("evaluate", *arguments, "--length", 40, "--json")
    assert answer.code == 0, answer.err
    return {e["protocol"]: e["cross_entropy"] for e in json.loads(answer.out)["evaluations"]}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # as it is told
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")  # Conv1D beside Linear
@pytest.mark.parametrize("arm", ["lora", "head"])
def test_an_exported_adapter_computes_what_the_run_did(
    study: Path, runs: dict[str, StoredRun], arm: str, tiny_gpt2: Path, tmp_path: Path
) -> None:
    run = runs[arm]
    answer = call("export", study, run.result.run_id, "--to", tmp_path / "adapter")
    assert answer.code == 0 and "by at most 0 (" in answer.out

    base = AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    model = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    ids = torch.arange(2, 40)[None]
    nats = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:])
    own = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_gpt2), run.folder.best
    ).eval()
    assert torch.equal(nats, torch.nn.functional.cross_entropy(own(ids).logits[0, :-1], ids[0, 1:]))


@pytest.mark.parametrize(
    ("arm", "weights", "tolerance"),
    [("lora", "float32", 1e-5), ("head", "float32", 1e-5), ("lora", "bfloat16", 0.01)],
)
def test_a_merged_model_scores_what_the_run_scored(  # noqa: PLR0917
    study: Path,
    runs: dict[str, StoredRun],
    arm: str,
    weights: str,
    tolerance: float,
    tmp_path: Path,
) -> None:
    run, to = runs[arm], tmp_path / "merged"
    answer = call("export", study, run.result.run_id, "--to", to, "--merge", "--weights", weights)
    assert f"Its weights are {weights}" in answer.out
    assert answer.code == 0, answer.err
    stored_in = {str(tensor.dtype) for tensor in load_file(to / "model.safetensors").values()}
    assert stored_in == {f"torch.{weights}"}
    assert f"Its weights are {weights}." in (to / "README.md").read_text()

    text = study.parent / "texts" / "test.txt"
    found = scores_of(to, "--benchmark", text, "--protocol", "rows-text")
    stored = {e.protocol: e.cross_entropy for e in run.result.evaluations}
    assert found["rows-text"] == pytest.approx(stored["rows-text"], abs=tolerance)


def test_merging_an_adapter_of_a_tied_head_unties_it(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    to = tmp_path / "merged"
    assert call("export", study, runs["head"].result.run_id, "--to", to, "--merge").code == 0
    weights = load_file(to / "model.safetensors")
    assert not torch.equal(weights["lm_head.weight"], weights["transformer.wte.weight"])
    assert json.loads((to / "config.json").read_text())["tie_word_embeddings"] is False


def test_an_adapter_on_the_head_never_carries_the_base_head(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    to = tmp_path / "adapter"
    assert call("export", study, runs["head"].result.run_id, "--to", to).code == 0
    tensors = load_file(to / "adapter_model.safetensors")
    assert any(".lm_head.lora_A" in name for name in tensors)
    assert all(".lora_A." in name or ".lora_B." in name for name in tensors)


def test_a_fully_tuned_model_is_exported_with_its_tokenizer(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    to = tmp_path / "model"
    assert call("export", study, "full", "--to", to).code == 0
    assert (to / "tokenizer.json").is_file() and (to / "model.safetensors").is_file()


@pytest.fixture(scope="module")
def llama_study(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with an adapter on the tied head of a Llama."""
    folder = tmp_path_factory.mktemp("llama")
    path = write_study(folder, tiny_llama)
    path.write_text(path.read_text().replace("\nbenchmarks:", TIED))
    only = ("--arm", "head", "--seed", 0, "--set", "training.epochs=1")
    with without_page():
        assert call("run", path, "--out", folder / "out", *only).code == 0
    return folder / "out"


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # as it is told
def test_the_tied_head_of_a_llama_is_untied_and_reloads_as_it_was(
    llama_study: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    for name, options in (("adapter", ()), ("merged", ("--merge",))):
        answer = call("export", llama_study, "head", "--to", tmp_path / name, *options)
        assert answer.code == 0, answer.err
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(".lora_A." in name or ".lora_B." in name for name in tensors)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    head, embedding = merged.get_output_embeddings(), merged.get_input_embeddings()
    assert head.weight is not embedding.weight and not torch.equal(head.weight, embedding.weight)
    ids = torch.arange(2, 40)[None]
    assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-5)


# --- which run --------------------------------------------------------------------------------


def test_an_arm_means_its_run_with_the_lowest_validation_loss(
    study: Path, runs: dict[str, StoredRun]
) -> None:
    chosen = choose_run(StudyFolder(study), "lora")
    assert chosen.spec.run_id == runs["lora"].result.run_id
    assert chosen.reason is not None and "only run at learning rate 0.01" in chosen.reason
    assert choose_run(StudyFolder(study), "lora-s0").spec == chosen.spec


def test_of_several_seeds_the_best_is_taken_and_said(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    copy = StudyFolder(tmp_path / "copy")
    shutil.copytree(study, copy.path)
    assert call("extend", copy.path, "--seeds", 1).code == 0
    (second,) = (r.spec for r in read_overview(copy) if r.spec.run_id.startswith("lora-s1-"))
    ours = runs["lora"].result
    epochs = tuple(
        e.model_copy(update={"validation_loss": e.validation_loss - 0.5}) for e in ours.epochs
    )
    better = {"run_id": second.run_id, "seed": 1, "epochs": epochs}
    write_record(copy.run(second.run_id).result, ours.model_copy(update=better))
    chosen = choose_run(copy, "lora")
    assert chosen.spec.run_id == second.run_id
    assert chosen.reason is not None and "lowest validation loss of 2 runs" in chosen.reason


@pytest.mark.parametrize(
    ("name", "what"), [("lroa", "did you mean 'lora'?"), ("lora-s7", "Give an arm (baseline, full")]
)
def test_a_name_that_nothing_has_is_answered_with_those_that_are(
    study: Path, name: str, what: str, tmp_path: Path
) -> None:
    answer = call("export", study, name, "--to", tmp_path / "to")
    assert answer.code == 2 and what in answer.err


def test_a_shell_is_offered_arms_and_runs_of_the_folder_before_the_cursor(
    study: Path, runs: dict[str, StoredRun]
) -> None:
    def offered(folder: Path, incomplete: str) -> list[str]:
        return complete_runs(SimpleNamespace(params={"folder": folder}), incomplete)

    assert offered(study, "lo") == ["lora", runs["lora"].result.run_id]
    assert offered(study / "runs", "lo") == []  # no study: nothing, and no error
    assert complete_presets("pa") == ["paper", "paper-sound"]


def test_an_arm_without_a_finished_run_says_how_to_finish_one(study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    (run,) = (copy / "runs").glob("lora-s0-*")
    (run / "result.json").unlink()
    answer = call("export", copy, "lora", "--to", tmp_path / "to")
    assert answer.code == 2 and f"lorastudy run {copy}" in answer.err


@pytest.mark.parametrize(
    ("arm", "options", "what"),
    [
        ("full", ["--merge"], "already a whole model"),
        ("baseline", [], "is a baseline"),
        (None, [], "has no run"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    *,
    study: Path,
    runs: dict[str, StoredRun],
    arm: str | None,
    options: list[str],
    what: str,
    tmp_path: Path,
) -> None:
    name = runs[arm].result.run_id if arm else "lora-s9-00000000"
    answer = call("export", study, name, "--to", tmp_path / "to", *options)
    assert answer.code == 2 and what in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [["--merge"], ["--merge", "--weights", "bfloat16"], []])
def test_a_copy_that_computes_something_else_is_never_left(
    study: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget(model: ArmModel) -> object:  # the adapter, as a merge that goes wrong would
        return model.adapter.unload()

    copytree = shutil.copytree

    def spoil(*arguments: Any, **settings: Any) -> None:
        copytree(*arguments, **settings)
        path = arguments[1] / "adapter_model.safetensors"
        save_file({name: 1.001 * tensor for name, tensor in load_file(path).items()}, path)

    monkeypatch.setattr(served, "merge_adapter", forget)
    monkeypatch.setattr(export, "shutil", SimpleNamespace(**{**vars(shutil), "copytree": spoil}))
    answer = call("export", study, "lora", "--to", tmp_path / "to", *options)
    assert answer.code == 3 and "computes something else" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_written_over(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    answer = call("export", study, runs["lora"].result.run_id, "--to", tmp_path)
    assert answer.code == 2 and "exists already" in answer.err
    (tmp_path / "file").touch()
    baseline = runs["baseline"].result.run_id  # which has no weights, as would be said next
    answer = call("export", study, baseline, "--to", tmp_path / "file" / "new")
    assert answer.code == 74 and "Choose another name" in answer.err


# --- the card ---------------------------------------------------------------------------------


def read_card(study: Path, run: StoredRun, to: Path, *options: str) -> ModelCard:
    assert call("export", study, run.result.run_id, "--to", to, *options).code == 0
    return ModelCard.load(to / "README.md")


def test_a_card_carries_every_score_with_its_protocol(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    run = runs["lora"]
    card = read_card(study, run, tmp_path / "adapter")
    found = {
        (e.dataset_name, e.metric_args["protocol"], e.metric_value) for e in card.data.eval_results
    }
    assert found == {(e.benchmark, e.protocol, e.perplexity) for e in run.result.evaluations}
    assert card.data.library_name == "peft" and card.data.pipeline_tag == "text-generation"


def test_only_an_adapter_of_the_head_warns_of_servers(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    warned = {
        (arm, options): "An adapter on the output layer"
        in read_card(study, runs[arm], tmp_path / f"{arm}{len(options)}", *options).text
        for arm, options in (("lora", ()), ("head", ()), ("head", ("--merge",)))
    }
    assert warned == {("lora", ()): False, ("head", ()): True, ("head", ("--merge",)): False}


def test_a_card_names_no_folder_of_this_machine(
    study: Path, runs: dict[str, StoredRun], tiny_gpt2: Path, tmp_path: Path
) -> None:
    card = make_card(runs["lora"], "adapter", name="x")
    assert str(tiny_gpt2) not in card and str(study) not in card


IA3 = {"method": "peft", "peft": {"peft_type": "IA3"}}


@pytest.mark.parametrize(
    ("changes", "form", "words"),
    [
        ({}, "adapter", "An adapter (LoRA) for"),
        ({"use_dora": True}, "merged", "An adapter (DoRA) merged into"),
        (IA3, "adapter", "An adapter (PEFT's IA3) for"),
        ({"method": "bitfit"}, "model", "Fine-tuning of all biases (BitFit) in"),
        ({"method": "full"}, "model", "Full fine-tuning of"),
    ],
)
def test_a_card_begins_with_what_was_trained(
    runs: dict[str, StoredRun], changes: dict[str, Any], form: ExportForm, words: str
) -> None:
    run = runs["lora"]
    arm = run.spec.arm.model_copy(update=changes)
    spec = run.spec.model_copy(update={"arm": arm})
    assert f"# x\n\n{words} a base model" in make_card(replace(run, spec=spec), form, name="x")


def test_push_uploads_nothing_unless_it_is_really_asked_to(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    to = tmp_path / "adapter"
    call("export", study, runs["lora"].result.run_id, "--to", to)
    answer = call("push", to, "owner/name")  # the sockets of tests are closed
    assert answer.code == 0 and "Would upload to the private repository owner/name" in answer.out


@pytest.mark.parametrize("name", ["adapter", "a b/c", "owner/"])
def test_push_refuses_a_name_that_the_hub_would_not_take(
    study: Path, runs: dict[str, StoredRun], name: str, tmp_path: Path
) -> None:
    to = tmp_path / "adapter"
    call("export", study, "lora", "--to", to)
    assert call("push", to, name).code == 2


def test_push_refuses_what_was_not_exported(tmp_path: Path) -> None:
    answer = call("push", tmp_path, "owner/name")
    assert answer.code == 3 and "is not an exported model" in answer.err


# --- results in other shapes ------------------------------------------------------------------


def read_shape(study: Path, shape: str, out: Path) -> dict[str, dict]:
    assert call("export", study, "--to", shape, "--out", out).code == 0
    return {
        path.stem.removeprefix("results_"): json.loads(path.read_text()) for path in out.iterdir()
    }


def test_harness_results_hold_the_scores_under_the_keys_of_lm_eval(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    found = read_shape(study, "lm-eval", tmp_path / "out")
    assert found.keys() == {run.result.run_id for run in runs.values()}
    for run in runs.values():
        content = found[run.result.run_id]
        for e in run.result.evaluations:
            task = f"{e.benchmark}--{e.protocol}"
            assert content["results"][task]["perplexity,none"] == e.perplexity
            assert content["results"][task]["alias"] == task
            assert content["versions"][task] == e.protocol_version
            assert content["n-samples"][task]["effective"] == e.n_documents
            for key in ("configs", "n-shot", "higher_is_better", "group_subtasks"):
                assert task in content[key]


# what PEFT's method_comparison/processing.py reads of a result, and as what (null where not held)
READ_BY_PEFT = {
    "run_info": {"experiment_name": str, "train_config": dict, "total_time": float,
                 "peft_branch": str, "created_at": str},
    "train_info": {"accelerator_memory_reserved_avg": int, "accelerator_memory_max": int,
                   "accelerator_memory_reserved_99th": int, "train_time": float,
                   "file_size": int, "num_trainable_params": int, "num_total_params": int},
    "metrics": {"train loss": float, "train samples": int, "train total tokens": int},
}  # fmt: skip


KEYS_OF_PEFT = {  # all that its runner writes
    "run_info": {
        *("created_at", "total_time", "experiment_name", "peft_branch", "train_config"),
        *("peft_config", "error_msg"),
    },
    "train_info": {
        *("accelerator_memory_reserved_avg", "accelerator_memory_max"),
        *("accelerator_memory_reserved_99th", "train_time", "file_size", "num_trainable_params"),
        *("num_total_params", "status", "metrics"),
    },
    "meta_info": {"model_info", "dataset_info", "package_info", "system_info", "pytorch_info"},
}


@pytest.mark.parametrize("arm", ["full", "lora"])
def test_peft_results_hold_all_that_its_app_reads(
    study: Path, runs: dict[str, StoredRun], arm: str, tmp_path: Path
) -> None:
    content = read_shape(study, "peft-comparison", tmp_path / "out")[runs[arm].result.run_id]
    assert {group: set(keys) for group, keys in content.items()} == KEYS_OF_PEFT
    groups = {**content, "metrics": content["train_info"]["metrics"][-1]}
    for group, keys in READ_BY_PEFT.items():
        for key, kind in keys.items():
            assert isinstance(groups[group][key], kind), f"{group}: {key}"
    assert content["train_info"]["status"] == "success"
    assert "test accuracy" in groups["metrics"]
    peft_config = content["run_info"]["peft_config"]
    assert (peft_config or {}).get("peft_type") == ("LORA" if arm == "lora" else None)
    assert "model_id" in content["run_info"]["train_config"]
    packages = content["meta_info"]["package_info"]
    for name in ("peft", "transformers", "datasets", "torch", "bitsandbytes"):
        assert f"{name}-version" in packages


def test_peft_gets_no_baseline_which_it_would_take_for_full_fine_tuning(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    found = read_shape(study, "peft-comparison", tmp_path / "out")
    assert found.keys() == {run.result.run_id for arm, run in runs.items() if arm != "baseline"}


def test_an_unknown_shape_is_refused_with_the_known_ones(study: Path) -> None:
    answer = call("export", study, "--to", "excel")
    assert answer.code == 2 and "tensorboard" in answer.err and "lm-eval" in answer.err


# --- trackers ---------------------------------------------------------------------------------


def test_curves_are_those_of_the_run_folder(runs: dict[str, StoredRun]) -> None:
    run = runs["lora"]
    points = list(list_points(run))
    losses = [p.value for p in points if p.name == "train/loss"]
    assert losses == [step.loss for step in run.steps] and losses
    validation = [p for p in points if p.name == "epoch/validation_loss"]
    assert [(p.step, p.value) for p in validation] == [
        (e.step, e.validation_loss) for e in run.result.epochs
    ]


def test_a_missing_tracker_names_its_package(
    study: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import lorastudy.exchange.trackers as trackers

    def fail(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(trackers.importlib, "import_module", fail)
    answer = call("export", study, "--to", "mlflow", "--out", tmp_path / "out")
    assert answer.code == 2 and "pip install" in answer.err and "mlflow" in answer.err


def test_a_tracker_never_gets_a_run_twice(study: Path, tmp_path: Path) -> None:
    (tmp_path / "earlier").write_text("")
    answer = call("export", study, "--to", "tensorboard", "--out", tmp_path)
    assert answer.code == 2 and "would show these runs twice" in answer.err


def test_tensorboard_reads_back_every_point(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert call("export", study, "--to", "tensorboard", "--out", tmp_path / "tb").code == 0
    run = runs["lora"]
    read = EventAccumulator(str(tmp_path / "tb" / run.result.run_id), {"scalars": 0}).Reload()
    found = {(tag, e.step): e.value for tag in read.Tags()["scalars"] for e in read.Scalars(tag)}
    expected = {(p.name, p.step): p.value for p in list_points(run)}
    assert found.keys() == expected.keys()
    assert all(math.isclose(found[key], expected[key], rel_tol=1e-6) for key in expected)


@pytest.mark.filterwarnings("ignore")  # of packages that mlflow uses
def test_mlflow_reads_back_every_point(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow")
    assert call("export", study, "--to", "mlflow", "--out", tmp_path / "ml").code == 0
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'ml' / 'mlflow.db'}")
    home = client.get_experiment_by_name("tiny").experiment_id
    stored = {found.info.run_name: found for found in client.search_runs([home])}
    assert stored.keys() == {run.result.run_id for run in runs.values()}
    run = runs["lora"]
    history = client.get_metric_history(stored[run.result.run_id].info.run_id, "train/loss")
    assert [m.value for m in sorted(history, key=lambda m: m.step)] == [s.loss for s in run.steps]
    assert stored[run.result.run_id].data.params["arm"] == "lora"


def test_explained_parts_are_worth_what_the_model_loses_without_them(
    study: Path, runs: dict[str, StoredRun], tiny_gpt2: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(study, folder)  # other tests find their study without explanations
    with without_page():
        answer = call("explain", folder, "--rows", 512, "--json")
    assert answer.code == 0, answer.err
    found = {e["arm"]: e for e in json.loads(answer.out)["explanations"]}
    assert list(found) == ["full", "lora", "head"]
    lora = found["lora"]

    # an adapter whose B is zero in the first layer, scored without merging
    cut = tmp_path / "cut"
    shutil.copytree(runs["lora"].folder.best, cut)
    stored = load_file(cut / "adapter_model.safetensors")
    first = {n: torch.zeros_like(t) for n, t in stored.items() if ".h.0." in n and "lora_B" in n}
    save_file({**stored, **first}, cut / "adapter_model.safetensors")
    validation = ("--benchmark", study.parent / "texts/validation.txt", "--protocol", "rows-text")
    without = scores_of(tiny_gpt2, "--adapter", cut, *validation)["rows-text"]
    whole = scores_of(tiny_gpt2, "--adapter", runs["lora"].folder.best, *validation)["rows-text"]
    parts = {(part["kind"], part["name"]): part["cross_entropy"] for part in lora["parts"]}
    assert lora["cross_entropy"] == pytest.approx(whole, abs=1e-5)
    assert parts["layer", "0"] == pytest.approx(without, abs=1e-5) != pytest.approx(whole, abs=1e-5)

    # the changes of weights, by the formula of each method
    update = lora["updates"][0]
    stem = f"base_model.model.{update['path'].removesuffix('.weight')}"
    a, b = (stored[f"{stem}.lora_{half}.weight"].double() for half in "AB")
    values = torch.linalg.svdvals(2 * b @ a)  # alpha / r = 2
    assert update["singular_values"][:2] == pytest.approx(values[:2].tolist(), rel=1e-4)
    assert update["norm"] == pytest.approx(float((2 * b @ a).norm()), rel=1e-4)
    assert all(1 <= one["rank_90"] <= 2 for one in lora["updates"])
    head = {update["path"] for update in found["head"]["updates"]}
    assert "lm_head.weight" in head and "transformer.wte.weight" not in head
    tuned, base = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (runs["full"].folder.best, tiny_gpt2)
    )
    for one in found["full"]["updates"]:
        moved = (tuned[one["path"]] - base[one["path"]]).double().norm()
        assert one["norm"] == pytest.approx(float(moved), rel=1e-5)
    page = call("report", folder)
    assert page.code == 0 and "What training changed" in (folder / "report/index.html").read_text()


def test_a_damaged_explanation_is_said_left_out_and_made_again(
    study: Path, runs: dict[str, StoredRun], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(study, folder)
    run = StudyFolder(folder).run(runs["lora"].result.run_id)
    command = ("explain", folder, "--arm", "lora", "--rows", 2)
    with without_page():
        assert call(*command).code == 0
    whole = run.explanation.read_text()
    run.explanation.write_text(whole[:-40])
    assert read_findings(folder, with_bootstrap=False).explanations == ()
    answer = call("table", folder)
    assert answer.code == 0 and f"are damaged: {run.path.name}. `lorastudy explain`" in answer.err
    with without_page():
        assert call(*command).code == 0
    assert run.explanation.read_text() == whole
    # what is trained again is another model
    run.set_aside()
    assert not run.explanation.exists()
