"""The loop against Hugging Face Trainer + PEFT: same start, same order, no dropout."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import (
    AutoModelForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from lorastudy.config.models import Arm, Optimizer, Schedule, Training
from lorastudy.data.batches import Padding
from lorastudy.data.rows import RowTable, cut_lines
from lorastudy.data.steps import StepPlan
from lorastudy.model.adapters import ArmModel, attach_arm
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.base import describe_base, load_base
from lorastudy.model.scoring import make_scorer
from lorastudy.store.training_state import Progress
from lorastudy.train.groups import TrainingInputs
from lorastudy.train.loop import StepDone, train
from lorastudy.train.optimizer import make_optimizer
from lorastudy.train.schedule import lay_out_schedule

N_STEPS, ROWS_PER_STEP, MICRO_BATCH, LENGTH, PAD = 30, 6, 2, 24, 256
CPU = torch.device("cpu")
LORA = {"method": "lora", "rank": 4, "alpha": 8.0}
ARMS = {
    "attention": Arm(name="a", placement=("attention",), learning_rates=(1e-2,), **LORA),
    "all": Arm(
        name="b",
        placement=("attention", "projection", "feed-forward", "output"),
        learning_rates=(1e-2,),
        **LORA,
    ),
    "full": Arm(name="c", method="full", learning_rates=(1e-3,)),
}


@pytest.fixture(scope="module")
def corpus() -> tuple[np.ndarray, RowTable]:
    """180 documents of 1 to 40 tokens out of 16, cut to rows of at most 24."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(1, 40, size=N_STEPS * ROWS_PER_STEP)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return rng.integers(0, 16, size=offsets[-1]), cut_lines(offsets, LENGTH, PAD)


def without_dropout(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def settings_of(arm: Arm) -> Training:
    # Trainer leaves biases and norms out of the decay, AdamW does not: compare full without it
    decay = 0.0 if arm.method == "full" else 0.01
    return Training(
        epochs=1,
        rows_per_step=ROWS_PER_STEP,
        micro_batch=MICRO_BATCH,
        schedule=Schedule(warmup=0.2),
        optimizer=Optimizer(weight_decay=decay, max_grad_norm=1.0),
    )


def prepare(folder: Path, arm: Arm, corpus: tuple[np.ndarray, RowTable]) -> TrainingInputs:
    tokens, table = corpus
    placement = resolve_arm(arm, describe_base(folder))
    network = load_base(folder, device=CPU)
    model = attach_arm(network, arm, placement, seed=3)
    without_dropout(network)
    settings = settings_of(arm)
    plan = StepPlan(table.n_rows, 1, ROWS_PER_STEP, MICRO_BATCH, "full", seed=3)
    return TrainingInputs(
        model=model,
        scorer=make_scorer(network, "float32"),
        optimizer=make_optimizer(model.trained_tensors(), settings.optimizer),
        schedule=lay_out_schedule(settings.schedule, arm.learning_rates[0], plan),
        settings=settings,
        plan=plan,
        table=table,
        tokens=tokens,
        padding=Padding(PAD),
        device=CPU,
    )


class Losses(TrainerCallback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs and "loss" in logs:
            self.values.append(logs["loss"])


class InOrder(Trainer):
    def _get_train_sampler(self, *_: object) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    width = max(len(row["ids"]) for row in rows)
    ids = torch.full((len(rows), width), PAD)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row["ids"])] = torch.tensor(row["ids"])
        mask[i, : len(row["ids"])] = 1
    labels = ids.masked_fill(mask == 0, -100)
    # Never a target, but Trainer (transformers 5.23) counts it for GPT-2 and divides by too much.
    labels[:, 0] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def rows_in_order(inputs: TrainingInputs) -> Iterator[dict[str, list[int]]]:
    table = inputs.table
    for index in range(inputs.plan.n_micro_batches):
        for row in inputs.plan.rows_of(index):
            text = inputs.tokens[table.begins[row] : table.ends[row]]
            yield {"ids": [PAD, *text.tolist()]}


def reference_model(folder: Path, arm: Arm, start: dict[str, torch.Tensor]) -> nn.Module:
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if arm.method == "lora":
        targets = sorted({name.split(".lora_")[0] for name in start})
        config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
        network = get_peft_model(network, config)
    with torch.no_grad():
        for name, parameter in trained(network).items():
            parameter.copy_(start[name])
    return without_dropout(network)


def trained(network: nn.Module) -> dict[str, nn.Parameter]:
    return {
        name.removeprefix("base_model.model."): p
        for name, p in network.named_parameters()
        if p.requires_grad
    }


def train_reference(network: nn.Module, inputs: TrainingInputs, folder: Path) -> list[float]:
    losses = Losses()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=ROWS_PER_STEP // MICRO_BATCH,
        num_train_epochs=1,
        learning_rate=inputs.schedule.peak,
        lr_scheduler_type="linear",
        warmup_steps=inputs.schedule.n_warmup,
        weight_decay=inputs.settings.optimizer.weight_decay,
        max_grad_norm=1.0,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    InOrder(
        model=network,
        args=arguments,
        train_dataset=list(rows_in_order(inputs)),
        data_collator=collate,
        callbacks=[losses],
    ).train()
    return losses.values


def snapshot(model: ArmModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.trained_tensors().items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS.keys())
@pytest.mark.parametrize("layout", ["tiny_gpt2", "tiny_llama"])
def test_losses_and_weights_are_those_of_trainer_and_peft(
    layout: str,
    arm: Arm,
    corpus: tuple[np.ndarray, RowTable],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    folder = request.getfixturevalue(layout)
    inputs = prepare(folder, arm, corpus)
    start = snapshot(inputs.model)
    reference = reference_model(folder, arm, start)
    assert isinstance(reference, PeftModel) == (arm.method == "lora")

    ours = [e.record.loss for e in train(inputs, Progress()) if isinstance(e, StepDone)]
    theirs = train_reference(reference, inputs, tmp_path)

    assert len(ours) == len(theirs) == N_STEPS
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-5 * ours[0]
    assert ours[-1] < ours[0] - 0.05  # it does learn
    end = trained(reference)
    for name, tensor in snapshot(inputs.model).items():
        assert torch.allclose(
            with_gradient(name, tensor), with_gradient(name, end[name]), rtol=0, atol=1e-4
        ), name
        assert not torch.equal(tensor, start[name]), name


def with_gradient(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without its key bias, which softmax cancels: AdamW turns its rounding to noise."""
    if not name.endswith("attn.c_attn.bias"):
        return tensor
    query, _, value = tensor.chunk(3)
    return torch.cat([query, value])
