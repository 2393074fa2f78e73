"""What a 7B base would take: memory of every arm under FSDP2, adapters, tokens a second.

    ./run python benchmarks/scaling_2cores_202611/plan.py

Arithmetic from shapes, nothing is run. The base has the layout of Llama-2-7B (arXiv:2307.09288);
its arms are those of the preset `paper`. Weights are float32, as always here, products bfloat16.
"""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from lorastudy.config.models import Arm, Training
from lorastudy.config.study_file import load_study, preset_text
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.arm_size import ArmSize
from lorastudy.model.base import BaseDescription, describe_base, quieten_libraries
from lorastudy.study.predicted_peak import LongestRow, predict_arm_peak

LAYOUT = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
ROW = 2048  # tokens; one row a process at once
PROCESSES = (1, 2, 4, 8)
GIB, MIB = 1024**3, 1024**2
CARD = 80 * 10**9  # bytes of the card that a row is compared with
TOKENS, HOURS = 100e6, 24.0  # what one run is to train on, and in which time


@dataclass(frozen=True)
class ArmNeeds:
    """One arm in numbers that do not depend on how many processes there are."""

    name: str
    trained: int  # parameters
    adapter: int
    activations: int  # bytes of one row, logits included
    flops_per_token: float


def main() -> None:
    """Print the three tables in Markdown."""
    quieten_libraries()
    base = describe_7b()
    arms = [needs_of(arm, base) for arm in paper_arms()]
    print_memory(base, arms)
    print_adapters(arms)
    print_speed(arms)


def describe_7b() -> BaseDescription:
    """The layout, from a configuration without weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(LAYOUT))
        return describe_base(path.parent)


def paper_arms() -> list[Arm]:
    """The arms that train."""
    study = load_study(preset_text("paper"), "preset paper", sys.argv[1:])
    return [arm for arm in study.arms if arm.method != "baseline"]


def needs_of(arm: Arm, base: BaseDescription) -> ArmNeeds:
    """Parameters, activations and arithmetic of an arm."""
    placement = resolve_arm(arm.model_copy(update={"allow_tied": True}), base)
    adapter = placement.adapter_parameters(arm.rank) if arm.rank else 0
    trained = adapter or base.total_parameters
    peak = predict_arm_peak(
        arm,
        Training(epochs=1, rows_per_step=1, micro_batch=1, precision="bfloat16"),
        base,
        placement,
        ArmSize(trained, adapter, trained),
        row=LongestRow(ROW, ROW),
        device=torch.device("cuda"),
    )
    # a product costs 2 FLOPs a weight and token in each pass: forward, gradient of inputs, and
    # gradient of weights where they are trained
    products = base.total_parameters - LAYOUT["vocab_size"] * LAYOUT["hidden_size"]
    flops = 6.0 * products if not adapter else 4.0 * products + 6.0 * adapter
    return ArmNeeds(arm.name, trained, adapter, peak.activations + peak.logits, flops)


def bytes_of_process(base: BaseDescription, arm: ArmNeeds, n: int) -> float:
    """Bytes of one of `n` processes under FSDP2.

    Sharded: float32 weights, gradients and two moments. Whole: two layers (the one that is
    computed and the next), embedding and output layer, and the bfloat16 copies of linear
    weights that autograd keeps until backward.
    """
    ends = 2 * LAYOUT["vocab_size"] * LAYOUT["hidden_size"]
    weights = base.total_parameters + arm.adapter
    layer = (weights - ends) / LAYOUT["num_hidden_layers"]
    sharded = (4 * weights + 12 * arm.trained) / n
    whole = 0.0 if n == 1 else 4 * (2 * layer + ends)
    copies = 2 * (weights - ends)
    return sharded + whole + copies + arm.activations


def print_memory(base: BaseDescription, arms: list[ArmNeeds]) -> None:
    """GiB of a process by arm and number of processes; those beyond the card in brackets."""
    print(f"{base.total_parameters:,} parameters; GiB of each process under FSDP2, {ROW} tokens")
    print("a process at once (in brackets: more than a card of 80 GB has)\n")
    print("| arm | trained parameters | " + " | ".join(f"{n} GPU" for n in PROCESSES) + " |")
    print("|---|---:|" + "---:|" * len(PROCESSES))
    for arm in arms:
        needed = [bytes_of_process(base, arm, n) for n in PROCESSES]
        cells = [f"{b / GIB:.0f}" if b <= CARD else f"({b / GIB:.0f})" for b in needed]
        print(f"| {arm.name} | {arm.trained:,} | " + " | ".join(cells) + " |")


def print_adapters(arms: list[ArmNeeds]) -> None:
    """What a finished run and a checkpoint take on disk, float32."""
    print("\n| arm | best epoch, MiB | one checkpoint, MiB |\n|---|---:|---:|")
    for arm in arms:
        print(f"| {arm.name} | {arm.trained * 4 / MIB:,.0f} | {arm.trained * 12 / MIB:,.0f} |")


def print_speed(arms: list[ArmNeeds]) -> None:
    """Tokens a second that a run needs, and the arithmetic behind them."""
    speed = TOKENS / HOURS / 3600
    print(
        f"\nOne run over {TOKENS:,.0f} tokens within {HOURS:.0f} hours needs {speed:,.0f} ", end=""
    )
    print("tokens a second, all GPUs of the run together:\n")
    print("| arm | GFLOP per token | TFLOP per second |\n|---|---:|---:|")
    for arm in arms:
        flops = arm.flops_per_token
        print(f"| {arm.name} | {flops / 1e9:.1f} | {flops * speed / 1e12:.0f} |")


if __name__ == "__main__":
    main()
