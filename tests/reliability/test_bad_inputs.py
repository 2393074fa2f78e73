"""R9: a table of bad inputs; each is refused by the command line before anything is trained.

The message names the key or file, the value and what is allowed, and no folder is left behind.
`tests/data`, `tests/model` and `tests/config` hold the finer cases.
"""

import io
import json
import os
import shutil
import statistics
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from lorastudy.config.spec import expand_study
from lorastudy.config.study_file import read_study_file
from lorastudy.errors import InputError
from lorastudy.run.context import RunContext
from lorastudy.run.execute import execute_run
from lorastudy.run.readers import open_reader
from lorastudy.store.folders import StudyFolder
from lorastudy.store.places import Places
from support.command_line import call, execute, write_study
from support.forked_studies import call_study
from support.reliability_rows import Row

CPU = torch.device("cpu")
CONFIG, INPUT = 2, 3
IN_PROCESSES = bool(os.environ.get("LORASTUDY_PROCESSES"))  # with imports, as a person waits
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123456\n"
ARM = "arms.lora."

PATTERN = "transformer.h.*.attn.c_attn"
TWIN = "{{name: {}, method: lora, placement: [{}], rank: 2, alpha: 4, learning_rates: [0.01]}}"

# name -> (--set values, exit code, words of the message)
SETTINGS: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "unknown key": (("training.epoch=3",), CONFIG, ("training.epoch", "did you mean 'epochs'")),
    "epochs 0": (("training.epochs=0",), CONFIG, ("training.epochs", "at least 1, not 0")),
    "epochs text": (("training.epochs=two",), CONFIG, ("training.epochs", "whole number")),
    "epochs -1": (("training.epochs=-1",), CONFIG, ("training.epochs", "at least 1, not -1")),
    "epochs 1.5": (("training.epochs=1.5",), CONFIG, ("training.epochs", "whole number", "1.5")),
    "unknown key of an arm": ((ARM + "rnak=2",), CONFIG, ("arms.lora.rnak", "did you mean 'rank'")),
    "micro-batch 0": (("training.micro_batch=0",), CONFIG, ("micro_batch", "at least 1, not 0")),
    "length 1": (("data.rows.length=1",), CONFIG, ("data.rows.length", "at least 2, not 1")),
    "warm-up 2": (("training.schedule.warmup=2.0",), CONFIG, ("schedule.warmup", "2.0")),
    "shape that is none": (
        ("training.schedule.shape=zigzag",),
        CONFIG,
        ("schedule.shape", "zigzag", "linear, cosine, constant"),
    ),
    "precision that is none": (
        ("training.precision=float16",),
        CONFIG,
        ("training.precision", "float16", "float32, bfloat16"),
    ),
    "method that is none": ((ARM + "method=lorra",), CONFIG, ("arms.lora.method", "'lora'")),
    "protocol that is none": (
        ("benchmarks.tale.protocols=[row-text]",),
        CONFIG,
        ("benchmarks.tale.protocols", "row-text", "rows-text"),
    ),
    "seeds text": (("seeds=[one]",), CONFIG, ("seeds", "one", "whole number")),
    "seed -1": (("seeds=[-1]",), CONFIG, ("seeds", "at least 0, not -1")),
    "no seeds": (("seeds=[]",), CONFIG, ("seeds", "must not be empty")),
    "no arms": (("arms=[]",), CONFIG, ("arms", "must not be empty")),
    "lora without rank": ((ARM + "rank=null",), CONFIG, ("arms.lora", "rank")),
    "full with rank": (("arms.full.rank=2",), CONFIG, ("arms.full", "rank")),
    "alpha nan": ((ARM + "alpha=.nan",), CONFIG, ("arms.lora.alpha", "finite")),
    "dropout nan": ((ARM + "dropout=.nan",), CONFIG, ("arms.lora.dropout", "finite")),
    "scored padding of full rows": (
        ("training.padding=scored", "data.rows.cut=stream"),
        CONFIG,
        ("training.padding", "data.rows.cut"),
    ),
    "arms of one name": (("arms.full.name=lora",), CONFIG, ("arms", "'lora'")),
    "arms equal after resolution": (
        (f"arms=[{TWIN.format('a', 'attention')}, {TWIN.format('b', PATTERN)}]",),
        CONFIG,
        ("'a'", "'b'", "the same"),
    ),
    "suffix that another tool would match twice": (
        (ARM + "placement=[c_proj]",),
        CONFIG,
        ("arms.lora.placement", "c_proj"),
    ),
    "benchmark name that is a path": (("benchmarks.tale.name=../x",), CONFIG, ("../x",)),
    "rank -1": ((ARM + "rank=-1",), CONFIG, ("arms.lora.rank", "-1")),
    "rate 1e9": ((ARM + "learning_rates=[1e9]",), CONFIG, ("learning_rates", "1000000000.0")),
    "rate nan": ((ARM + "learning_rates=[.nan]",), CONFIG, ("learning_rates", "finite")),
    "rate negative": ((ARM + "learning_rates=[-1e-3]",), CONFIG, ("learning_rates", "-0.001")),
    "dropout 1.5": ((ARM + "dropout=1.5",), CONFIG, ("arms.lora.dropout", "1.5")),
    "decay infinite": (("training.optimizer.weight_decay=.inf",), CONFIG, ("weight_decay",)),
    "micro-batch that does not divide": (
        ("training.micro_batch=3",),
        CONFIG,
        ("training", "micro_batch", "4"),
    ),
    "fewer rows than one step": (
        ("training.rows_per_step=20", "training.micro_batch=20"),
        CONFIG,
        ("rows_per_step: 20", "has 10"),
    ),
    "length beyond the context": (("data.rows.length=65",), CONFIG, ("65", "64 positions")),
    "window beyond the context": (
        ("benchmarks.tale.protocols=[blocks-65]",),
        CONFIG,
        ("blocks-65", "64 positions"),
    ),
    "sliding window beyond the context": (
        ("benchmarks.tale.protocols=[sliding-128-64]",),
        CONFIG,
        ("'sliding-128-64'", "64 positions"),
    ),
    "placement of nothing": (
        (ARM + "placement=[transformer.h.*.attn.c_prj]",),
        CONFIG,
        ("'lora'", "'transformer.h.*.attn.c_prj'", "transformer.h.*.attn.c_proj (2)"),
    ),
    "placement twice": (
        (ARM + "placement=[attention, transformer.h.*.attn.c_attn]",),
        CONFIG,
        ("transformer.h.0.attn.c_attn",),
    ),
    "type of layer and pattern that name one module": (
        (ARM + "placement=[projection, transformer.h.*.mlp.c_proj]",),
        CONFIG,
        ("transformer.h.0.mlp.c_proj", "'projection'"),
    ),
    "tied head": ((ARM + "placement=[lm_head]",), CONFIG, ("lm_head", "allow_tied")),
    "seeds twice": (("seeds=[0, 0]",), CONFIG, ("seeds",)),
    "arm name that is a path": ((ARM + "name=../../etc",), CONFIG, ("../../etc",)),
    "missing file": (("data.train.path=gone.txt",), INPUT, ("gone.txt", "does not exist")),
    "model that is nowhere": (
        ("base_model={id: nobody/nothing}",),
        INPUT,
        ("nobody/nothing", "local cache"),
    ),
    "data set that is nowhere, offline": (
        ("data.train={id: nobody/nothing, split: train}",),
        INPUT,
        ("nobody/nothing", "--mirror"),
    ),
    "missing file of validation": (
        ("data.validation.path=gone.txt",),
        INPUT,
        ("gone.txt", "does not exist"),
    ),
    "missing file of a benchmark": (
        ("benchmarks.tale.path=gone.txt",),
        INPUT,
        ("gone.txt", "does not exist"),
    ),
    "glob of nothing": (
        ("data.train.path=none/*.txt",),
        INPUT,
        ("none/*.txt", "does not match any file"),
    ),
    "every wrong path at once": (
        (
            "data.train.path=~/gone.txt",
            "benchmarks.tale.path=none/*.txt",
            "base_model.path=nowhere",
        ),
        INPUT,
        (
            "3 inputs",
            "nowhere has no config.json",
            "data.train: path '~/gone.txt' (/",
            "tale: path",
        ),
    ),
    "folder for a file": (("data.train.path=texts",), INPUT, ("texts", "is a folder")),
    "less than one row to train on": (
        ("data.rows={cut: stream, length: 64}", "data.train.path=texts/a.jsonl"),
        INPUT,
        ("a.jsonl", "less than one row of 64 tokens"),
    ),
    "less than one row": (
        ("data.rows={cut: stream, length: 64}", "data.validation.path=texts/a.jsonl"),
        INPUT,
        ("a.jsonl", "less than one row of 64 tokens"),
    ),
    "nothing to score": (
        ("benchmarks.tale.path=texts/a.jsonl", "benchmarks.tale.protocols=[blocks-32]"),
        INPUT,
        ("'tale'", "no scored token", "'blocks-32'"),
    ),
    "column that is not there": (
        ("data.train={path: texts/a.jsonl, column: body}",),
        INPUT,
        ("a.jsonl", "'body'", "text"),
    ),
}


