"""Predicted peak memory beside the measured one: families x arms x formats x lengths.

./run python benchmarks/prediction_2cores_202611/memory.py            # measure, then print
./run python benchmarks/prediction_2cores_202611/memory.py --table    # print what was measured

Each cell is a process of its own: a random model of one family is loaded in one format, an arm is
attached, and three steps are taken on rows of full length, with the fast or the reference
implementation. Measured is the highest resident memory of Linux above what was resident before
loading, with libraries and a tiny model already there. Predicted is the peak of `check` without its
part for libraries. The measured bytes are in memory.json, so that the table can be printed again.
"""

import json
import os
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lorastudy.config.models import Arm, Training
from lorastudy.data.batches import Batch, Padding, make_batch
from lorastudy.data.rows import cut_lines
from lorastudy.machine.environment import set_up_memory
from lorastudy.model.adapters import attach_arm
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.arm_size import measure_arm
from lorastudy.model.base import describe_base, load_base, quieten_libraries
from lorastudy.model.scoring import make_scorer
from lorastudy.study.predicted_peak import LongestRow, PeakPrediction, predict_arm_peak
from lorastudy.train.optimizer import make_optimizer

WIDTH, LAYERS, VOCABULARY, ROWS, STEPS = 512, 6, 8192, 4, 3
FAMILIES = ("gpt2", "llama", "gpt_neox", "opt")
LENGTHS = (512, 128)
FORMATS = ("float32", "bfloat16", *(["nf4"] if find_spec("bitsandbytes") else []))
IMPLEMENTATIONS = ("fast", "reference")
CPU = torch.device("cpu")
LORA = {"method": "lora", "rank": 16, "alpha": 32.0, "dropout": 0.1, "learning_rates": (1e-3,)}
ARMS = (
    Arm(name="full", method="full", learning_rates=(1e-4,)),
    Arm(name="lora-attention", placement=("attention",), **LORA),
    Arm(name="lora-all", placement=("all-linear",), **LORA),
)
STORED = Path(__file__).with_name("memory.json")


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    family: str
    implementation: str
    arm: str
    base_weights: str
    length: int

    @property
    def its_arm(self) -> Arm:
        """The arm with its base in the cell's format."""
        arm = next(arm for arm in ARMS if arm.name == self.arm)
        return arm.model_copy(update={"base_weights": self.base_weights})

    @property
    def training(self) -> Training:
        """All rows at once."""
        return Training(
            epochs=1, rows_per_step=ROWS, micro_batch=ROWS, implementation=self.implementation
        )


CELLS = [
    Cell(family, implementation, arm.name, held, length)
    for length in LENGTHS
    for implementation in IMPLEMENTATIONS
    for family in FAMILIES
    for arm in ARMS
    for held in (FORMATS if arm.name == "lora-all" and length == LENGTHS[0] else FORMATS[:1])
]
# of a family and a length that no number of the prediction was chosen by
CELLS += [
    Cell("qwen3", implementation, arm.name, "float32", 256)
    for implementation in IMPLEMENTATIONS
    for arm in ARMS
]


def make_configs() -> dict[str, Any]:
    """Models of the same size, one for each family, and a tiny one."""
    from transformers import (
        GPT2Config,
        GPTNeoXConfig,
        LlamaConfig,
        OPTConfig,
        Qwen3Config,
    )

    tokens = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0}
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 8}
    gated = {**sizes, **tokens, "num_key_value_heads": 2, "intermediate_size": 1408}
    return {
        "gpt2": GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=8, **tokens),
        "llama": LlamaConfig(**gated, tie_word_embeddings=True),
        "qwen3": Qwen3Config(**gated, tie_word_embeddings=True, head_dim=64),
        "gpt_neox": GPTNeoXConfig(**sizes, **tokens, intermediate_size=4 * WIDTH),
        "opt": OPTConfig(**sizes, **tokens, ffn_dim=4 * WIDTH, word_embed_proj_dim=WIDTH),
        "tiny": GPT2Config(n_embd=32, n_layer=1, n_head=2, **tokens),
    }


