"""The peer: Hugging Face Trainer and PEFT, as their documentation shows them, step by step.

Settings are the defaults but for those of the study: rank 16, alpha 32, dropouts 0.1, linear
schedule. Rows come in the order given, so that both sides compute the same ones.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import torch
import transformers
from documents import (
    ACCUMULATION,
    BATCH,
    END,
    LENGTH,
    draw_grouped_steps,
    draw_steps,
    join_to_blocks,
)
from meter import report, report_step, resident_bytes, silence_output, wait_for_turn
from peft import LoraConfig, get_peft_model
from torch.utils.data import Sampler, SequentialSampler
from transformers import (
    AutoModelForCausalLM,
    DataCollatorWithFlattening,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

TARGETS = {
    "lora-1": ["c_attn"],
    "lora-2": ["c_attn", "c_proj"],
    "lora-3": ["c_attn", "c_proj", "c_fc"],
    "lora-4": ["c_attn", "c_proj", "c_fc", "lm_head"],
}
MODES = ("padded", "scored", "dynamic", "grouped", "flattened", "blocks")
Row = dict[str, list[int]]


class Padder:
    """Rows to tensors, padded on the right to the longest or to the full length."""

    def __init__(self, mode: str) -> None:
        self.is_full, self.is_scored = mode in ("padded", "scored"), mode == "scored"

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Ids, attention mask and labels."""
        texts = [torch.tensor(row["input_ids"]) for row in rows]
        width = LENGTH if self.is_full else max(map(len, texts))
        ids = torch.full((len(rows), width), END)
        mask = torch.zeros_like(ids)
        for i, text in enumerate(texts):
            ids[i, : len(text)] = text
            mask[i, : len(text)] = 1
        labels = ids.clone() if self.is_scored else ids.masked_fill(mask == 0, -100)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class InOrder(Trainer):
    """Trainer without shuffling."""

    def _get_train_sampler(self, *_: object) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)


class OnCommand(TrainerCallback):
    """Starts every optimizer step when the driver says so."""

    def __init__(self, tokens_of_steps: list[int]) -> None:
        self._tokens = iter(tokens_of_steps)

    def on_step_begin(self, *_: object, **__: object) -> None:
        """Wait."""
        self._begin = wait_for_turn()

    def on_step_end(self, *_: object, **__: object) -> None:
        """Tell."""
        report_step(self._begin, next(self._tokens))


def load_model(base: Path, arm: str) -> torch.nn.Module:
    """The base model, with an adapter unless everything is trained."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if arm == "full":
        return model
    settings = LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.1,
        target_modules=TARGETS[arm],
        task_type="CAUSAL_LM",
        fan_in_fan_out=True,
    )
    return get_peft_model(model, settings)


def main() -> None:
    """Train step by step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--lengths", type=Path, required=True)
    parser.add_argument("--arm", choices=["full", *TARGETS], default="lora-2")
    parser.add_argument("--mode", choices=MODES, default="dynamic")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--accumulation", type=int, default=ACCUMULATION)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    silence_output()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    per_step = options.batch * options.accumulation
    if options.mode == "grouped":
        steps = draw_grouped_steps(options.lengths, options.steps, options.seed)
    elif options.mode == "blocks":
        rows = draw_steps(options.lengths, 1, per_step * (options.steps + 1) * 6, options.seed)[1]
        blocks = join_to_blocks(rows)
        steps = [blocks[i * per_step : (i + 1) * per_step] for i in range(options.steps + 1)]
    else:
        steps = draw_steps(options.lengths, options.steps, per_step, options.seed)
    if options.mode in ("padded", "scored"):
        steps = steps[1:]  # where every row is padded to the full length, warming up costs as much

    model = load_model(options.base, options.arm)
    flattened = options.mode == "flattened"
    with tempfile.TemporaryDirectory() as folder:
        trainer = InOrder(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=options.batch,
                gradient_accumulation_steps=options.accumulation,
                max_steps=len(steps),
                learning_rate=1e-4 if options.arm == "full" else 1e-3,
                warmup_steps=1,
                bf16=options.precision == "bfloat16",
                gradient_checkpointing=options.checkpointing,
                use_cpu=True,
                dataloader_pin_memory=False,
                remove_unused_columns=False,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=[{"input_ids": row} for step in steps for row in step],
            data_collator=DataCollatorWithFlattening() if flattened else Padder(options.mode),
            callbacks=[OnCommand([sum(map(len, step)) for step in steps])],
        )
        report(ready=True, start_bytes=resident_bytes())
        trainer.train()


if __name__ == "__main__":
    main()
