"""Unfit data and models stop a study before its first training step, with exit code and place."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from lorastudy.config.models import Study
from lorastudy.config.spec import expand_study
from lorastudy.errors import UserError
from lorastudy.model.base import check_weights
from lorastudy.run.context import RunContext
from lorastudy.run.execute import execute_run
from lorastudy.run.readers import open_reader
from lorastudy.store.folders import StudyFolder
from lorastudy.store.places import Places
from lorastudy.study.check import check_study
from support.tiny_runs import ARMS, CPU, OTHER, SOUND, make_study, write_texts

USAGE, INPUT = 2, 3
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123456\n"


@dataclass(frozen=True)
class Place:
    """Where texts are, a model that may be spoilt, and the cache."""

    folder: Path
    base: Path

    @property
    def places(self) -> Places:
        return Places(self.folder, offline=True, cache=self.folder / "cache")

    def study(self, **changes: Any) -> Study:
        return make_study(self.base, **changes)

    def edit_config(self, name: str = "config.json", **values: Any) -> None:
        path = self.base / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def place(tiny_gpt2: Path, tmp_path: Path) -> Place:
    base = tmp_path / "base"
    shutil.copytree(tiny_gpt2, base)
    return Place(write_texts(tmp_path / "texts"), base)


def refuse(study: Study, place: Place) -> tuple[int, str]:
    """Exit code and message of what `run` checks before it starts anything."""
    with pytest.raises(UserError) as caught:
        checked = check_study(study, place.places, CPU)
        check_weights(checked.reader.base.folder)
    return caught.value.exit_code, str(caught.value)


def test_the_study_that_is_spoilt_below_is_sound(place: Place) -> None:
    checked = check_study(place.study(), place.places, CPU)
    check_weights(checked.reader.base.folder)


# Data

Writer = Callable[[Path], object]


def cut_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": OTHER * 50}), path)
    path.write_bytes(path.read_bytes()[:-20])


DATA: dict[str, tuple[str, Writer, tuple[str, ...]]] = {
    "missing": ("gone.txt", lambda path: None, ("does not exist",)),
    "glob-of-nothing": ("none/*.txt", lambda path: None, ("does not match any file",)),
    "lfs-pointer": ("a.txt", lambda path: path.write_text(POINTER), ("git lfs pull",)),
    "truncated-parquet": ("a.parquet", cut_parquet, ("not a whole Parquet file",)),
    "empty": ("a.txt", lambda path: path.write_text(""), ("no document",)),
    "blank": ("a.txt", lambda path: path.write_text("\n \n\t\n"), ("blank",)),
    "wrong-column": (
        "a.jsonl",
        lambda path: path.write_text('{"body": "x y z"}\n'),
        ("line 1", "'text'", "body"),
    ),
    "not-a-string": (
        "a.jsonl",
        lambda path: path.write_text('{"text": "x"}\n{"text": 7}\n'),
        ("line 2", "int"),
    ),
    "invalid-utf8": ("a.txt", lambda path: path.write_bytes(b"a\n\xff\n"), ("line 2", "0xff")),
}


@pytest.mark.parametrize("part", ["train", "validation", "benchmark"])
@pytest.mark.parametrize("fault", DATA)
def test_unfit_data_is_refused_wherever_it_is_named(place: Place, fault: str, part: str) -> None:
    name, write, words = DATA[fault]
    if "*" not in name:
        write(place.folder / name)
    plain = place.study().model_dump()
    source = plain["data"][part] if part != "benchmark" else plain["benchmarks"][0]
    source["path"] = name
    code, message = refuse(Study.model_validate(plain), place)
    assert code == INPUT
    for word in (name, *words):
        assert word in message


def with_data(place: Place, **data: Any) -> Study:
    return place.study(data={**place.study().data.model_dump(), **data})


@pytest.mark.parametrize("part", ["train", "validation"])
def test_less_than_one_row_is_refused(place: Place, part: str) -> None:
    (place.folder / "short.txt").write_text("Ten words.")
    rows = {"cut": "stream", "length": 40}
    code, message = refuse(with_data(place, rows=rows, **{part: {"path": "short.txt"}}), place)
    assert code == INPUT
    assert "short.txt" in message and "less than one row of 40 tokens" in message


def test_a_benchmark_without_a_scored_token_is_refused(place: Place) -> None:
    (place.folder / "one.txt").write_text("x")
    benchmark = {"name": "letter", "path": "one.txt", "protocols": ("blocks-32",)}
    code, message = refuse(place.study(benchmarks=(benchmark,)), place)
    assert code == INPUT
    assert "'letter'" in message and "'blocks-32'" in message


def test_fewer_rows_than_one_step_are_refused(place: Place) -> None:
    code, message = refuse(place.study(training={**SOUND, "rows_per_step": 12}), place)
    assert code == USAGE
    assert "training.rows_per_step: 12" in message and "has 11" in message


def test_rows_longer_than_the_context_are_refused(place: Place) -> None:
    code, message = refuse(with_data(place, rows={"cut": "lines", "length": 65}), place)
    assert code == USAGE
    assert "data.rows.length: 65" in message and "64 positions" in message


@pytest.mark.parametrize("protocol", ["blocks-65", "sliding-128-64"])
def test_windows_longer_than_the_context_are_refused(place: Place, protocol: str) -> None:
    benchmark = {"name": "tale", "path": "test.txt", "protocols": (protocol,)}
    code, message = refuse(place.study(benchmarks=(benchmark,)), place)
    assert code == USAGE
    assert repr(protocol) in message and "64 positions" in message


def test_a_token_without_a_row_in_the_embedding_is_refused(place: Place) -> None:
    place.edit_config(vocab_size=115)  # 't' is 116
    weights = load_file(place.base / "model.safetensors")
    cut = {name: t[:115].clone() if "wte" in name else t for name, t in weights.items()}
    save_file(cut, place.base / "model.safetensors", {"format": "pt"})
    place.edit_config("tokenizer_config.json", bos_token="!", eos_token="!")
    code, message = refuse(place.study(), place)
    assert code == INPUT
    assert "token id" in message and "embedding of 115" in message and ".txt" in message


def test_special_tokens_without_a_row_in_the_embedding_are_refused(place: Place) -> None:
    place.edit_config(vocab_size=256)  # every byte has a row, end-of-text (256) has none
    code, message = refuse(place.study(), place)
    assert code == INPUT
    assert "end-of-text id 256" in message or "start-of-text id 256" in message
    assert str(place.base) in message


# Models: what only the weights' file shows

Tensors = dict[str, torch.Tensor]


def change_weights(place: Place, change: Callable[[Tensors], object]) -> None:
    path = place.base / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def pickled(place: Place) -> None:
    path = place.base / "model.safetensors"
    torch.save(load_file(path), place.base / "pytorch_model.bin")
    path.unlink()


def replace_file(content: Callable[[bytes], bytes]) -> Callable[[Place], object]:
    def replace(place: Place) -> None:
        path = place.base / "model.safetensors"
        path.write_bytes(content(path.read_bytes()))

    return replace


LAST = "transformer.h.1.mlp.c_proj.weight"
WEIGHTS: dict[str, tuple[Callable[[Place], object], str]] = {
    "missing": (lambda p: change_weights(p, lambda t: t.pop(LAST)), f"lack {LAST}"),
    "extra": (
        lambda p: change_weights(p, lambda t: t.update({"transformer.odd": torch.ones(2)})),
        "transformer.odd",
    ),
    "mis-shaped": (
        lambda p: change_weights(p, lambda t: t.update({LAST: torch.ones(7, 32)})),
        LAST,
    ),
    "one-layer-less": (lambda p: p.edit_config(n_layer=3), "lack transformer.h.2."),
    "one-layer-more": (lambda p: p.edit_config(n_layer=1), "transformer.h.1."),
    "pickle": (pickled, "no .safetensors file"),
    "truncated": (replace_file(lambda raw: raw[:-100]), "cannot be read"),
    "lfs-pointer": (replace_file(lambda raw: POINTER.encode()), "cannot be read"),
    "giant-header": (replace_file(lambda raw: b"\xff" * 7 + b"\x7f" + raw[8:]), "cannot be read"),
    "emptied": (replace_file(lambda raw: b""), "cannot be read"),
}


@pytest.mark.parametrize("fault", WEIGHTS)
def test_unfit_weights_are_refused_before_the_study_starts(place: Place, fault: str) -> None:
    spoil, word = WEIGHTS[fault]
    spoil(place)
    code, message = refuse(place.study(), place)
    assert code == INPUT
    assert word in message and str(place.base) in message


@pytest.mark.parametrize("fault", ["missing", "mis-shaped", "one-layer-less", "pickle"])
def test_unfit_weights_stop_a_run_before_its_first_step(place: Place, fault: str) -> None:
    WEIGHTS[fault][0](place)
    study = place.study()
    (spec,) = expand_study(study)
    folder = StudyFolder(place.folder / "out").run(spec.run_id)
    with pytest.raises(UserError) as caught:
        reader = open_reader(study, place.places)
        execute_run(RunContext(spec=spec, folder=folder, reader=reader, device=CPU))
    assert caught.value.exit_code == INPUT
    assert not folder.steps.exists()
    failure = folder.read_result()
    assert failure is not None and failure.status == "failed"


# Models: what the configuration shows

CONFIGS = {
    "t5": {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 32},
    "bert": {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "unknown": {"model_type": "nosuchmodel", "architectures": ["NoSuchForCausalLM"]},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_model_of_another_kind_is_refused(place: Place, kind: str) -> None:
    (place.base / "config.json").write_text(json.dumps(CONFIGS[kind]))
    code, message = refuse(place.study(), place)
    assert code == INPUT
    assert str(place.base) in message
    assert CONFIGS[kind]["model_type"] in message


def test_a_quantised_model_is_refused(place: Place) -> None:
    place.edit_config(quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})
    code, message = refuse(place.study(), place)
    assert code == INPUT
    assert str(place.base) in message and "quantised" in message


def test_code_that_comes_with_a_model_is_never_run(place: Place, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    (place.base / "modeling_own.py").write_text(
        f"open({str(trace)!r}, 'w')\nclass Own: ...\nclass OwnConfig: ...\n"
    )
    place.edit_config(
        model_type="own",
        auto_map={
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.Own",
        },
    )
    code, message = refuse(place.study(), place)
    assert code == INPUT
    assert str(place.base) in message and "own code" in message
    assert not trace.exists()


def test_a_folder_without_a_configuration_is_refused(place: Place) -> None:
    (place.base / "config.json").unlink()
    code, message = refuse(place.study(), place)
    assert code == INPUT
    assert str(place.base) in message and "config.json" in message


def test_a_model_without_a_tokenizer_is_refused(place: Place) -> None:
    for path in place.base.glob("tokenizer*"):
        path.unlink()
    code, message = refuse(place.study(), place)
    assert code == INPUT
    assert str(place.base) in message and "tokenizer" in message


def test_a_model_that_is_nowhere_is_refused(place: Place) -> None:
    study = {**place.study().model_dump(), "base_model": {"id": "nobody/nothing"}}
    code, message = refuse(Study.model_validate(study), place)
    assert code == INPUT
    assert "nobody/nothing" in message


# Placements


def with_arm(place: Place, **changes: Any) -> Study:
    return place.study(arms=({**ARMS["lora"], **changes},))


def test_a_pattern_that_matches_nothing_is_refused_with_what_there_is(place: Place) -> None:
    code, message = refuse(with_arm(place, placement=("transformer.h.*.attn.c_prj",)), place)
    assert code == USAGE
    assert "'lora'" in message and "'transformer.h.*.attn.c_prj'" in message
    assert "transformer.h.*.attn.c_proj (2)" in message


def test_a_module_named_twice_is_refused(place: Place) -> None:
    placement = ("projection", "transformer.h.*.mlp.c_proj")
    code, message = refuse(with_arm(place, placement=placement), place)
    assert code == USAGE
    assert "transformer.h.0.mlp.c_proj" in message and "'projection'" in message


def test_an_adapter_on_a_tied_head_has_to_be_meant(place: Place) -> None:
    code, message = refuse(with_arm(place, placement=("lm_head",)), place)
    assert code == USAGE
    assert "lm_head" in message and "allow_tied" in message
    check_study(with_arm(place, placement=("lm_head",), allow_tied=True), place.places, CPU)


def test_arms_that_adapt_the_same_modules_are_refused(place: Place) -> None:
    twin = {**ARMS["lora"], "name": "twin", "placement": ("attention", "transformer.h.*.*.c_proj")}
    code, message = refuse(place.study(arms=(ARMS["lora"], twin)), place)
    assert code == USAGE
    assert "'lora'" in message and "'twin'" in message