def make_models(folder: Path) -> None:
    """Write them with random weights."""
    from transformers import AutoModelForCausalLM

    quieten_libraries()
    torch.manual_seed(0)
    for name, config in make_configs().items():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)


def predict(folder: Path, cell: Cell) -> PeakPrediction:
    """What `check` would say."""
    base, arm = describe_base(folder / cell.family), cell.its_arm
    placement = resolve_arm(arm, base)
    size = measure_arm(arm, base, placement)
    row = LongestRow(cell.length, cell.length)
    return predict_arm_peak(arm, cell.training, base, placement, size, row=row, device=CPU)


def measure(folder: Path, cell: Cell) -> int:
    """Bytes that this process needs for a cell."""
    set_up_memory()
    quieten_libraries()
    torch.set_num_threads(1)
    load_base(folder / "tiny", device=CPU, base_weights=cell.base_weights)
    arm = cell.its_arm
    placement = resolve_arm(arm, describe_base(folder / cell.family))
    batch = random_batch(cell.length)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")

    # load
    network = load_base(folder / cell.family, device=CPU, base_weights=cell.base_weights)
    model = attach_arm(network, arm, placement, seed=0)
    scorer = make_scorer(network, "float32", implementation=cell.implementation)

    # train
    network.train()
    optimizer = make_optimizer(model.trained_tensors(), cell.training.optimizer)
    for _ in range(STEPS):
        (scorer.sum_nats(batch) / batch.n_scored).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return resident("VmHWM") - before


def resident(kind: str) -> int:
    """Bytes of this process that are in memory, of the kind that Linux names so."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def random_batch(length: int) -> Batch:
    """Rows of random tokens, all of full length."""
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, size=ROWS * length)
    table = cut_lines(np.arange(0, ROWS * length + 1, length), length + 1, 0)
    return make_batch(tokens, table, np.arange(ROWS), Padding(0))


def measure_in_fork(folder: Path, cell: Cell) -> int:
    """As `measure`, in a process that has loaded nothing but libraries."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # progress bars of libraries
        os.write(writing, str(measure(folder, cell)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    os.wait()
    return int(text)


def measure_all(folder: Path) -> None:
    """Measure all cells, or those that are not stored yet."""
    stored = json.loads(STORED.read_text()) if STORED.exists() else []
    known = [{key: line[key] for key in line if key != "bytes"} for line in stored]
    for cell in CELLS:
        if asdict(cell) not in known:
            stored.append({**asdict(cell), "bytes": measure_in_fork(folder, cell)})
            STORED.write_text("[\n" + ",\n".join(map(json.dumps, stored)) + "\n]\n")


def print_table(folder: Path) -> None:
    """Print a line for each cell, and how many are near."""
    print("| family | implementation | arm | base | length | predicted | measured | ratio |")
    print("|---|---|---|---|--:|--:|--:|--:|")
    ratios = []
    for line in json.loads(STORED.read_text()):
        measured = line.pop("bytes")
        cell = Cell(**line)
        peak = predict(folder, cell)
        predicted = peak.total - peak.libraries
        ratios.append(predicted / measured)
        print(
            f"| {cell.family} | {cell.implementation} | {cell.arm} | {cell.base_weights} | "
            f"{cell.length} | {predicted / 2**20:,.0f} | {measured / 2**20:,.0f} | "
            f"{ratios[-1]:.2f} |"
        )
    near = sum(abs(ratio - 1) <= 0.15 for ratio in ratios)
    print(f"\n{near} of {len(ratios)} cells are within 15 % of the measured peak; ", end="")
    print(f"ratios from {min(ratios):.2f} to {max(ratios):.2f}.")


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.fork() == 0:  # no thread may exist in this process before it forks
            make_models(folder)
            os._exit(0)
        os.wait()
        if "--table" not in sys.argv:
            measure_all(folder)
        print_table(folder)


if __name__ == "__main__":
    main()
