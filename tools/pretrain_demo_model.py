"""Pretrain the small base model that the demo study fine-tunes.

The demo must run without a network, so its base model is part of the package: a GPT-2
of a few million parameters that has really read some English (WikiText-2 and IMDB
training text) and therefore has something to gain, and to lose, from fine-tuning. This
script made it; nothing in the package imports the script. Text that
the demo's benchmarks score is not among what it read.

    OUT/config.json, model.safetensors, tokenizer.json, tokenizer_config.json
    OUT/unigram_counts.json   how often each token occurs in the training text
    OUT/pretraining.json      data, steps, losses, versions, command

Shapes: B = windows in a batch, T = positions of a window, V = vocabulary.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import platform
import random
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tokenizers
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

VOCABULARY_SIZE = 4096  # divisible by 64; the demo's logits stay small
END_OF_TEXT = "<|endoftext|>"
HELD_OUT_EVERY = 50  # one document in fifty is never trained on
WARM_UP = 0.03  # share of the run
FINAL_RATE = 0.02  # share of the peak rate at the end of the cosine
SEED = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Length:
    """How long to train; one of the two is set, the other is None."""

    steps: int | None
    minutes: float | None

    def progress(self, step: int, started: float) -> float:
        """The share of the run that lies behind `step`, from 0 to 1."""
        if self.steps is not None:
            return step / self.steps
        assert self.minutes is not None
        return (time.monotonic() - started) / (60 * self.minutes)


# ---- text


def read_column(path: Path) -> list[str]:
    """The `text` column of a parquet file."""
    return pq.read_table(path, columns=["text"])["text"].to_pylist()


def read_reviews(path: Path) -> list[str]:
    """IMDB reviews with their line-break tags as line breaks, one document each."""
    return [re.sub(r"\s*(<br />\s*)+", "\n", text).strip() for text in read_column(path)]


def read_articles(path: Path) -> list[str]:
    """WikiText articles as ordinary prose, one document each.

    Sentences with a word that the data set replaced by `<unk>` are left out: a made-up
    word in every second sentence would be the commonest thing the model learns.
    """
    articles: list[list[str]] = []
    for row in read_column(path):
        line = row.strip()
        if re.fullmatch(r"= [^=].*[^=] =", line):
            articles.append([])
        if not line or line.startswith("= ") or not articles:
            continue
        sentences = [s for s in re.split(r"(?<= [.!?]) ", line) if "<unk>" not in s]
        articles[-1].append(restore_spacing(" ".join(sentences)))
    return [text for article in articles if (text := "\n".join(filter(None, article)))]


def restore_spacing(text: str) -> str:
    """Undo WikiText's word splitting: `role @-@ playing ( 1999 ) .` is `role-playing (1999).`."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([.,;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[$£]) ", r"\1", text)
    text = re.sub(r" '(s|t|re|ve|ll|d|m)\b", r"'\1", text)
    text = re.sub(r" n't\b", "n't", text)
    return re.sub(r'" (.*?) "', r'"\1"', text)


def split_documents(documents: Sequence[str]) -> tuple[list[str], list[str]]:
    """The documents in a fixed random order: (trained on, held out)."""
    shuffled = random.Random(SEED).sample(documents, len(documents))
    return (
        [d for n, d in enumerate(shuffled) if n % HELD_OUT_EVERY],
        shuffled[::HELD_OUT_EVERY],
    )


# ---- tokens


def train_tokenizer(documents: Sequence[str]) -> Tokenizer:
    """A byte-level BPE without any normalisation, so every text survives a round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def encode_stream(tokenizer: Tokenizer, documents: Sequence[str]) -> NDArray[np.int64]:
    """All documents one after the other, each behind an end-of-text token."""
    start = tokenizer.token_to_id(END_OF_TEXT)
    encodings = tokenizer.encode_batch(list(documents))
    return np.concatenate([np.array([start, *e.ids], dtype=np.int64) for e in encodings])


def draw_batches(stream: NDArray[np.int64], n_windows: int, length: int) -> Iterator[Tensor]:
    """Batches (B, T + 1) of disjoint windows, pass after pass, each pass in a new order."""
    generator = np.random.default_rng(SEED)
    n_available = (len(stream) - 1) // length
    while True:
        offset = generator.integers(len(stream) - n_available * length)
        order = generator.permutation(n_available)
        for first in range(0, n_available - n_windows + 1, n_windows):
            begins = offset + order[first : first + n_windows] * length
            yield torch.from_numpy(np.stack([stream[b : b + length + 1] for b in begins]))


def unigram_loss(counts: NDArray[np.int64], stream: NDArray[np.int64]) -> float:
    """Nats a token of `stream` under the add-one smoothed frequencies `counts` (V,)."""
    log_probabilities = np.log(counts + 1) - math.log(counts.sum() + len(counts))
    return -float(log_probabilities[stream].mean())


# ---- model


def build_model(arguments: argparse.Namespace) -> GPT2LMHeadModel:
    """A freshly initialised GPT-2; dropout is off while it learns, see `write_model`."""
    config = GPT2Config(
        vocab_size=VOCABULARY_SIZE,
        n_positions=arguments.positions,
        n_embd=arguments.width,
        n_layer=arguments.layers,
        n_head=arguments.width // 64,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own function in one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    return GPT2LMHeadModel(config)


def window_loss(model: GPT2LMHeadModel, windows: Tensor) -> Tensor:
    """Mean nats a token of windows (B, T + 1); each position predicts its right neighbour."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=windows[:, :-1]).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: GPT2LMHeadModel, stream: NDArray[np.int64], length: int) -> float:
    """Mean nats a token over disjoint windows of `stream`, in the order they stand."""
    begins = range(0, len(stream) - length, length)
    windows = torch.from_numpy(np.stack([stream[b : b + length + 1] for b in begins]))
    model.eval()
    losses = [window_loss(model, part).item() * len(part) for part in windows.split(16)]
    model.train()
    return sum(losses) / len(windows)


