"""Score a model with lorastudy, with lm-evaluation-harness and with a plain loop, and compare.

    python compare.py MODEL --mirror DIR [--pages N] [--rows N] [--lines N]

Needs lm-eval (extra `lmeval`) and the WikiText-2 and LAMBADA test sets under DIR, laid out like
the hub. The harness runs its own tasks `wikitext` and `lambada_openai`; only where they read from
is changed, to local files. Pages are cut here, not by lorastudy. Nothing asks the hub.
"""

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import lm_eval
import pyarrow.parquet as pq
import torch
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorastudy.config.references import find_benchmark, model_reference
from lorastudy.run.evaluate_model import evaluate_model
from lorastudy.store.places import Places, default_cache
from lorastudy.store.records import EvaluationRecord

WIKITEXT = "Salesforce/wikitext/wikitext-2-raw-v1/test-00000-of-00001.parquet"
LAMBADA = "EleutherAI/lambada_openai/en/test-00000-of-00001.parquet"
TASKS = Path(lm_eval.__file__).parent / "tasks"


def read_rows(path: Path) -> list[str]:
    """The texts of a data set's file."""
    return pq.read_table(path)["text"].to_pylist()


def cut_pages(rows: list[str]) -> list[str]:
    """WikiText pages out of rows, line by line, as they stood in the original file."""
    pages: list[list[str]] = [[]]
    for line in [row.rstrip("\n") or " " for row in rows] + [""]:
        bare = line.strip()
        if bare[:2] == "= " and bare[-2:] == " =" and bare[2:3] != "=" and bare[-3:-2] != "=":
            pages.append([])
        pages[-1].append(line)
    return [page for lines in pages if (page := "\n".join(lines)).strip()]


def write_task(folder: Path, name: str, origin: Path, column: str, texts: list[str]) -> None:
    """The harness' own task, reading `texts` from a local file."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps({column: text}) + "\n" for text in texts))
    (folder / f"{name}.yaml").write_text(
        f"include: {origin}\ntask: {name}\ntag: null\ndataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        "training_split: null\nvalidation_split: null\ntest_split: test\n"
    )


def run_harness(model: str, pages: list[str], passages: list[str]) -> dict[str, dict[str, float]]:
    """The harness' metrics on pages ("w") and passages ("l")."""
    with tempfile.TemporaryDirectory() as folder:
        write_task(Path(folder), "w", TASKS / "wikitext/wikitext.yaml", "page", pages)
        write_task(Path(folder), "l", TASKS / "lambada/lambada_openai.yaml", "text", passages)
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": model, "dtype": "float32", "device": "cpu"},
            tasks=["w", "l"],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            batch_size=1,
            bootstrap_iters=0,
        )
    return found["results"]


@torch.no_grad()
def slide(model: str, text: str, length: int, stride: int) -> tuple[float, int]:
    """Nats and scored tokens of the windows, by transformers alone."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(model)(text, add_special_tokens=False)["input_ids"]
    nats, n_scored, scored_to = 0.0, 0, 1
    for begin in range(0, len(ids), stride):
        window = torch.tensor(ids[begin : begin + length])
        first = scored_to - begin  # of the window's tokens that no window scored before
        if first < len(window):
            logits = network(window[None]).logits[0, first - 1 : -1]
            losses = torch.nn.functional.cross_entropy(logits, window[first:], reduction="none")
            nats += losses.double().sum().item()
            n_scored += len(losses)
            scored_to = begin + len(window)
        if scored_to >= len(ids):
            break
    return nats, n_scored


def show(name: str, ours: float, theirs: float) -> float:
    """Print both and their distance, and return the distance."""
    print(f"  {name:<34} {ours:>16.8f} {theirs:>16.8f} {abs(ours - theirs):>12.2e}")
    return abs(ours - theirs)


def main() -> None:
    """Score thrice, print, and exit 1 where the numbers disagree."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--mirror", type=Path, required=True)
    parser.add_argument("--pages", type=int, default=10)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--lines", type=int, default=200)
    parser.add_argument("--window", default="1024-512")
    options = parser.parse_args()
    lines = read_rows(options.mirror / WIKITEXT)
    pages = cut_pages(lines)[: options.pages]
    passages = read_rows(options.mirror / LAMBADA)[: options.rows]
    places = Places(Path.cwd(), options.mirror, True, default_cache())

    def score(benchmark: str, protocol: str, limit: int) -> EvaluationRecord:
        began = time.perf_counter()
        (record,) = evaluate_model(
            model_reference(options.model),
            None,
            find_benchmark(benchmark, (protocol,), limit=limit),
            places,
            length=2,
            device="cpu",
            precision="float32",
        )
        print(f"# {protocol}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        return record

    w = score("wikitext-2", "lm-eval-wikitext", options.pages)
    a = score("lambada", "lm-eval-lambada", options.rows)
    s = score("wikitext-2", f"sliding-{options.window}", options.lines)
    began = time.perf_counter()
    theirs = run_harness(options.model, pages, passages)
    print(f"# harness: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    text = "\n\n".join([line for line in lines if line.strip()][: options.lines])
    nats, n_scored = slide(options.model, text, *map(int, options.window.split("-")))

    versions = " ".join(f"{n} {version(n)}" for n in ("lm-eval", "transformers", "torch"))
    print(f"Python {platform.python_version()}, {versions}, {torch.get_num_threads()} thread(s)")
    print(f"model {Path(options.model).name}, float32, CPU\n")
    print(f"  {'':<34} {'lorastudy':>16} {'theirs':>16} {'difference':>12}")
    print(f"wikitext against lm-eval-wikitext ({w.n_documents} pages, {w.n_tokens:,} tokens)")
    assert w.word_perplexity and w.byte_perplexity and w.bits_per_byte and w.n_words
    their_nats = math.log(theirs["w"]["word_perplexity,none"]) * w.n_words
    worst = [
        show("nats a token", w.cross_entropy, their_nats / w.n_tokens),
        show("ln word perplexity", math.log(w.word_perplexity), their_nats / w.n_words),
    ]
    show("word perplexity", w.word_perplexity, theirs["w"]["word_perplexity,none"])
    show("byte perplexity", w.byte_perplexity, theirs["w"]["byte_perplexity,none"])
    show("bits a byte", w.bits_per_byte, theirs["w"]["bits_per_byte,none"])
    print(f"lambada_openai against lm-eval-lambada ({a.n_documents} passages)")
    assert a.accuracy is not None
    worst.append(
        show("nats a last word", a.cross_entropy, math.log(theirs["l"]["perplexity,none"]))
    )
    show("perplexity of the last word", a.perplexity, theirs["l"]["perplexity,none"])
    accuracy = show("accuracy", a.accuracy, theirs["l"]["acc,none"])
    print(f"plain loop against {s.protocol} ({s.n_tokens:,} and {n_scored:,} scored tokens)")
    worst.append(show("nats a token", s.cross_entropy, nats / n_scored))
    agree = max(worst) < 1e-3 and accuracy == 0 and s.n_tokens == n_scored
    print(f"\nagreement to 1e-3 nats and equal accuracy: {'yes' if agree else 'NO'}")
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
