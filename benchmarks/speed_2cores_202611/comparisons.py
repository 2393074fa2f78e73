"""What is compared with what, and which ratio was aimed at.

`micro_batches` is how many micro-batches of 14 rows stand behind one measured step. The study
has 5; what a token costs does not depend on it, as the driver's README shows, so expensive
peers are measured with one.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Comparison:
    """One row of the tables; targets are least ratios of speed and largest of memory."""

    name: str
    arm: str
    mode: str  # of the peer
    task: Literal["train", "evaluate"] = "train"
    base: str = "gpt2"
    precision: str = "float32"
    texts: str = "wikitext-2-train"
    micro_batches: int = 1
    peer_batch: int = 14  # rows, or blocks, that the peer computes at once
    our_batch: int = 14
    token_budget: int | None = None  # of ours
    implementation: str = "fast"  # of ours
    checkpointing: bool = False
    speed_target: float | None = None
    memory_target: float | None = None  # of the peer's peak resident memory
    net_memory_target: float | None = None  # the same without what was resident at the start

    @property
    def first_step(self) -> str:
        """The step before those that are timed."""
        if self.memory_target or self.net_memory_target:
            return "peak"
        return "none" if self.mode in ("padded", "scored") else "short"

    @property
    def has_first(self) -> bool:
        """Whether a step that is not timed comes before the others."""
        return self.task == "evaluate" or self.first_step != "none"

    @property
    def key(self) -> str:
        """Names the row in files and on the command line."""
        return f"{self.task}/{self.name}/{self.arm}/{self.precision}"


STEP = {"micro_batches": 5}  # as the study has it
SINGLE = {"mode": "dynamic", "peer_batch": 1}
BLOCKS = {"mode": "blocks", "peer_batch": 4}  # 4 x 350 tokens at once
LOW = {"precision": "bfloat16"}
COMPILED = {"implementation": "compiled"}
LEAST = {"speed_target": 3.0}  # of methods and bases whose modules may have no lean form
TRAINING = (
    Comparison("dynamic padding", "lora-2", "dynamic", speed_target=5.5, memory_target=0.17),
    Comparison("dynamic padding", "full", "dynamic", speed_target=4.5, memory_target=0.24),
    Comparison("dynamic padding, 14 x 5", "lora-2", "dynamic", **STEP, speed_target=5.5),
    Comparison("micro-batch 1", "lora-2", **SINGLE, speed_target=1.35),
    Comparison("350-blocks", "lora-2", **BLOCKS, speed_target=1.25),
    Comparison("350-blocks", "lora-1", **BLOCKS, speed_target=1.3),
    Comparison("350-blocks", "lora-4", **BLOCKS, speed_target=1.3),
    Comparison("350-blocks", "full", **BLOCKS, speed_target=1.2),
    Comparison("350-blocks, ours compiled", "lora-2", **BLOCKS, **COMPILED),
    Comparison("grouped by length", "lora-2", "grouped", **STEP, speed_target=1.6),
    Comparison("padding-free", "lora-2", "flattened", speed_target=3.3),
    Comparison("padding-free", "full", "flattened", speed_target=2.8),
    Comparison("dynamic padding", "lora-1", "dynamic", speed_target=5.5, memory_target=0.17),
    Comparison("dynamic padding", "lora-4", "dynamic", speed_target=5.5, memory_target=0.17),
    Comparison("padded to 350", "lora-2", "padded", speed_target=7.5),
    Comparison("padding scored", "lora-2", "scored", speed_target=1.25),
    Comparison("dynamic, SmolLM2", "lora-2", "dynamic", base="smollm2", speed_target=3.0),
    Comparison("micro-batch 1, ours 2", "lora-2", **SINGLE, our_batch=2, net_memory_target=0.6),
    Comparison(
        "dynamic, checkpointing", "lora-2", "dynamic", checkpointing=True, memory_target=0.45
    ),
    Comparison("dynamic padding", "lora-2", "dynamic", **LOW, speed_target=6.5, memory_target=0.22),
    Comparison("dynamic padding", "full", "dynamic", **LOW, speed_target=4.0),
    Comparison("350-blocks", "lora-2", **BLOCKS, **LOW, speed_target=1.5),
    Comparison("micro-batch 1", "lora-2", **SINGLE, **LOW),
    Comparison("padding-free", "lora-2", "flattened", **LOW, speed_target=4.0),
    Comparison("padded to 350", "lora-2", "padded", **LOW, speed_target=9.0),
    Comparison("dynamic padding", "lora-2+bfloat16-base", "dynamic", **LOW, **LEAST),
    Comparison("dynamic padding", "lora-2+rslora", "dynamic", **LEAST),
    Comparison("dynamic padding", "lora-2+dora", "dynamic", **LEAST),
    Comparison("dynamic padding", "lora-2+vera", "dynamic", **LEAST),
)

TEST = {"task": "evaluate", "texts": "wikitext-2-test", "micro_batches": 3}
IMDB = {"task": "evaluate", "texts": "imdb-test", "micro_batches": 2}
EVALUATION = (
    Comparison("WikiText-2: padded to 350", "lora-2", "padded", **TEST, speed_target=4.5),
    Comparison("WikiText-2: sorted", "lora-2", "sorted", **TEST),
    Comparison("WikiText-2: sorted, merged", "lora-2", "merged", **TEST, speed_target=1.9),
    Comparison("IMDB: padded to 350", "lora-2", "padded", **IMDB, speed_target=2.1),
    Comparison("IMDB: sorted", "lora-2", "sorted", **IMDB),
    Comparison("IMDB: sorted, merged", "lora-2", "merged", **IMDB, speed_target=1.5),
    Comparison("WikiText-2: padded to 350", "lora-2", "padded", **TEST, **LOW),
    Comparison("WikiText-2: sorted, merged", "lora-2", "merged", **TEST, **LOW),
)

WINDOW = {"micro_batches": 5, "our_batch": 70, "token_budget": 10_000}  # a step in one pass
GPU = (
    Comparison("padded to 350", "lora-2", "padded", **WINDOW, speed_target=4.0, memory_target=0.2),
    Comparison("padded to 350", "full", "padded", **WINDOW, memory_target=0.3),
    Comparison("dynamic padding", "lora-2", "dynamic", **WINDOW, speed_target=3.0),
    Comparison("padding-free", "lora-2", "flattened", **WINDOW, speed_target=3.0),
    Comparison("padded to 350", "lora-2", "padded", **WINDOW, **LOW, speed_target=8.0),
    Comparison(
        "padded to 350, ours compiled",
        "lora-2",
        "padded",
        **WINDOW,
        **LOW,
        **COMPILED,
        speed_target=8.0,
    ),
    Comparison("dynamic padding", "lora-2", "dynamic", **WINDOW, **LOW, speed_target=3.0),
    Comparison("padding-free", "lora-2", "flattened", **WINDOW, **LOW, speed_target=3.0),
    Comparison(
        "padding-free, ours compiled",
        "lora-2",
        "flattened",
        **WINDOW,
        **LOW,
        **COMPILED,
        speed_target=3.0,
    ),
)
EPOCHS, TOKENS = 8, 2_400_000  # of the published study, whose five arms were to take ten minutes
ARMS = ("full", "lora-1", "lora-2", "lora-3", "lora-4")
STEP_TARGETS = {"lora-1": 0.78, "lora-2": 0.9}  # of the seconds of a step of full