def build_optimizers(model: GPT2LMHeadModel, peak_rate: float) -> list[torch.optim.Optimizer]:
    """Muon (github.com/KellerJordan/Muon) for the matrices of the blocks, AdamW for the rest.

    After 160 steps of 2,048 tokens the held-out loss was 5.67 nats, with AdamW alone 6.74:
    on a budget of minutes that is the difference between English and word frequencies.
    """
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=peak_rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=peak_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def rate_factor(progress: float) -> float:
    """Linear warm-up, then a cosine down to FINAL_RATE, over the share of the run done."""
    if progress < WARM_UP:
        return (progress + 0.001) / (WARM_UP + 0.001)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))
    return FINAL_RATE + (1 - FINAL_RATE) * cosine


def train(
    model: GPT2LMHeadModel, batches: Iterator[Tensor], length: Length, peak_rate: float
) -> tuple[int, float]:
    """Train in place; (steps taken, mean training loss of the last fifty steps)."""
    optimizers = build_optimizers(model, peak_rate)
    recent: list[float] = []
    started = time.monotonic()
    step = 0
    while (progress := length.progress(step, started)) < 1:
        for group in (g for optimizer in optimizers for g in optimizer.param_groups):
            group["lr"] = peak_rate * rate_factor(progress)
        loss = window_loss(model, next(batches))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        step += 1
        recent = [*recent[-49:], loss.item()]
        if step % 50 == 0:
            seconds = time.monotonic() - started
            print(f"step {step}  {sum(recent) / 50:.3f} nats  {seconds:.0f} s", flush=True)
    return step, sum(recent) / len(recent)


# ---- files


def write_model(model: GPT2LMHeadModel, tokenizer: Tokenizer, out: Path) -> None:
    """Write an ordinary Hugging Face folder: float16 weights, GPT-2's dropout of 0.1."""
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        setattr(model.config, name, 0.1)
    model.config.use_cache = True
    model.half().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors writes for the owner only
    (out / "generation_config.json").unlink(missing_ok=True)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=model.config.n_positions,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(out)


def describe_file(path: Path) -> dict[str, str]:
    """Name (without the folders of this machine) and SHA-256 of a data file."""
    return {"file": shorten(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def shorten(path: Path) -> str:
    """The last three parts of a path: data set, configuration, file."""
    return "/".join(path.parts[-3:])


def write_json(path: Path, value: object) -> None:
    """Write indented JSON with a newline at the end."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--wikitext", type=Path, required=True, metavar="PARQUET")
    parser.add_argument("--imdb", type=Path, nargs="+", required=True, metavar="PARQUET")
    parser.add_argument("--out", type=Path, required=True)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int)
    length.add_argument("--minutes", type=float, help="the cosine follows the clock")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--reviews", type=int, default=15_000, help="IMDB reviews to read")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=192, help="a multiple of 64")
    parser.add_argument("--positions", type=int, default=256)
    parser.add_argument("--windows", type=int, default=8, help="windows in a batch")
    parser.add_argument("--peak-rate", type=float, default=6e-3)
    return parser.parse_args()


def main() -> None:
    """Read, tokenise, train, measure, write."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)
    reviews = [review for path in arguments.imdb for review in read_reviews(path)]
    reviews = random.Random(SEED).sample(reviews, min(len(reviews), arguments.reviews))
    trained_on, held_out = split_documents([*read_articles(arguments.wikitext), *reviews])
    tokenizer = train_tokenizer(trained_on)
    stream = encode_stream(tokenizer, trained_on)
    held_out_stream = encode_stream(tokenizer, held_out)
    counts = np.bincount(stream, minlength=VOCABULARY_SIZE)
    print(f"{len(stream)} tokens to train on, {len(held_out_stream)} held out", flush=True)

    model = build_model(arguments)
    batches = draw_batches(stream, arguments.windows, arguments.positions)
    length = Length(steps=arguments.steps, minutes=arguments.minutes)
    started = time.monotonic()
    n_steps, training_loss = train(model, batches, length, arguments.peak_rate)
    train_seconds = time.monotonic() - started
    held_out_nats = held_out_loss(model, held_out_stream, arguments.positions)

    arguments.out.mkdir(parents=True, exist_ok=True)
    write_model(model, tokenizer, arguments.out)
    write_json(arguments.out / "unigram_counts.json", counts.tolist())
    record = {
        "data": [describe_file(path) for path in (arguments.wikitext, *arguments.imdb)],
        "n_documents": len(trained_on),
        "n_tokens": len(stream),
        "n_tokens_held_out": len(held_out_stream),
        "n_steps": n_steps,
        "n_tokens_seen": n_steps * arguments.windows * arguments.positions,
        "train_seconds": round(train_seconds),
        "n_parameters": model.num_parameters(),
        "training_loss": round(training_loss, 4),
        "held_out_loss": round(held_out_nats, 4),
        "held_out_unigram_loss": round(unigram_loss(counts, held_out_stream), 4),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "command": shlex.join(
            ["python", *(shorten(Path(a)) if a.endswith(".parquet") else a for a in sys.argv)]
        ),
    }
    write_json(arguments.out / "pretraining.json", record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
