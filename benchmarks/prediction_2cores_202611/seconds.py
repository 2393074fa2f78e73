"""Predicted seconds beside those that runs then took: the demo, and a model like SmolLM2-135M.

./run python benchmarks/prediction_2cores_202611/seconds.py                   # both
./run python benchmarks/prediction_2cores_202611/seconds.py demo              # one of them
./run python benchmarks/prediction_2cores_202611/seconds.py smollm2 --base DIR

For each, `check` predicts roughly, `check --probe` predicts from the first steps, and the study is
run in a temporary folder. Without `--base`, the large model has random weights in the shape of
SmolLM2-135M, which take as long. Nothing else should use the machine.
"""

import sys
import tempfile
import time
from pathlib import Path

import lorastudy as ls

LORA = {"method": "lora", "rank": 16, "alpha": 32, "dropout": 0.1, "learning_rates": [1e-3]}


def main() -> None:
    """Print one table for each study."""
    arguments = sys.argv[1:]
    base = Path(arguments[arguments.index("--base") + 1]) if "--base" in arguments else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "smollm2" not in arguments:
            compare(ls.load_study("demo"), folder / "demo")
        if "demo" not in arguments:
            compare(make_large_study(base or make_large_model(folder / "base")), folder / "large")


def compare(study: ls.Study, folder: Path) -> None:
    """Predict, run, and print both."""
    rough, probed = ls.check(study), ls.check(study, probe=True)
    began = time.perf_counter()
    for event in ls.run(study, out=folder, jobs=1):
        if isinstance(event, ls.RunEnded):
            wall = time.perf_counter() - began  # the report that follows is not predicted
    runs = ls.open_results(folder).runs
    print(f"\n{study.name}: seconds of a run\n")
    print("| arm | roughly | probed | measured | probed / measured |")
    print("|---|--:|--:|--:|--:|")
    for one, other in zip(rough.arms, probed.arms, strict=True):
        measured = runs.total_seconds[runs.arm == one.name].mean() + other.seconds.set_up
        row = (one.predicted_seconds, other.predicted_seconds, measured)
        print(f"| {one.name} | {' | '.join(f'{s:.1f}' for s in row)} | {row[1] / row[2]:.2f} |")
    row = (rough.predicted_seconds, probed.predicted_seconds, wall)
    print(f"| study | {' | '.join(f'{s:.0f}' for s in row)} | {row[1] / row[2]:.2f} |", flush=True)


def make_large_model(folder: Path) -> Path:
    """Random weights in the shape of SmolLM2-135M, with the demo's tokenizer."""
    import shutil

    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for path in (Path(ls.__file__).parent / "demo" / "base").glob("tokenizer*.json"):
        shutil.copy(path, folder)
    return folder


def make_large_study(base: Path) -> ls.Study:
    """Three arms on 160 rows, for one epoch."""
    builtin = {"builtin": "python-reference"}
    docstrings = {"builtin": "docstrings", "split": "test"}
    return ls.Study(
        name="large",
        base_model={"path": str(base)},
        data={
            "train": {**builtin, "split": "train", "limit": 160},
            "validation": {**builtin, "split": "validation", "limit": 40},
            "rows": {"cut": "lines", "length": 350},
        },
        training={"epochs": 1, "rows_per_step": 4, "micro_batch": 4},
        seeds=[0],
        arms=[
            {"name": "baseline", "method": "baseline"},
            {"name": "full", "method": "full", "learning_rates": [1e-4]},
            {"name": "lora-2", "placement": ["attention", "projection"], **LORA},
        ],
        benchmarks=[
            {"name": "docstrings", **docstrings, "limit": 60, "protocols": ["rows-text"]},
        ],
    )


if __name__ == "__main__":
    main()