def write_bytes(name: str, content: bytes) -> Callable[[Path, Path], object]:
    return lambda folder, base: (folder / "texts" / name).write_bytes(content)


def lines_as_train(name: str, content: bytes) -> Callable[[Path, Path], object]:
    """Train on the file `name` with this content."""

    def write(folder: Path, base: Path) -> None:
        (folder / "texts" / name).write_bytes(content)
        study = folder / "study.yaml"
        study.write_text(study.read_text().replace("texts/train.txt", f"texts/{name}"))

    return write


def table_of(**columns: list) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


PARQUET = table_of(text=["one line", "and another"] * 50)
NUMBERS, OTHER_COLUMN = table_of(text=[1, 2]), table_of(body=["x"])


def edit(**values: object) -> Callable[[Path, Path], object]:
    def change(folder: Path, base: Path) -> None:
        path = base / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def weights(change: Callable[[dict], object]) -> Callable[[Path, Path], object]:
    def rewrite(folder: Path, base: Path) -> None:
        path = base / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return rewrite


def code_of_its_own(folder: Path, base: Path) -> None:
    """Code beside the model, which leaves a trace if it is executed."""
    code = f"open({str(folder / 'it-ran')!r}, 'w')\nclass Own: ...\nclass OwnConfig: ...\n"
    (base / "modeling_own.py").write_text(code)
    classes = {"AutoConfig": "OwnConfig", "AutoModelForCausalLM": "Own"}
    named = {kind: f"modeling_own.{name}" for kind, name in classes.items()}
    edit(model_type="own", auto_map=named)(folder, base)


