"""This package's training loop on the same rows, step by step, as a run's process executes it."""

import argparse
from pathlib import Path

import numpy as np
import torch
from documents import ACCUMULATION, BATCH, END, LENGTH, draw_grouped_steps, draw_steps
from meter import report, report_step, resident_bytes, silence_output, wait_for_turn

from lorastudy.config import Arm, Training
from lorastudy.data import steps as data_steps
from lorastudy.data.batches import Padding
from lorastudy.data.rows import RowTable, cut_lines
from lorastudy.data.steps import StepPlan
from lorastudy.environment import keep_freed_memory
from lorastudy.model.adapters import attach_arm
from lorastudy.model.base import describe_base, load_base, quieten_libraries
from lorastudy.model.placement import ResolvedPlacement, resolve_placement
from lorastudy.model.scoring import make_scorer
from lorastudy.train.loop import Progress, StepDone, TrainingInputs, train
from lorastudy.train.optimizer import make_optimizer
from lorastudy.train.schedule import lay_out_schedule

CPU = torch.device("cpu")
PLACEMENTS = {
    "lora-1": ("attention",),
    "lora-2": ("attention", "projection"),
    "lora-3": ("attention", "projection", "feed-forward"),
    "lora-4": ("attention", "projection", "feed-forward", "output"),
}


def make_arm(name: str) -> Arm:
    """An arm of the study."""
    if name == "full":
        return Arm(name=name, method="full", learning_rates=(1e-4,))
    return Arm(
        name=name,
        method="lora",
        placement=PLACEMENTS[name],
        rank=16,
        alpha=32.0,
        dropout=0.1,
        allow_tied=name == "lora-4",
        learning_rates=(1e-3,),
    )


def make_table(rows: list[list[int]]) -> tuple[np.ndarray, RowTable]:
    """The rows as a corpus of documents and its table; the start token is the table's prefix."""
    offsets = np.concatenate([[0], np.cumsum([len(row) - 1 for row in rows])])
    tokens = np.array([token for row in rows for token in row[1:]], dtype=np.int64)
    return tokens, cut_lines(offsets, LENGTH, END)


def prepare(options: argparse.Namespace, rows: list[list[int]], per_step: int) -> TrainingInputs:
    """What the loop reads, made as a run makes it."""
    arm, base = make_arm(options.arm), describe_base(options.base)
    placement = ResolvedPlacement(())
    if arm.method == "lora":
        placement = resolve_placement(
            arm.name,
            arm.placement,
            base.linear_modules,
            model_type=base.model_type,
            allow_tied=arm.allow_tied,
        )
    network = load_base(options.base, device=CPU)
    model = attach_arm(network, arm, placement, seed=options.seed)
    settings = Training(
        epochs=1,
        rows_per_step=per_step,
        micro_batch=options.micro_batch,
        precision=options.precision,
        padding="scored" if options.scored else "masked",
    )
    tokens, table = make_table(rows)
    plan = StepPlan(len(rows), 1, per_step, options.micro_batch, "full", options.seed)
    return TrainingInputs(
        model=model,
        scorer=make_scorer(network, options.precision, implementation=options.implementation),
        optimizer=make_optimizer(model.trained_tensors(), settings.optimizer),
        schedule=lay_out_schedule(settings.schedule, arm.learning_rates[0], plan),
        settings=settings,
        plan=plan,
        table=table,
        tokens=tokens,
        padding=Padding(END, LENGTH if options.scored else None),
        device=CPU,
    )


def main() -> None:
    """Train step by step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--lengths", type=Path, required=True)
    parser.add_argument("--arm", choices=["full", *PLACEMENTS], default="lora-2")
    parser.add_argument("--micro-batch", type=int, default=BATCH)
    parser.add_argument("--rows", type=int, default=BATCH * ACCUMULATION)
    parser.add_argument("--grouped", action="store_true")
    parser.add_argument("--scored", action="store_true")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--implementation", choices=["fast", "reference"], default="fast")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    silence_output()
    quieten_libraries()
    keep_freed_memory()
    torch.set_num_threads(options.threads)

    if options.grouped:
        steps = draw_grouped_steps(options.lengths, options.steps, options.seed)
    else:
        steps = draw_steps(options.lengths, options.steps, options.rows, options.seed)
    if options.scored:
        steps = steps[1:]
    rows = [row for step in steps for row in step]
    # rows in the order given, as on the other side
    data_steps.order_of_epoch = lambda _seed, _epoch, n_rows: np.arange(n_rows)
    inputs = prepare(options, rows, options.rows)
    report(ready=True, start_bytes=resident_bytes())
    events = (e for e in train(inputs, Progress()) if isinstance(e, StepDone))
    for step in steps:
        begin = wait_for_turn()
        next(events)
        report_step(begin, sum(map(len, step)))


if __name__ == "__main__":
    main()
