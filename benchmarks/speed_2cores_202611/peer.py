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
from documents import Documents, Rows, join_to_blocks
from meter import peak_bytes, report, report_step, side_parser, silence_output, wait_for_turn
from peft import LoraConfig, VeraConfig, get_peft_model
from torch.utils.data import Sampler, SequentialSampler
from transformers import (
    AutoModelForCausalLM,
    DataCollatorWithFlattening,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

TARGETS = {
    "gpt2": {
        "lora-1": ["c_attn"],
        "lora-2": ["c_attn", "c_proj"],
        "lora-3": ["c_attn", "c_proj", "c_fc"],
        "lora-4": ["c_attn", "c_proj", "c_fc", "lm_head"],
    },
    "llama": {"lora-2": ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]},
}
Row = dict[str, list[int]]


class Padder:
    """Rows to tensors, padded on the right to the longest or to the full length."""

    def __init__(self, mode: str, width: int, end: int) -> None:
        self.width = width if mode in ("padded", "scored") else None
        self.is_scored, self.end = mode == "scored", end

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Ids, attention mask and labels."""
        texts = [torch.tensor(row["input_ids"]) for row in rows]
        width = self.width or max(map(len, texts))
        ids = torch.full((len(rows), width), self.end)
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

    def __init__(self, tokens_of_steps: list[int], device: str) -> None:
        self._tokens, self._device = iter(tokens_of_steps), device

    def on_step_begin(self, *_: object, **__: object) -> None:
        """Wait."""
        self._begin = wait_for_turn()

    def on_step_end(self, *_: object, **__: object) -> None:
        """Tell."""
        report_step(self._begin, next(self._tokens), self._device)


def load_model(base: Path, arm: str, rank: int = 16) -> torch.nn.Module:
    """The base model, with an adapter unless everything is trained; variants as in ours.py."""
    arm, _, variant = arm.partition("+")
    dtype = torch.bfloat16 if variant == "bfloat16-base" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    if arm == "full":
        return model
    family = model.config.model_type
    shared = {
        "target_modules": TARGETS[family][arm],
        "task_type": "CAUSAL_LM",
        "fan_in_fan_out": family == "gpt2",
    }
    if variant == "vera":
        return get_peft_model(model, VeraConfig(r=64, vera_dropout=0.1, **shared))
    settings = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.1,
        use_rslora=variant == "rslora",
        use_dora=variant == "dora",
        **shared,
    )
    return get_peft_model(model, settings)


def rows_of_steps(documents: Documents, options: argparse.Namespace) -> list[Rows]:
    """Rows of every optimizer step, that before the timed ones first."""
    n_steps, micro_batches = options.steps, options.micro_batches
    if options.mode == "grouped":
        return documents.grouped_steps(n_steps, micro_batches)
    if options.mode != "blocks":
        return documents.steps(n_steps, micro_batches, options.first)
    longest, per_step = documents.longest, options.batch * micro_batches
    rows = documents.steps(1, (n_steps + 1) * micro_batches * 2)[0]
    blocks = join_to_blocks(rows, longest)
    return [blocks[i * per_step : (i + 1) * per_step] for i in range(n_steps + 1)]


def main() -> None:
    """Train step by step."""
    parser = side_parser(__doc__)
    parser.add_argument("--checkpointing", action="store_true")
    options = parser.parse_args()
    silence_output()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.fp32_precision = "ieee"  # as ours, and as torch has it by default
    torch.manual_seed(options.seed)

    documents = Documents(options.base, options.texts, options.seed)
    steps = rows_of_steps(documents, options)
    model = load_model(options.base, options.arm)
    collator = (
        DataCollatorWithFlattening()
        if options.mode == "flattened"
        else Padder(options.mode, documents.longest, documents.end)
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = InOrder(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=options.batch,
                gradient_accumulation_steps=len(steps[0]) // options.batch,
                max_steps=len(steps),
                learning_rate=1e-4 if options.arm == "full" else 1e-3,
                warmup_steps=1,
                bf16=options.precision == "bfloat16",
                gradient_checkpointing=options.checkpointing,
                use_cpu=options.device == "cpu",
                dataloader_pin_memory=False,
                remove_unused_columns=False,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=[{"input_ids": row} for step in steps for row in step],
            data_collator=collator,
            callbacks=[OnCommand([sum(map(len, step)) for step in steps], options.device)],
        )
        report(ready=True, start_bytes=peak_bytes(options.device))
        trainer.train()


if __name__ == "__main__":
    main()