def few_embeddings(folder: Path, base: Path) -> None:
    """Rows for the tokens up to 114 only; 't' is 116."""
    edit(vocab_size=115)(folder, base)
    weights(lambda t: t.update({k: v[:115].clone() for k, v in t.items() if "wte" in k}))(
        folder, base
    )
    path = base / "tokenizer_config.json"
    ends = {"bos_token": "!", "eos_token": "!"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **ends}))


def malicious_pickle(folder: Path, base: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(folder / "it-ran"), "w"))

    (base / "model.safetensors").unlink()
    torch.save({"weights": Trap()}, base / "pytorch_model.bin")


def giant_header(folder: Path, base: Path) -> None:
    path = base / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])


LAST = "transformer.h.1.mlp.c_proj.weight"
TRAIN = "train.txt"
# name -> (what is done to texts and base model, exit code, words of the message)
FILES: dict[str, tuple[Callable[[Path, Path], object], int, tuple[str, ...]]] = {
    "empty split": (write_bytes(TRAIN, b""), INPUT, (TRAIN, "no document")),
    "all blank": (write_bytes(TRAIN, b"\n \n\t\n"), INPUT, (TRAIN, "blank")),
    "blank validation": (write_bytes("validation.txt", b"\n \n"), INPUT, ("validation", "blank")),
    "NUL in a benchmark": (write_bytes("test.txt", b"a\n\0\n"), INPUT, ("test.txt", "line 2")),
    "invalid UTF-8": (write_bytes(TRAIN, b"a\n\xff\n"), INPUT, (TRAIN, "line 2", "0xff")),
    "NUL": (write_bytes(TRAIN, b"a\n\0\n"), INPUT, (TRAIN, "line 2", "NUL")),
    **{
        f"{what} in {name}": (lines_as_train(name, content), INPUT, (name, *words))
        for what, name, content, words in (
            ("no JSON", "train.jsonl", b'{"text": "x"}\n{"text": \n', ("line 2", "not JSON")),
            ("a number", "train.jsonl", b'{"text": "x"}\n{"text": 7}\n', ("line 2", "int")),
            ("null", "train.jsonl", b'{"text": null}\n', ("line 1",)),
            ("a list", "train.jsonl", b'["x"]\n', ("line 1", "a list", "JSON object")),
            ("half a pair", "train.jsonl", b'{"text": "\\ud800"}\n', ("surrogate",)),
            ("no column", "train.csv", b"body\nx\n", ("'text'", "body")),
            ("a truncated table", "train.parquet", PARQUET[:-20], ("not a whole Parquet file",)),
            ("no table", "train.parquet", b"x" * 100, ("not a whole Parquet file",)),
            ("numbers", "train.parquet", NUMBERS, ("'text'", "int64")),
            ("no text column", "train.parquet", OTHER_COLUMN, ("'text'", "body")),
        )
    },
    "LFS pointer for data": (write_bytes(TRAIN, POINTER.encode()), INPUT, (TRAIN, "git lfs")),
    "missing weight": (weights(lambda t: t.pop(LAST)), INPUT, ("/base", f"lack {LAST}")),
    "mis-shaped weight": (
        weights(lambda t: t.update({LAST: torch.ones(7, 32)})),
        INPUT,
        ("/base", LAST),
    ),
    "weight too many": (weights(lambda t: t.update({"odd": torch.ones(2)})), INPUT, ("odd",)),
    "one layer less than its weights": (edit(n_layer=1), INPUT, ("transformer.h.1.",)),
    "no config": (lambda f, b: (b / "config.json").unlink(), INPUT, ("/base", "config.json")),
    "truncated config": (
        lambda f, b: (b / "config.json").write_text('{"model_type": "gp'),
        INPUT,
        ("config.json",),
    ),
    "truncated tokenizer": (
        lambda f, b: (b / "tokenizer.json").write_text('{"version": "1'),
        INPUT,
        ("tokenizer",),
    ),
    "no weights": (
        lambda f, b: (b / "model.safetensors").unlink(),
        INPUT,
        ("no .safetensors",),
    ),
    "empty weights": (
        lambda f, b: (b / "model.safetensors").write_bytes(b""),
        INPUT,
        ("cannot be read",),
    ),
    "one layer more than its weights": (edit(n_layer=3), INPUT, ("lack transformer.h.2.",)),
    "encoder-decoder": (
        edit(model_type="t5", architectures=["T5ForConditionalGeneration"], d_model=32),
        INPUT,
        ("/base", "t5"),
    ),
    "encoder": (edit(model_type="bert", architectures=["BertForMaskedLM"]), INPUT, ("bert",)),
    "model of an unknown kind": (
        edit(model_type="nosuchmodel", architectures=["NoSuchForCausalLM"]),
        INPUT,
        ("/base", "nosuchmodel"),
    ),
    "quantised": (
        edit(quantization_config={"quant_method": "gptq", "bits": 4}),
        INPUT,
        ("quantised",),
    ),
    "remote code": (code_of_its_own, INPUT, ("/base", "own code")),
    "malicious pickle": (malicious_pickle, INPUT, ("no .safetensors",)),
    "giant safetensors header": (giant_header, INPUT, ("cannot be read",)),
    "truncated weights": (
        lambda folder, base: (base / "model.safetensors").write_bytes(
            (base / "model.safetensors").read_bytes()[:-100]
        ),
        INPUT,
        ("cannot be read",),
    ),
    "LFS pointer for weights": (
        lambda folder, base: (base / "model.safetensors").write_text(POINTER),
        INPUT,
        ("cannot be read",),
    ),
    "no tokenizer": (
        lambda folder, base: [path.unlink() for path in base.glob("tokenizer*")],
        INPUT,
        ("tokenizer",),
    ),
    "tokenizer of another model": (edit(vocab_size=200), INPUT, ("200",)),
    "end of text without a row": (edit(vocab_size=256), INPUT, ("/base", "of-text id 256")),
    "token without a row": (few_embeddings, INPUT, (".txt", "token id", "embedding of 115")),
}


