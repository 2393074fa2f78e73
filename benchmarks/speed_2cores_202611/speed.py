"""This package against Hugging Face Trainer + PEFT, alternated, as JSON and Markdown.

    python speed.py                          everything, added to results.json
    python speed.py --only 'dynamic'         rows whose key has this in it (repeatable)
    python speed.py --list                   the keys
    python speed.py --table results.json     the tables of a file, measuring nothing
    python speed.py --device cuda            what was aimed at on one GPU; nobody ran it yet

Both sides are processes of their own that stay loaded; the driver lets them take a step in
turn. A ratio is taken of neighbouring steps, and the median of the ratios is reported with its
range: of wall seconds, and of processor seconds. Memory is the peak of the whole process.
Results are written after every row, and a row that is measured again replaces its older self.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from comparisons import ARMS, EVALUATION, GPU, STEP_TARGETS, TRAINING, Comparison
from sides import Side, alternate, compare, describe_machine, has_bfloat16
from table import evaluation_line, markdown, training_line

HERE = Path(__file__).resolve().parent
STEPS_OF_ARMS = "steps of the arms"


def make_base(folder: Path, name: str = "gpt2") -> Path:
    """GPT-2 or a model of SmolLM2-135M's shape; speed does not depend on the random weights."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    shapes = {
        "gpt2": GPT2Config(),
        "smollm2": LlamaConfig(
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            vocab_size=49_152,
            max_position_embeddings=2_048,
            tie_word_embeddings=True,
            eos_token_id=0,
        ),
    }
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(shapes[name]).save_pretrained(folder / name)
    return folder / name


def count_products(base: Path) -> int:
    """Weights that a token is multiplied with: those of the blocks and of the output layer."""
    config = json.loads((base / "config.json").read_text())
    if config["model_type"] == "gpt2":
        width, in_block = config["n_embd"], 12 * config["n_embd"] ** 2
        return int(config["n_layer"] * in_block + config["vocab_size"] * width)
    width = config["hidden_size"]
    shared = width * config["num_key_value_heads"] // config["num_attention_heads"]
    in_block = 2 * width * (width + shared) + 3 * width * config["intermediate_size"]
    return int(config["num_hidden_layers"] * in_block + config["vocab_size"] * width)


def compare_arms(common: list[str], n_steps: int, device: str) -> list[dict[str, Any]]:
    """Steps of all arms of ours in turn, on the same rows; on a GPU each in one pass."""
    precision = "bfloat16" if device == "cuda" else "float32"
    window = ["--micro-batches", "5", "--batch", "70", "--token-budget", "10000"]
    how = [*window, "--implementation", "compiled"] if device == "cuda" else []
    shared = [*common, *how, "--precision", precision, "--steps", str(n_steps)]
    sides = {arm: Side("ours.py", [*shared, "--arm", arm]) for arm in ARMS}
    steps, _ = alternate(sides, n_steps)
    return [
        {
            "arm": arm,
            "precision": precision,
            "target": STEP_TARGETS.get(arm),
            "steps": [s[arm] for s in steps],
        }
        for arm in ARMS
    ]


def choose(only: list[str] | None, device: str) -> list[Comparison]:
    """Rows whose key holds one of `only`; all without it."""
    rows = GPU if device == "cuda" else (*TRAINING, *EVALUATION)
    return [row for row in rows if not only or any(part in row.key for part in only)]


def measure(
    rows: list[Comparison],
    results: dict[str, Any],
    common: list[str],
    bases: dict[str, Path],
    options: argparse.Namespace,
) -> None:
    """Measure `rows` and put them into `results` and into the file."""
    out = options.out
    for row in rows:
        if row.precision == "bfloat16" and not has_bfloat16(options.device):
            print(f"{row.key}: left out, since this processor has no instructions for bfloat16")
            continue
        base = ["--base", str(bases[row.base])]
        found = compare(row, [*base, *common], options.alternations)
        kept = {f["key"]: f for f in results["comparisons"]}
        results["comparisons"] = list({**kept, row.key: found}.values())
        out.write_text(json.dumps(results, indent=1) + "\n")
        line = training_line if row.task == "train" else evaluation_line
        print(line(found, results), flush=True)


def main() -> None:
    """Measure what is asked for and print the tables of all results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--base", type=Path, help="folder of a model for all rows; random ones without it"
    )
    parser.add_argument("--only", action="append", help="part of a key; repeatable")
    parser.add_argument("--alternations", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--list", action="store_true", help="print the keys")
    parser.add_argument("--table", type=Path, help="print the tables of this file")
    options = parser.parse_args()
    rows = choose(options.only, options.device)
    wants_arms = STEPS_OF_ARMS in (options.only or [STEPS_OF_ARMS])
    if options.list:
        print("\n".join([*(row.key for row in rows), STEPS_OF_ARMS]))
        return
    if options.table:
        print(markdown(json.loads(options.table.read_text())))
        return
    results: dict[str, Any] = {"comparisons": []}
    if options.out.exists():
        results = json.loads(options.out.read_text())
    results["machine"] = describe_machine(options.threads, options.device)
    with tempfile.TemporaryDirectory() as folder:
        wanted = {row.base for row in rows} | ({"gpt2"} if wants_arms else set())
        bases = {name: options.base or make_base(Path(folder), name) for name in sorted(wanted)}
        common = ["--threads", str(options.threads), "--device", options.device]
        counted = {name: count_products(base) for name, base in bases.items()}
        results["products"] = {**results.get("products", {}), **counted}
        if wants_arms:
            arguments = ["--base", str(bases["gpt2"]), *common]
            results["arms"] = compare_arms(arguments, options.alternations, options.device)
        measure(rows, results, common, bases, options)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print("\n" + markdown(results))


if __name__ == "__main__":
    main()
