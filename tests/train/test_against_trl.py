"""Labels and losses against TRL's SFTTrainer; needs the extra `trl`."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, TrainerCallback

from lorastudy.config.models import Arm, Optimizer, Schedule, Training
from lorastudy.data.answers import AnswerRules, encode_examples
from lorastudy.data.batches import Padding
from lorastudy.data.examples import read_example
from lorastudy.data.rows import Marks, cut_answers
from lorastudy.data.steps import StepPlan
from lorastudy.errors import InputError
from lorastudy.model.adapters import attach_arm
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.base import describe_base, load_base
from lorastudy.model.scoring import make_scorer
from lorastudy.model.tokenizer import Tokenizer, load_tokenizer
from lorastudy.store.training_state import Progress
from lorastudy.train.groups import TrainingInputs
from lorastudy.train.loop import StepDone, train
from lorastudy.train.optimizer import make_optimizer
from lorastudy.train.schedule import lay_out_schedule
from support.chats import say

trl = pytest.importorskip("trl", reason="the extra `trl` is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

FOLDER = Path(trl.__file__).parent / "chat_templates"
# these want a list of parts as the content, for pictures; or they end no last turn
UNFIT = ("idefics3", "llava_next", "smolvlm", "glm4moe.")
TALK = say("Who is i?", "I am.", "And user?", " That is <b>. ")
CHATS = [{"messages": TALK}, {"messages": TALK[:2]}]
PAIRS = [
    {"prompt": TALK[:1], "completion": TALK[1:2]},
    {"prompt": TALK[:3], "completion": TALK[3:]},
]
TEXTS = [
    {"prompt": f"{a} + {b} =", "completion": f" {a + b}" * (1 + b % 3)}
    for a in range(3, 8)
    for b in range(8, 14)
]


def prepare_with_trl(tokenizer: Tokenizer, rows: list[Any], **settings: bool) -> list[Any]:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    asked = {"dataset_num_proc": None, "dataset_text_field": "text", "max_length": None}
    arguments = SimpleNamespace(
        **{**asked, "assistant_only_loss": False, "shuffle_dataset": False, **settings}
    )
    trainer = SimpleNamespace(
        _tokenizer=tokenizer.backend, chat_template=None, completion_only_loss="prompt" in rows[0]
    )
    prepare = trl.SFTTrainer._prepare_dataset
    found = prepare(
        trainer, Dataset.from_list(rows), tokenizer.backend, arguments, False, None, "train"
    )
    return [(row["input_ids"], row["labels"]) for row in found]


def prepare_here(tokenizer: Tokenizer, rows: list[Any], **settings: bool) -> list[Any]:
    examples = [read_example(f"row {n}", [*row.values()]) for n, row in enumerate(rows, 1)]
    return [
        (row.ids.tolist(), np.where(row.is_scored, row.ids, -100).tolist())
        for row in encode_examples(examples, tokenizer, AnswerRules(**settings))
    ]


def tokenizer_for(folder: Path, template: str) -> Tokenizer:
    tokenizer = load_tokenizer(folder, template)
    marks = sorted(set(re.findall(r"<[|\uff5ca-z/_][^<>\s{}'\"]*>", template)))
    tokenizer.backend.add_tokens(marks, special_tokens=True)
    return tokenizer


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jinja")), ids=lambda path: path.stem)
def test_labels_are_those_of_trl_for_its_templates(path: Path, byte_tokenizer: Path) -> None:
    tokenizer = tokenizer_for(byte_tokenizer, path.read_text(encoding="utf-8"))
    if path.name.startswith(UNFIT):
        with pytest.raises(InputError):
            prepare_here(tokenizer, PAIRS)
        return
    assert prepare_here(tokenizer, PAIRS) == prepare_with_trl(tokenizer, PAIRS)
    only = {"assistant_only_loss": "_training" in path.name}
    assert prepare_here(tokenizer, CHATS, **only) == prepare_with_trl(tokenizer, CHATS, **only)


def test_labels_of_plain_text_are_those_of_trl(byte_tokenizer: Path) -> None:
    tokenizer = load_tokenizer(byte_tokenizer)
    assert prepare_here(tokenizer, TEXTS) == prepare_with_trl(tokenizer, TEXTS)


def make_inputs(folder: Path) -> TrainingInputs:
    """Full fine-tuning on `TEXTS` without dropout, 6 rows per step in 3 micro-batches."""
    tokenizer = load_tokenizer(folder)
    examples = [read_example("", [*row.values()]) for row in TEXTS]
    rows = list(encode_examples(examples, tokenizer, AnswerRules()))
    marks = Marks(
        np.concatenate([r.is_scored for r in rows]), np.concatenate([r.classes for r in rows])
    )
    table = cut_answers(np.cumsum([0, *(len(r.ids) for r in rows)]), 64, marks, drops_long=False)
    arm = Arm(name="full", method="full", learning_rates=(1e-3,))
    network = load_base(folder, device=torch.device("cpu"))
    model = attach_arm(network, arm, resolve_arm(arm, describe_base(folder)), seed=3)
    without_dropout(network)
    settings = Training(
        epochs=1,
        rows_per_step=6,
        micro_batch=2,
        schedule=Schedule(warmup=0.0),
        optimizer=Optimizer(weight_decay=0.0, max_grad_norm=1.0),
    )
    plan = StepPlan(table.n_rows, 1, 6, 2, "full", seed=3)
    return TrainingInputs(
        model=model,
        scorer=make_scorer(network, "float32"),
        optimizer=make_optimizer(model.trained_tensors(), settings.optimizer),
        schedule=lay_out_schedule(settings.schedule, 1e-3, plan),
        settings=settings,
        plan=plan,
        table=table,
        tokens=np.concatenate([r.ids for r in rows]),
        padding=Padding(tokenizer.end_id),
        device=torch.device("cpu"),
    )


def without_dropout(network: torch.nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


class Losses(TrainerCallback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        self.values += [logs["loss"]] if logs and "loss" in logs else []


def rows_in_order(plan: StepPlan) -> Iterator[dict[str, str]]:
    for index in range(plan.n_micro_batches):
        yield from (TEXTS[row] for row in plan.rows_of(index))


def test_losses_are_those_of_sft_trainer(tiny_gpt2: Path, tmp_path: Path) -> None:
    from datasets import Dataset

    inputs, losses = make_inputs(tiny_gpt2), Losses()
    network = AutoModelForCausalLM.from_pretrained(tiny_gpt2, dtype=torch.float32)
    without_dropout(network)
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=3,
        num_train_epochs=1,
        learning_rate=1e-3,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )

    class InOrder(trl.SFTTrainer):
        def _get_train_sampler(self, *_: object) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

    InOrder(
        model=network,
        args=arguments,
        train_dataset=Dataset.from_list(list(rows_in_order(inputs.plan))),
        processing_class=load_tokenizer(tiny_gpt2).backend,
        callbacks=[losses],
    ).train()
    ours = [e.record.loss for e in train(inputs, Progress()) if isinstance(e, StepDone)]
    assert len(ours) == len(losses.values) == 5
    assert max(abs(a - b) for a, b in zip(ours, losses.values, strict=True)) < 1e-5
    assert ours[-1] < ours[0] - 0.05  # it does learn