@pytest.fixture
def place(tiny_gpt2: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A sound study file, and a base model that may be spoilt."""
    base = tmp_path / "base"
    shutil.copytree(tiny_gpt2, base)
    study = write_study(tmp_path, base)
    (tmp_path / "texts" / "a.jsonl").write_text('{"text": "x"}\n')
    return study, base


def test_r9_every_bad_input_is_refused_before_training(tiny_gpt2: Path, tmp_path: Path) -> None:
    row, seconds, wrong = Row("R9"), [], []
    ask = execute if IN_PROCESSES else call_study
    cases = {
        **{
            name: (lambda f, b: None, sets, code, words)
            for name, (sets, code, words) in SETTINGS.items()
        },
        **{name: (spoil, (), code, words) for name, (spoil, code, words) in FILES.items()},
    }
    for number, (name, (spoil, sets, code, words)) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        base = folder / "base"
        shutil.copytree(tiny_gpt2, base)
        study = write_study(folder, base)
        (folder / "texts" / "a.jsonl").write_text('{"text": "x"}\n')
        spoil(folder, base)
        values = [part for value in sets for part in ("--set", value)]
        began = time.perf_counter()
        answer = ask("run", study, "--offline", "--out", folder / "out", *values)
        seconds.append(time.perf_counter() - began)
        missing = [word for word in words if word not in answer.err]
        left = (folder / "out").exists() or (folder / "it-ran").exists()
        if answer.code != code or missing or left or "Traceback" in answer.err:
            wrong.append((name, answer.code, missing, answer.err, left))
    n, median = len(cases), statistics.median(seconds)
    where = "each in a process of its own" if IN_PROCESSES else "in one process"
    row.show(f"{n - len(wrong)} of {n} refused before training, median {median:.2f} s, {where}")
    assert not wrong
    assert median < 2


def test_a_path_in_an_adapters_config_reads_nothing_but_the_given_model(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    study, base = place
    folder = tmp_path / "study"
    answer = call_study("run", study, "--out", folder, "--arm", "lora", "--seed", 0)
    assert answer.code == 0, answer.err
    (best,) = (folder / "runs").glob("lora-*/best")
    adapter = tmp_path / "adapter"
    shutil.copytree(best, adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    trap = tmp_path / "trap"
    for key, value in (("base_model_name_or_path", f"{trap}/../../etc"), ("revision", "../../x")):
        config[key] = value
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    command = ("--benchmark", study.parent / "texts" / "test.txt", "--protocol", "rows-text")
    scored = call("evaluate", base, "--adapter", adapter, *command, "--length", 40, "--json")
    plain = call("evaluate", base, "--adapter", best, *command, "--length", 40, "--json")
    assert scored.code == plain.code == 0, scored.err
    score = [json.loads(a.out)["evaluations"][0]["sum_nats"] for a in (scored, plain)]
    assert score[0] == score[1]
    assert not trap.exists()


@pytest.mark.parametrize(
    "fault",
    ["missing weight", "mis-shaped weight", "one layer more than its weights", "malicious pickle"],
)
def test_unfit_weights_stop_a_run_before_its_first_step(
    place: tuple[Path, Path], fault: str, tmp_path: Path
) -> None:
    path, base = place
    FILES[fault][0](tmp_path, base)
    study = read_study_file(path)
    spec = next(run for run in expand_study(study) if run.arm.name == "lora")
    folder = StudyFolder(tmp_path / "out").run(spec.run_id)
    reader = open_reader(study, Places(path.parent, offline=True, cache=tmp_path / "cache"))
    with pytest.raises(InputError):
        execute_run(RunContext(spec=spec, folder=folder, reader=reader, device=CPU))
    assert not folder.steps.exists()
    failure = folder.read_result()
    assert failure is not None and (failure.status, failure.exit_code) == ("failed", INPUT)


def test_texts_of_the_training_split_in_a_benchmark_are_counted(place: tuple[Path, Path]) -> None:
    study, _ = place
    texts = study.parent / "texts"
    lines = (texts / "train.txt").read_text().splitlines()
    (texts / "test.txt").write_text("\n".join(["A new line.", lines[2], f"  {lines[5]} ", "B."]))
    answer = call("check", study, "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["overlap"] == [{"benchmark": "tale", "documents": 2, "of": 4}]
    assert "2 of the 4 documents of tale are in the training split" in call("check", study).out
