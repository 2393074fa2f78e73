"""Identities of runs: stable, and different exactly where the trained weights may differ."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lorastudy
from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec, expand_study
from lorastudy.config.study_file import load_study, preset_text


def load(*overrides: str) -> Study:
    return load_study(preset_text("demo"), "demo", overrides)


def lora_run(*overrides: str) -> RunSpec:
    return next(spec for spec in expand_study(load(*overrides)) if spec.arm.method == "lora")


def test_runs_go_by_arm_then_rate_then_seed() -> None:
    full = "{name: full, method: full, learning_rates: [2e-4, 1e-4]}"
    arms = f"arms=[{{name: base, method: baseline}}, {full}]"
    specs = expand_study(load(arms, "seeds=[3, 1]"))
    assert [(s.arm.name, s.learning_rate, s.seed) for s in specs] == [
        ("base", None, 3),
        ("full", 2e-4, 3),
        ("full", 2e-4, 1),
        ("full", 1e-4, 3),
        ("full", 1e-4, 1),
    ]


def test_a_baseline_runs_once() -> None:
    methods = [spec.arm.method for spec in expand_study(load())]
    assert methods.count("baseline") == 1
    assert len(methods) == 1 + 5 * 3


def test_run_ids_are_distinct_and_name_arm_and_seed() -> None:
    study = load_study(preset_text("paper-sound"), "paper-sound")
    rates = {arm.name: arm.learning_rates[1] for arm in study.arms if arm.learning_rates}
    specs = expand_study(study, rates)
    ids = [spec.run_id for spec in specs]
    assert len(set(ids)) == len(ids) == 37
    for spec in specs:
        assert spec.run_id == f"{spec.arm.name}-s{spec.seed}-{spec.identity[:8]}"
        assert len(spec.identity) == 64


def test_run_ids_are_the_same_in_another_process() -> None:
    code = (
        "from lorastudy.config.spec import expand_study; from lorastudy.config.study_file import *;"
        "print(*[s.run_id for s in expand_study(load_study(preset_text('demo'), 'demo'))])"
    )
    source = str(Path(lorastudy.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.split() == [spec.run_id for spec in expand_study(load())]


@pytest.mark.parametrize(
    "override",
    [
        "base_model={id: owner/model}",
        "base_model={path: folder}",
        "data.train={path: a.txt}",
        "data.train.limit=100",
        "data.validation.limit=100",
        "data.rows.length=64",
        "data.rows.cut=stream",
        "data.rows.strip=false",
        "training.epochs=3",
        "training.rows_per_step=32",
        "training.micro_batch=4",
        "training.schedule.shape=cosine",
        "training.schedule.warmup=0.2",
        "training.schedule.counted_in=micro-batches",
        "training.schedule.rounding=down",
        "training.optimizer.weight_decay=0.1",
        "training.optimizer.betas=[0.9, 0.99]",
        "training.optimizer.eps=1e-9",
        "training.optimizer.max_grad_norm=null",
        "training.precision=bfloat16",
        "training.padding=scored",
        "training.accumulation=micro-batch-means",
        "training.first_group=one",
        "training.token_budget=1000",
        "training.implementation=reference",
        "training.validate_every=5",
        "training={epochs: 4, rows_per_step: 8, micro_batch: 8, early_stopping: {patience: 2}}",
        "data.train={mixture: [{path: a.txt, weight: 1}, {path: b.txt, weight: 3}]}",
        "data.validation={from_train: 0.1}",
        "seeds=[5]",
        "arms.lora-1.placement=[attention-projection]",
        "arms.lora-1.rank=32",
        "arms.lora-1.alpha=20",
        "arms.lora-1.dropout=0.0",
        "arms.lora-1.allow_tied=true",
        "arms.lora-1.learning_rates=[2e-3]",
    ],
)
def test_whatever_training_depends_on_changes_the_identity(override: str) -> None:
    assert lora_run(override).identity != lora_run().identity


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "data.rows.strip=true",
        "training.schedule.rounding=up",
        "benchmarks=[]",
        "benchmarks.docstrings.protocols=[document]",
        "arms.lora-1.name=renamed",
        "arms.full.learning_rates=[1e-5]",
        "seeds=[0, 1, 2]",
        "arms.lora-1.alpha=32.0",
        "margin=0.05",
        "question=full-or-lora",
        "question=[lora-1, lora-2]",
    ],
)
def test_whatever_leaves_the_weights_alone_keeps_the_identity(override: str) -> None:
    assert lora_run(override).identity == lora_run().identity


def test_the_order_of_a_placement_keeps_the_identity() -> None:
    a, b = (f"arms.lora-1.placement=[{p}]" for p in ("output, h.*.c", "h.*.c, output"))
    assert lora_run(a).identity == lora_run(b).identity


def test_a_spec_survives_its_json() -> None:
    null, down = "training.optimizer.max_grad_norm=null", "training.schedule.rounding=down"
    for spec in (*expand_study(load(null)), *expand_study(load(down))):
        text = spec.model_dump_json()
        assert json.loads(text)["seed"] == spec.seed
        again = RunSpec.model_validate_json(text)
        assert again == spec
        assert again.run_id == spec.run_id
