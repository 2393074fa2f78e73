"""This package's training loop on the same rows, step by step, as a run's process executes it."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from documents import BATCH, Documents, Rows
from meter import peak_bytes, report, report_step, side_parser, silence_output, wait_for_turn

from lorastudy.config.models import Arm, Training
from lorastudy.data import steps as data_steps
from lorastudy.data.batches import Padding
from lorastudy.data.rows import RowTable, cut_lines
from lorastudy.data.steps import StepPlan
from lorastudy.machine.environment import forbid_tf32, set_up_memory
from lorastudy.model.adapters import ArmModel, attach_arm
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.base import describe_base, load_base, move_model, quieten_libraries
from lorastudy.model.scoring import make_scorer
from lorastudy.store.training_state import Progress
from lorastudy.train.groups import TrainingInputs
from lorastudy.train.loop import StepDone, train
from lorastudy.train.optimizer import make_optimizer
from lorastudy.train.schedule import lay_out_schedule

CPU = torch.device("cpu")
PLACEMENTS = {
    "lora-1": ("attention",),
    "lora-2": ("attention", "projection"),
    "lora-3": ("attention", "projection", "feed-forward"),
    "lora-4": ("attention", "projection", "feed-forward", "output"),
}


VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "bfloat16-base": {"base_weights": "bfloat16"},
}
VERA = {"peft_type": "VERA", "r": 64, "vera_dropout": 0.1}


def make_arm(name: str, rank: int = 16) -> Arm:
    """An arm of the study, perhaps in a variant: `lora-2+dora`."""
    if name == "full":
        return Arm(name=name, method="full", learning_rates=(1e-4,))
    plain, _, variant = name.partition("+")
    if variant == "vera":
        return Arm(
            name="vera",
            method="peft",
            peft=VERA,
            placement=PLACEMENTS[plain],
            learning_rates=(1e-3,),
        )
    return Arm(
        name=plain,
        method="lora",
        placement=PLACEMENTS[plain],
        rank=rank,
        alpha=2.0 * rank,
        dropout=0.1,
        allow_tied=plain == "lora-4",
        learning_rates=(1e-3,),
        **VARIANTS[variant],
    )


def load_arm(folder: Path, arm: Arm, seed: int, device: torch.device = CPU) -> ArmModel:
    """The base model with what the arm trains."""
    placement = resolve_arm(arm, describe_base(folder))
    base = load_base(folder, device=device, base_weights=arm.base_weights)
    model = attach_arm(base, arm, placement, seed=seed)
    move_model(model.network, device)
    return model


def make_table(rows: Rows, longest: int) -> tuple[np.ndarray, RowTable]:
    """The rows as a corpus of documents and its table; the start token is the table's prefix."""
    offsets = np.concatenate([[0], np.cumsum([len(row) - 1 for row in rows])])
    tokens = np.array([token for row in rows for token in row[1:]], dtype=np.int64)
    return tokens, cut_lines(offsets, longest, rows[0][0])


def prepare(
    model: ArmModel,
    rows: Rows,
    settings: Training,
    *,
    longest: int,
    device: torch.device = CPU,
) -> TrainingInputs:
    """What the loop reads, made as a run makes it."""
    tokens, table = make_table(rows, longest)
    plan = StepPlan(
        len(rows), settings.epochs, settings.rows_per_step, settings.micro_batch, "full", 0
    )
    scorer = make_scorer(model.network, settings.precision, implementation=settings.implementation)
    return TrainingInputs(
        model=model,
        scorer=scorer,
        optimizer=make_optimizer(model.trained_tensors(), settings.optimizer),
        schedule=lay_out_schedule(settings.schedule, 1e-4, plan),
        settings=settings,
        plan=plan,
        table=table,
        tokens=tokens,
        padding=Padding(rows[0][0], longest if settings.padding == "scored" else None),
        device=device,
    )


def keep_order() -> None:
    """Rows come in the order given, as on the other side."""
    data_steps.order_of_epoch = lambda _seed, _epoch, n_rows: np.arange(n_rows)


def start_process(options: argparse.Namespace) -> None:
    """As a run's process starts."""
    silence_output()
    quieten_libraries()
    set_up_memory()
    forbid_tf32()
    torch.set_num_threads(options.threads)


def main() -> None:
    """Train step by step."""
    parser = side_parser(__doc__)
    parser.add_argument("--token-budget", type=int, help="of a pass; a step in one without it")
    parser.add_argument(
        "--implementation", choices=["fast", "compiled", "reference"], default="fast"
    )
    options = parser.parse_args()
    start_process(options)
    keep_order()
    documents = Documents(options.base, options.texts, options.seed)
    if options.mode == "grouped":
        steps = documents.grouped_steps(options.steps, options.micro_batches)
    else:
        steps = documents.steps(options.steps, options.micro_batches, options.first)
    per_step = BATCH * options.micro_batches
    settings = Training(
        epochs=1,
        rows_per_step=per_step,
        micro_batch=options.batch,
        token_budget=options.token_budget,
        precision=options.precision,
        padding="scored" if options.mode == "scored" else "masked",
        implementation=options.implementation,
    )
    device = torch.device(options.device)
    model = load_arm(options.base, make_arm(options.arm), options.seed, device)
    rows = [row for step in steps for row in step]
    inputs = prepare(model, rows, settings, longest=documents.longest, device=device)
    report(ready=True, start_bytes=peak_bytes(options.device))
    events = (e for e in train(inputs, Progress()) if isinstance(e, StepDone))
    for step in steps:
        begin = wait_for_turn()
        next(events)
        report_step(begin, sum(map(len, step)), options.device)


if __name__ == "__main__":
    main()
